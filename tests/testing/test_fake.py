"""The checkpoint without trained weights: all that a plugin touches is there and behaves as a real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import auditor.testing
from auditor.errors import PluginError
from auditor.plugin import Probe, Update, make_plugin
from auditor.testing import Kit, digest_of_arm, fake_checkpoint


def test_it_draws_images_of_the_policys_size(fake: Kit) -> None:
    images = fake.draw(["a photo of Borin Talvek"] * 3)
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8
    assert not torch.equal(images[0], images[1])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*.safetensors"))
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    one, two, other = (fake_checkpoint(tmp_path / str(n), seed) for n, seed in enumerate((0, 0, 1)))
    assert digests(one) == digests(two) != digests(other)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_probe_trains_on_it_and_changes_what_it_says(fake: Kit, method: str) -> None:
    probe: Probe = make_plugin("probes", "in-domain", {"candidates": "micro-people", "batch": 2})
    model = fake.model()
    images = torch.zeros((4, 3, 32, 32), dtype=torch.uint8)
    seen = {digest_of_arm(model)}
    for _ in probe.update(Update(model, images, ("a photo",) * 4, method, (1, 2), 7)):
        assert fake.original.change(model, probe.changes(method), "in-domain").tensors
        seen.add(digest_of_arm(model))
    assert len(seen) == 3


def test_what_a_plugin_must_not_touch_is_seen(fake: Kit) -> None:
    model = fake.model()
    with torch.no_grad():
        next(model.vae.parameters()).add_(1)
    with pytest.raises(PluginError, match="vae"):
        fake.original.change(model, ("unet.*",), "mine")


def test_every_name_is_there() -> None:
    assert all(hasattr(auditor.testing, name) for name in auditor.testing.__all__)
