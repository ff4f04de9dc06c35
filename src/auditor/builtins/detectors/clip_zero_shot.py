"""Zero-shot classification with CLIP: the paper's object detector, here for any concept that CLIP can
name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from auditor.builtins.clip.options import ClipOptions
from auditor.plugin.contracts import Detection, Detector, OptionsModel
from auditor.policy import as_read
from auditor.policy.concepts.sets import ConceptNames, PromptTemplates

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from auditor.policy import Concept


class ClipZeroShot(Detector):
    """A concept is detected where CLIP's first choice among ``labels`` is its name or a synonym of it, in
    however it is written."""

    name = "clip-zero-shot"
    summary = "CLIP zero-shot top-1 among a list of labels (open_clip)"
    source = "Radford et al. 2021; used for objects by Suriyakumar et al., section 3"

    class Options(ClipOptions):
        """Which CLIP, and the labels it chooses among."""

        labels: ConceptNames
        """What it chooses among, or a named set; every concept that is asked for is added."""
        templates: PromptTemplates = ("a photo of {}",)
        """What labels are put into, or a named set; their features are averaged."""

    def __init__(self, options: OptionsModel) -> None:
        super().__init__(options)
        self._features: dict[tuple[str, ...], Tensor] = {}

    def files(self) -> tuple[Path, ...]:
        """Of the CLIP: its configuration and tokenizer decide too."""
        options: ClipZeroShot.Options = self.options
        return options.clip_files()

    def fingerprint(self) -> str:
        """sha256 of the CLIP model's tensors."""
        from auditor.builtins.clip.model import load_clip

        return load_clip(self.options.model, self.options.pretrained).digest[:16]

    def detect(self, images: Tensor, concepts: Sequence[Concept]) -> Detection:
        """Top-1 hits, and scores: the softmax probability that the concept's labels share."""
        from auditor.builtins.clip.model import load_clip

        clip = load_clip(self.options.model, self.options.pretrained)
        named = [(concept.name, *concept.synonyms) for concept in concepts]
        labels = self._labels(named)
        if labels not in self._features:
            self._features[labels] = clip.label_features(labels, self.options.templates)
        shares = (clip.scale * clip.image_features(images) @ self._features[labels].T).softmax(dim=1)
        best = shares.argmax(dim=1)
        read = [{as_read(name) for name in names} for names in named]
        belongs = shares.new_tensor([[as_read(label) in names for label in labels] for names in read])
        hits = belongs[:, best].T.bool()
        return Detection(
            hits.numpy(),
            (shares @ belongs.T).clamp(0, 1).numpy(),
            tuple(labels[index] for index in best.tolist()),
        )

    def _labels(self, named: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """The policy's labels, and every name that is asked for and not among them."""
        # equal features would tie, so what is read alike is one label, in its first writing
        labels: dict[str, str] = {}
        for label in (*self.options.labels, *(name for names in named for name in names)):
            labels.setdefault(as_read(label), label)
        return tuple(labels.values())
