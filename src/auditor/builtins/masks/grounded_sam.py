"""Masks from a detector that is told in words what to look for, and a segmenter that outlines what it
found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from auditor.errors import UsageError
from auditor.plugin.contracts import MaskRequest, MaskSource, OptionsModel

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from auditor.policy import Concept


def _super_categories() -> dict[str, tuple[str, ...]]:
    return {"people": ("person",)}


class GroundedSamOptions(OptionsModel):
    """Which networks, and what they look for."""

    detector: str = "IDEA-Research/grounding-dino-tiny"
    """Grounding DINO: a name on the Hub, or a folder."""
    detector_revision: str | None = None
    """Its commit on the Hub."""
    segmenter: str = "facebook/sam-vit-base"
    """SAM: a name on the Hub, or a folder."""
    segmenter_revision: str | None = None
    """Its commit on the Hub."""
    labels: dict[str, tuple[str, ...]] = Field(default_factory=_super_categories)
    """What to look for, by the concept's domain: a super-category finds more than a name. Other domains:
    the concept and its synonyms."""
    box_threshold: float = Field(default=0.3, gt=0, lt=1)
    """Least score of a box."""
    text_threshold: float = Field(default=0.25, gt=0, lt=1)
    """Least score of a label's words."""


class GroundedSam(MaskSource):
    """Every box that Grounding DINO finds for the labels, outlined by SAM; an image's mask is all of them
    together."""

    name = "grounded-sam"
    summary = "what Grounding DINO finds by its name and SAM outlines"
    source = "Liu et al. 2023, arXiv:2303.05499; Kirillov et al. 2023, arXiv:2304.02643"
    Options: ClassVar[type[OptionsModel]] = GroundedSamOptions

    def files(self) -> tuple[Path, ...]:
        """Networks that lie in folders."""
        return tuple(
            path for path in map(Path, (self.options.detector, self.options.segmenter)) if path.is_dir()
        )

    def labels_of(self, concept: Concept) -> list[str]:
        """What to look for."""
        options: GroundedSamOptions = self.options
        return list(options.labels.get(concept.domain, (concept.name, *concept.synonyms)))

    def check(self, concept: Concept, names: Sequence[str]) -> None:
        """A folder that is named must be there; names on the Hub are tried when the first image is drawn."""
        for name in (self.options.detector, self.options.segmenter):
            if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
                raise UsageError(
                    f"There is no folder {name}; give one with the network's safetensors weights, or its "
                    "name on the Hub."
                )

    def fingerprint(self, concept: Concept) -> str:
        """Of the labels, and of networks that lie in folders; those on the Hub are named by their
        revision."""
        from auditor._files.digest import sha256_json

        options: GroundedSamOptions = self.options
        networks = [
            _digest_of(options.detector, options.detector_revision),
            _digest_of(options.segmenter, options.segmenter_revision),
        ]
        return sha256_json([self.labels_of(concept), networks])

    def masks(self, request: MaskRequest) -> Tensor:
        """Outlines at the images' size, then at the latents' where they cover more than half of a pixel,
        or its largest share."""
        import torch
        from torch.nn import functional

        labels = self.labels_of(request.concept)
        height, width = request.attention.shape[1:]
        device = request.attention.device
        outlines = []
        for number, image in enumerate(request.images):
            pixels = image.permute(1, 2, 0).contiguous().numpy()
            boxes = self._boxes(pixels, labels, device)
            if not len(boxes):
                raise UsageError(
                    f"grounded-sam found no {' or '.join(labels)} in image {number} of "
                    f"'{request.concept.name}'; lower box_threshold, give other labels, or use the masks "
                    "'attention'."
                )
            outlines.append(self._outline(pixels, boxes, device))
        area = functional.adaptive_avg_pool2d(torch.stack(outlines).float()[:, None], (height, width))[:, 0]
        most = area.amax((1, 2), keepdim=True)
        return (
            ((area >= torch.minimum(most, torch.tensor(0.5))) & (area > 0))
            .float()
            .to(request.attention.device)
        )

    def _boxes(self, pixels: np.ndarray, labels: list[str], device: torch.device) -> Tensor:
        """Corners (N, 4) in pixels of what was found."""
        import torch

        options: GroundedSamOptions = self.options
        processor, model = self._detector
        inputs = processor(images=pixels, text=[labels], return_tensors="pt").to(device)
        with torch.no_grad():
            outputs = model.to(device)(**inputs)
        (found,) = processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, options.box_threshold, options.text_threshold, [pixels.shape[:2]]
        )
        boxes: Tensor = found["boxes"].cpu()
        return boxes

    def _outline(self, pixels: np.ndarray, boxes: Tensor, device: torch.device) -> Tensor:
        """The union (H, W), bool, of what SAM outlines in each box."""
        import torch

        processor, model = self._segmenter
        inputs = processor(pixels, input_boxes=[boxes.tolist()], return_tensors="pt").to(
            device, torch.float32
        )
        with torch.no_grad():
            outputs = model.to(device)(**inputs, multimask_output=False)
        (masks,) = processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        union: Tensor = masks.flatten(0, 1).any(0)
        return union

    @cached_property
    def _detector(self) -> tuple[Any, Any]:
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        return _load(
            AutoProcessor,
            GroundingDinoForObjectDetection,
            self.options.detector,
            self.options.detector_revision,
        )

    @cached_property
    def _segmenter(self) -> tuple[Any, Any]:
        from transformers import SamModel, SamProcessor

        return _load(SamProcessor, SamModel, self.options.segmenter, self.options.segmenter_revision)


def _digest_of(name: str, revision: str | None) -> str:
    from auditor._files.digest import sha256_file, sha256_json

    if not Path(name).is_dir():
        return f"{name}@{revision}"
    return sha256_json([[path.name, sha256_file(path)] for path in sorted(Path(name).glob("*.safetensors"))])


def _load(processor: Any, model: Any, name: str, revision: str | None) -> tuple[Any, Any]:
    """Both halves of a network, safetensors only, no code of its own."""
    from auditor._checkpoint.load import quiet

    try:
        with quiet():
            loaded = model.from_pretrained(
                name, revision=revision, use_safetensors=True, trust_remote_code=False
            ).eval()
            return processor.from_pretrained(name, revision=revision), loaded
    except (OSError, ValueError) as error:
        kind = "folder" if Path(name).exists() else "name on the Hub, or a folder"
        reason = str(error).splitlines()[0][:120]
        raise UsageError(
            f"{name} does not load ({reason}); give a {kind} with its safetensors weights."
        ) from error
