"""What MACE can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from auditor.plugin.contracts import OptionsModel
from auditor.policy.concepts.sets import ConceptNames


class MaskUse(OptionsModel):
    """A mask source and its options."""

    use: str = "attention"
    """The mask source."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""


class MaceOptions(OptionsModel):
    """Defaults are the paper's for one celebrity on Stable Diffusion 1.4, where it gives one."""

    # what is preserved, and how much it weighs
    lambda1: float = Field(default=1e-4, ge=0)
    """Weight of the prior in refinement (Eq. 2), for a Gram matrix of as many rows as the reference's."""
    lambda2: float = Field(default=1e-4, ge=0)
    """Weight of the prior in fusion (Eq. 7), scaled likewise."""
    lambda_identity: float = Field(default=0.0, ge=0)
    """Weight of the squared change of the weights themselves, in both closed forms (in the reference's
    code, not in its paper)."""
    compat: Literal["paper", "reference"] = "paper"
    """``reference``: the square of lambda1 in refinement, as the reference's code has it; its published
    settings were tuned with that."""
    preserve: ConceptNames = ()
    """Concepts whose prompts make the prior, or a named set; the retained ones of the policy are always
    among them."""
    captions: Path | None = None
    """A text file with one caption a line, COCO's for instance, that makes the prior instead."""
    domain: ConceptNames = ()
    """Concepts whose prompts make the second prior, of the erased concepts' domain; retained ones of that
    domain are among them."""
    domain_weight: float = Field(default=0.0, ge=0)
    """Weight of a row of the second prior, as a multiple of a row of the first (Eq. 19); 0: there is none."""
    cache: Path | None = None
    """Folder where the prior's Gram matrix is kept for the next erasure from the same base."""

    # training images
    images: int = Field(default=8, ge=1)
    """Images of each concept that the base draws for its LoRA."""
    masks: MaskUse = MaskUse()
    """Where in its images the concept is."""
    size: int = Field(default=512, ge=8)
    """Of the images, in pixels a side."""
    sampling_steps: int = Field(default=30, ge=1)
    """Denoising steps of each image."""
    sampling_guidance: float = Field(default=7.5, ge=1)
    """Classifier-free guidance of each image."""
    keep_images: bool = False
    """Keep the images and their masks as PNG in the result's ``erasure/images``, to look at or to draw
    masks for."""

    # LoRA
    lora: bool = True
    """False: refinement only."""
    steps: int = Field(default=50, ge=1)
    """Training steps of each LoRA."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of AdamW."""
    rank: int = Field(default=1, ge=1)
    """Of each LoRA."""
    batch: int = Field(default=1, ge=1)
    """Images a step."""
    importance_sampling: bool = True
    """Draw timesteps where the concept takes shape (section 4.2) instead of evenly."""
    mark: Literal["phrase", "end", "padding"] = "padding"
    """Tokens whose attention is taken away: the phrase's (the paper); with the end token; with all padding
    too (the reference's code)."""
    loss: Literal["squared", "norm"] = "squared"
    """``squared``: Eq. 3; ``norm``: its root in each layer, as in the reference's code."""
    memory_gib: float | None = Field(default=None, gt=0)
    """What the activations of a training step may take; as many concepts are trained in one pass as fit,
    at least one. Default: 8, and on a GPU half of what is free."""

    # fusion
    fusion: Literal["closed-form", "sum"] = "closed-form"
    """``sum``: the LoRAs are simply added, as a comparison."""

    def prior_weights(self) -> dict[str, float]:
        """What one row of the prior weighs beside one row of a concept's prompts, in refinement and in
        fusion."""
        first = self.lambda1**2 if self.compat == "reference" else self.lambda1
        return {"refinement": first, "fusion": self.lambda2}

    def memory(self, free: int | None) -> float:
        """The same in bytes, where ``free`` bytes of a GPU are; None on a CPU."""
        if self.memory_gib is not None:
            return self.memory_gib * 2**30
        return 8.0 * 2**30 if free is None else free / 2
