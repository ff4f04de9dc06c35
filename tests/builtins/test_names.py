"""What compares names compares them as a text encoder reads them: detectors, masks, erasers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from auditor._files.images import to_png
from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
from auditor.builtins.masks.folder import FolderMasks
from auditor.errors import UsageError
from auditor.plugin.contracts import MaskRequest
from auditor.policy import Concept
from auditor.testing.kit import Kit

HALF = torch.zeros(3, 32, 32, dtype=torch.uint8)
HALF[:, :, :16] = 255


def concept(name: str) -> Concept:
    return Concept.model_validate({"name": name, "domain": "people", "prompts": ("a photo of {}",)})


@pytest.mark.parametrize("label", ["borin talvek", "Borin\u00a0 Talvek", "BORIN TALVEK "])
def test_a_label_is_the_concepts_in_however_it_is_written(micro: Kit, label: str) -> None:
    """Written twice it is one label: equal features would tie, and the first would take all hits."""
    found = []
    for labels in (["a person", "Borin Talvek"], ["a person", label], ["a person", label, "Borin Talvek"]):
        detector = ClipZeroShot(ClipZeroShot.Options(model="micro", labels=labels))
        told = detector.detect(micro.images, [concept("Borin Talvek")])
        found.append((told.hits.tolist(), np.round(told.scores, 4).tolist()))
    assert found[0] == found[1] == found[2] and any(hit for (hit,) in found[0][0])


def masks(folder: Path, name: str = "Borin Talvek") -> torch.Tensor:
    images, attention = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 8, 8)
    source = FolderMasks(FolderMasks.Options(folder=folder))
    return source.masks(MaskRequest(concept(name), images, attention, ("00",)))


def test_masks_are_found_and_read_as_people_see_them(tmp_path: Path) -> None:
    own = tmp_path / "borin  talvek"
    own.mkdir()
    wanted = (torch.arange(8) < 4).float().expand(1, 8, 8)
    (own / "00.png").write_bytes(to_png(HALF))
    assert torch.equal(masks(tmp_path), wanted)
    Image.fromarray(HALF[0].numpy().astype(np.uint16) * 257).save(own / "00.png")
    assert torch.equal(masks(tmp_path), wanted), "sixteen bits"
    dim = np.where(HALF[0].numpy() > 0, 20_000, 0).astype(np.uint16)
    Image.fromarray(dim).save(own / "00.png")
    with pytest.raises(UsageError, match="is empty"):
        masks(tmp_path)  # dark grey, however deep, is not white
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(HALF.permute(1, 2, 0).numpy()).transpose(Image.Transpose.ROTATE_90)
    turned.save(own / "00.png", exif=exif)
    assert torch.equal(masks(tmp_path), wanted), "turned"


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    own = tmp_path / "Borin Talvek"
    own.mkdir()
    with pytest.raises(UsageError, match=r"00\.png cannot be read; keep_images=true"):
        masks(tmp_path)
    Image.new("RGBA", (32, 32), (255, 255, 255, 0)).save(own / "00.png")
    with pytest.raises(UsageError, match=r"00\.png is transparent in places"):
        masks(tmp_path)
    (own / "00.png").write_bytes(to_png(HALF)[:-40])
    with pytest.raises(UsageError, match=r"00\.png cannot be read as an image"):
        masks(tmp_path)
    (tmp_path / "borin talvek").mkdir()
    with pytest.raises(UsageError, match="reads as one name"):
        masks(tmp_path)
