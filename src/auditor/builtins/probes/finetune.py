"""The paper's probes: ordinary fine-tuning on concepts that have nothing to do with the erased ones.

They differ only in which concepts they train on: random ones of the erased concepts' domain (section 3), of
another domain (section 5.2), or a tercile of CLIP similarity to the erased concepts (section 5.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from auditor.builtins.clip.options import ClipOptions
from auditor.errors import UsageError
from auditor.plugin.contracts import OptionsModel, ProbeSetting
from auditor.plugin.fine_tune import FineTune, FineTuneOptions


class InDomain(FineTune):
    """Random concepts of the erased concepts' own domain."""

    name = "in-domain"
    summary = "fine-tune on random concepts of the same domain"
    source = "Suriyakumar et al., section 3 and appendix C.1"

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self.sample(candidates, setting)


class OutOfDomain(FineTune):
    """Random concepts of another domain."""

    name = "out-of-domain"
    summary = "fine-tune on random concepts of another domain"
    source = "Suriyakumar et al., section 5.2"

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self.sample(candidates, setting)


class TercileOptions(FineTuneOptions, ClipOptions):
    """A tercile, 1 (least similar) to 3 (most similar)."""

    tercile: Literal[1, 2, 3]
    """Which third, from the least similar to the most."""
    split: Literal["interval", "count", "given"] = "interval"
    """``interval``: three equal intervals of similarity (the paper's Table 1); ``count``: three equal
    groups (its text); ``given``: the candidates are the tercile, as somebody has published it."""


class ClipTercile(FineTune):
    """Concepts of one tercile of similarity to the erased set.

    The paper names neither model nor modality. Ours: cosine of open_clip text features of the bare names,
    minimum over the erased set, as its appendix C.2 takes the minimum.
    """

    name = "clip-tercile"
    summary = "fine-tune on concepts of one tercile of CLIP similarity to the erased ones"
    source = "Suriyakumar et al., section 5.1 and appendix C.2"

    Options: ClassVar[type[OptionsModel]] = TercileOptions

    @property
    def title(self) -> str:
        """With the tercile's number."""
        return f"{self.name}-{self.options.tercile}"

    def files(self) -> tuple[Path, ...]:
        """The user's folder, and the files of the CLIP."""
        options: TercileOptions = self.options
        return (*super().files(), *options.clip_files())

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample of the tercile."""
        if self.options.split == "given":
            return self.sample(candidates, setting)
        from auditor.builtins.clip.model import load_clip

        clip = load_clip(self.options.model, self.options.pretrained)
        erased = clip.text_features([concept.name for concept in setting.policy.erase])
        similarity = (clip.text_features(candidates) @ erased.T).min(dim=1).values.tolist()
        bins = split_terciles(similarity, self.options.split)
        chosen = [
            name for name, tercile in zip(candidates, bins, strict=True) if tercile == self.options.tercile
        ]
        if len(chosen) < self.options.names:
            counts = ", ".join(f"tercile {number}: {bins.count(number)}" for number in (1, 2, 3))
            raise UsageError(
                f"The probe {self.title} needs {self.options.names} concepts in its tercile ({counts}; "
                f"split: {self.options.split}); lower 'names', add candidates or use split: count."
            )
        return self.sample(chosen, setting)


def split_terciles(similarity: list[float], split: str) -> list[int]:
    """The tercile, 1 to 3, of every value: by equal intervals between minimum and maximum, or by equal
    counts."""
    if split == "count":
        order = sorted(range(len(similarity)), key=similarity.__getitem__)
        tercile = {index: 1 + 3 * rank // len(order) for rank, index in enumerate(order)}
        return [tercile[index] for index in range(len(similarity))]
    low, width = min(similarity), (max(similarity) - min(similarity)) / 3 or 1.0
    return [min(3, 1 + int((value - low) / width)) for value in similarity]
