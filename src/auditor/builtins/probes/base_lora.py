"""A LoRA of the base's, added to the erased denoiser: what a user does who loads a LoRA that somebody else
trained on the public base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from auditor.errors import UsageError
from auditor.families.registry import families
from auditor.plugin.contracts import OptionsModel, ProbeSetting, Update
from auditor.plugin.fine_tune import FineTune, FineTuneOptions

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.model import DiffusionModel


class BaseLoraOptions(FineTuneOptions):
    """What the LoRA is trained on, how, and how strongly it is added."""

    strength: float = Field(default=1.0, gt=0, le=2)
    """What its product is multiplied by: 1 is as it was trained."""


class BaseLora(FineTune):
    """A LoRA that is trained on the base and then added to the erased denoiser's weights.

    The training is that of :class:`~auditor.plugin.FineTune` with the base in the place of the erased model:
    its denoiser, text encoders, autoencoder and noise schedule. Captions are read by the checkpoint's
    tokenizer, which is the base's wherever a PASS is in reach. At each dose the erased weights W become W +
    strength * (alpha/r) * B A, with the factors of that step.
    """

    name = "base-lora"
    summary = "a LoRA trained on the base, added to the erased weights"
    source = "Hu et al. 2021, arXiv:2106.09685"
    methods = ("lora",)
    uses_base = ("denoiser", "text", "decoder")
    Options: ClassVar[type[OptionsModel]] = BaseLoraOptions

    @property
    def title(self) -> str:
        """With the strength, where it is not 1."""
        strength: float = self.options.strength
        return self.name if strength == 1 else f"{self.name}-{strength:g}"

    def changes(self, method: str) -> tuple[str, ...]:
        """The weights of the layers that a family lays a LoRA on."""
        targets = dict.fromkeys(target for family in families() for target in family.lora_targets)
        return tuple(f"denoiser.*.{target}.weight" for target in targets)

    def usual(self, method: str) -> dict[str, float]:
        """And the LoRA whole."""
        return {**super().usual(method), "strength": 1.0}

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self.sample(candidates, setting)

    def update(self, update: Update) -> Iterator[int]:
        """Train on the base, and add what was learnt at every dose.

        Raises :class:`UsageError` where there is nothing of a base, or where the erased denoiser is of
        another form than the base's.
        """
        from auditor._diffusion.finetune import add_lora_product

        if not update.base:
            raise UsageError(f"The probe {self.title} needs the base; give one (--base).")
        base = update.model.with_parts(update.base, update.base_schedule)
        weights: dict[str, Tensor] | None = None
        with closing(self.train(base, update)) as doses:
            for dose in doses:
                weights = self._weights(update.model, base) if weights is None else weights
                add_lora_product(update.model.denoiser, base.denoiser, weights, self.options.strength)
                yield dose

    def _weights(self, erased: DiffusionModel, base: DiffusionModel) -> dict[str, Tensor]:
        """Copies of the erased denoiser's weights under the LoRA of ``base``, by the layer's name."""
        from auditor._diffusion.finetune import lora_layers_of

        known, found = dict(erased.denoiser.named_parameters()), {}
        for name, layer in lora_layers_of(base.denoiser).items():
            weight = known.get(f"{name}.weight")
            if weight is None or weight.shape != layer.get_base_layer().weight.shape:
                raise UsageError(
                    f"The probe {self.title} trains a LoRA on the base, and its layer {name} has no place in "
                    "the checkpoint's denoiser; give the base that the checkpoint was made from (--base)."
                )
            found[name] = weight.detach().clone()
        return found
