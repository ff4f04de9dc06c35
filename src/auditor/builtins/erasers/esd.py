"""ESD: erased stable diffusion (Gandikota, Materzynska, Fiotto-Kaufman & Bau 2023, arXiv:2303.07345).

The edited model's conditional prediction is trained towards the frozen base's, steered away from the concept
(its Eq. 8): target = unconditional - eta * (conditional - unconditional). Noisy latents come from the edited
model itself, sampled with guidance; we redraw a pool of trajectories every ``refresh`` steps instead of one
trajectory a step, which costs less and lets a step use a batch.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from auditor.plugin.contracts import Eraser, Erasure, OptionsModel
from auditor.policy.concepts.sets import PromptTemplates

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept


class EsdOptions(OptionsModel):
    """Defaults are the paper's for Stable Diffusion 1.4."""

    variant: Literal["x", "u", "full"] = "u"
    """Weights that change: cross-attention (x), everything else (u), or all of them (full)."""
    eta: float = Field(default=1.0, gt=0)
    """How far the target is steered away from the concept (Eq. 8)."""
    steps: int = Field(default=1000, ge=1)
    """Training steps."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Of AdamW."""
    batch: int = Field(default=1, ge=1)
    """Noisy latents a step."""
    prompts: PromptTemplates = ("{}",)
    """Templates that the concept's name is put into."""
    sampling_steps: int = Field(default=50, ge=2)
    """Denoising steps of a trajectory."""
    sampling_guidance: float = Field(default=3.0, ge=1)
    """Classifier-free guidance of a trajectory."""
    refresh: int = Field(default=1, ge=1)
    """Training steps between two drawings of the pool of noisy latents."""
    pool: int = Field(default=1, ge=1)
    """Trajectories in the pool."""
    size: int = Field(default=512, ge=8)
    """Of the images that the latents stand for, in pixels a side."""


class Esd(Eraser):
    """Trains the model to steer itself away from the erased concepts."""

    name = "esd"
    summary = "negative guidance trained into the weights (variants x, u, full)"
    source = "Gandikota et al. 2023, arXiv:2303.07345"

    Options: ClassVar[type[OptionsModel]] = EsdOptions

    def mapped_to(self, concept: Concept) -> str:
        """Nothing: the model steers away from ``concept``."""
        return ""

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Train in place; records the mean loss of the first and the last tenth of the steps."""
        import copy

        import torch
        from torch.nn import functional

        from auditor.families.family import Condition

        options: EsdOptions = self.options
        model, family = erasure.model, erasure.model.family
        frozen = copy.deepcopy(model.denoiser).requires_grad_(False).eval()
        parameters = trainable(model, options.variant)
        optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
        prompts = [
            template.format(concept.name) for concept in erasure.concepts for template in options.prompts
        ]
        chooser = random.Random(erasure.seed)  # noqa: S311 - reproducible on purpose
        empty = model.condition([""])
        losses = []
        for step in range(options.steps):
            generator = torch.Generator().manual_seed(erasure.seed + step)
            if step % options.refresh == 0:
                chosen = [chooser.choice(prompts) for _ in range(options.pool)]
                timesteps, pool = self._trajectories(erasure, chosen, step)
                conditions = model.condition(chosen)
            rows = torch.randint(len(chosen), (options.batch,), generator=generator)
            moments = torch.randint(len(timesteps), (options.batch,), generator=generator)
            latents, times, given = pool[moments, rows], timesteps[moments], conditions[rows]
            with torch.no_grad():
                both = Condition.joined(empty.repeated(options.batch), given)
                pair = family.predict(frozen, latents.repeat(2, 1, 1, 1), times.repeat(2), both)
                plain, steered = pair.chunk(2)
                goal = plain - options.eta * (steered - plain)
            loss = functional.mse_loss(family.predict(model.denoiser, latents, times, given), goal)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            erasure.on_step("train", step + 1, options.steps)
        model.denoiser.requires_grad_(False)
        tenth = max(1, options.steps // 10)
        return {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}

    def _trajectories(self, erasure: Erasure, prompts: list[str], step: int) -> tuple[Tensor, Tensor]:
        """Timesteps (T,) and the latents that go into each of them, (T, N, C, H, W), drawn by the model as
        it is now."""
        import torch

        from auditor._diffusion.sampling import draw, first_noise
        from auditor._diffusion.seeds import image_seed
        from auditor.policy import Sampler

        options: EsdOptions = self.options
        sampler = Sampler(
            scheduler="ddim",
            steps=options.sampling_steps,
            guidance=options.sampling_guidance,
            size=options.size,
        )
        seeds = [
            image_seed(str(erasure.seed), "esd", prompt, step * len(prompts) + row)
            for row, prompt in enumerate(prompts)
        ]
        times: list[int] = []
        latents = [first_noise(erasure.model, seeds, options.size).to(erasure.model.device)]

        def keep(timestep: int, after: Tensor) -> None:
            times.append(timestep)
            latents.append(after)

        draw(erasure.model, prompts, seeds, sampler, on_step=keep, decode=False)
        return torch.tensor(times, device=erasure.model.device), torch.stack(latents[:-1])


def trainable(model: DiffusionModel, variant: str) -> list[nn.Parameter]:
    """Switch on the gradients of the weights that ``variant`` changes, all others off, and return them."""
    chosen = []
    for name, parameter in model.denoiser.named_parameters():
        cross = model.family.reads_text(name)
        parameter.requires_grad_(variant == "full" or (variant == "x") == cross)
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen
