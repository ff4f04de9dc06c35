"""What one MACE erasure is asked for, and what of it an earlier call or another erasure left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from auditor._files.digest import sha256_json
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.plugin import _door as door
from auditor.plugin.contracts import Erasure, MaskSource
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.builtins.erasers.mace.kept import ConceptFolder
    from auditor.builtins.erasers.mace.lora import ConceptImages, LoraSetting
    from auditor.policy import Concept, Sampler

IMAGE_OPTIONS = ("images", "masks", "size", "sampling_steps", "sampling_guidance")
LORA_OPTIONS = ("steps", "learning_rate", "rank", "batch", "importance_sampling", "mark", "loss")


@dataclass(frozen=True)
class Job:
    """One erasure: its options, what masks its images, and what is erased from which model."""

    options: MaceOptions
    source: MaskSource
    erasure: Erasure

    def sampler(self) -> Sampler:
        """How the base draws the training images."""
        from auditor.policy import Sampler

        options = self.options
        return Sampler(
            scheduler="dpm-solver++",
            steps=options.sampling_steps,
            guidance=options.sampling_guidance,
            size=options.size,
        )

    def made_from(self, concept: Concept, names: tuple[str, ...]) -> dict[str, Any]:
        """What decides a concept's images, and with more options its LoRA; a file that was made from
        anything else is made again."""
        return {
            "format": 1,
            "base": self.erasure.model.digest,
            "concept": [concept.name, concept.domain, *concept.synonyms],
            "seed": self.erasure.seed,
            "options": self.options.model_dump(mode="json", include=set(names)),
            "templates": sha256_json(ERASURE_TEMPLATES),
            "masks": [self.source.origin, door.call(self.source, self.source.fingerprint, concept)],
        }

    def belonging(self, prior: dict[str, Any]) -> str:
        """A digest of all that the refined weights come from, which a LoRA belongs to."""
        pairs = [[concept.name, concept.mapping] for concept in self.erasure.concepts]
        decided = {key: prior[key] for key in ("captions", "second_captions", "weights")}
        return sha256_json(
            [
                self.erasure.model.digest,
                pairs,
                decided,
                self.options.lambda_identity,
                sha256_json(ERASURE_TEMPLATES),
            ]
        )

    def images_of(self, concept: Concept, place: ConceptFolder) -> ConceptImages | None:
        """A concept's training images and masks, where this job's are kept."""
        from auditor.builtins.erasers.mace.lora import ConceptImages

        found = place.load("images")
        if found is None or found[1] != self.made_from(concept, IMAGE_OPTIONS):
            return None
        return ConceptImages(found[0]["latents"], found[0]["masks"])

    def setting(self) -> LoraSetting:
        """How each LoRA is trained."""
        from auditor.builtins.erasers.mace.lora import LoraSetting

        options = self.options
        squared = options.loss == "squared"
        return LoraSetting(
            options.steps,
            options.learning_rate,
            options.rank,
            options.batch,
            options.importance_sampling,
            squared,
        )

    def earlier(
        self, concept: Concept, belongs: str | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A LoRA of this concept and these settings: this erasure's own, of the same refined weights, or one
        that is to be reused.

        Without ``belongs`` of this erasure's own any: nobody knows yet.
        """
        from auditor.builtins.erasers.mace.kept import ConceptFolder

        wanted = self.made_from(concept, IMAGE_OPTIONS + LORA_OPTIONS)
        for folder in (self.erasure.folder, self.erasure.reuse):
            found = ConceptFolder(folder, concept.name).load("loras") if folder is not None else None
            if found is None or found[1]["from"] != wanted:
                continue
            if (
                folder is self.erasure.reuse
                or belongs is None
                or belongs in (found[1]["refined"], found[1].get("reused_for"))
            ):
                return found
        return None
