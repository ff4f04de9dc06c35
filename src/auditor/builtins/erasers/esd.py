"""ESD: erased stable diffusion (Gandikota, Materzynska, Fiotto-Kaufman & Bau 2023, arXiv:2303.07345).

The edited model's conditional prediction is trained towards the frozen base's, steered away from the concept
(its Eq. 8): target = unconditional - eta * (conditional - unconditional). Noisy latents come from the edited
model itself, sampled with guidance; we redraw a pool of trajectories every ``refresh`` steps instead of one
trajectory a step, which costs less and lets a step use a batch. On a GPU they are drawn in the precision that
images are drawn in there.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from auditor.plugin.contracts import Eraser, Erasure, OptionsModel
from auditor.policy.concepts.sets import PromptTemplates

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor._diffusion.model import DiffusionModel
    from auditor.families.family import Condition
    from auditor.policy import Concept


class EsdOptions(OptionsModel):
    """Defaults are the paper's for Stable Diffusion 1.4, but for the trajectories: it draws one for every
    training step, we a quarter of that."""

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
    refresh: int = Field(default=32, ge=1)
    """Training steps between two drawings of the pool of noisy latents."""
    pool: int = Field(default=8, ge=1)
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

        from auditor._diffusion.denoising import Passes, sent
        from auditor._diffusion.reproducible import reproducible

        options: EsdOptions = self.options
        model = erasure.model
        frozen = copy.deepcopy(model.denoiser).requires_grad_(False).eval()
        parameters = trainable(model, options.variant)
        optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
        prompts = [
            template.format(concept.name) for concept in erasure.concepts for template in options.prompts
        ]
        chooser = random.Random(erasure.seed)  # noqa: S311 - reproducible on purpose
        passes, means = Passes(options.batch), []
        with reproducible(model.device):
            for step in range(options.steps):
                generator = torch.Generator().manual_seed(erasure.seed + step)
                if step % options.refresh == 0:
                    chosen = [chooser.choice(prompts) for _ in range(options.pool)]
                    timesteps, pool = self._trajectories(erasure, chosen, step)
                    conditions = model.condition(chosen)
                rows = torch.randint(len(chosen), (options.batch,), generator=generator)
                moments = torch.randint(len(timesteps), (options.batch,), generator=generator)
                rows, moments = sent(rows, model.device), sent(moments, model.device)
                latents, times, given = pool[moments, rows], timesteps[moments], conditions[rows]
                means.append(
                    passes.backward(parameters, partial(self._loss, model, frozen, latents, times, given))
                )
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                erasure.on_step("train", step + 1, options.steps)
        model.denoiser.requires_grad_(False)
        tenth, losses = max(1, options.steps // 10), torch.stack(means).tolist()
        record = {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}
        return record | ({"rows_at_once": passes.rows} if passes.rows < options.batch else {})

    def _loss(
        self,
        model: DiffusionModel,
        frozen: nn.Module,
        latents: Tensor,
        times: Tensor,
        given: Condition,
        part: slice,
    ) -> Tensor:
        """The mean squared error of a part of a step's rows towards what the ``frozen`` base, steered away,
        predicts."""
        import torch
        from torch.nn import functional

        from auditor.families.family import Condition

        own, at, told = latents[part], times[part], given[part]
        with torch.no_grad():
            both = Condition.joined(model.condition([""]).repeated(len(own)), told)
            pair = model.family.predict(frozen, own.repeat(2, 1, 1, 1), at.repeat(2), both)
            plain, steered = pair.chunk(2)
            goal = plain - self.options.eta * (steered - plain)
        return functional.mse_loss(model.family.predict(model.denoiser, own, at, told), goal)

    def _trajectories(self, erasure: Erasure, prompts: list[str], step: int) -> tuple[Tensor, Tensor]:
        """Timesteps (T,) and the latents that go into each of them, (T, N, C, H, W), drawn by the model as
        it is now, as it draws on its device; fewer at once where memory runs out."""
        import torch

        from auditor._checkpoint.load import in_precision
        from auditor._diffusion.memory import in_parts
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
        model = in_precision(erasure.model, sampler.dtype)
        times: list[int] = []

        def drawn(rows: slice) -> Tensor:
            times.clear()
            latents = [first_noise(model, seeds[rows], options.size).to(model.device)]

            def keep(timestep: int, after: Tensor) -> None:
                times.append(timestep)
                latents.append(after)

            draw(model, prompts[rows], seeds[rows], sampler, on_step=keep, decode=False)
            return torch.stack(latents[:-1])

        pool = torch.cat(in_parts(drawn, len(prompts), len(prompts)), dim=1)
        return torch.tensor(times, device=model.device), pool


def trainable(model: DiffusionModel, variant: str) -> list[nn.Parameter]:
    """Switch on the gradients of the weights that ``variant`` changes, all others off, and return them."""
    chosen = []
    for name, parameter in model.denoiser.named_parameters():
        cross = model.family.reads_text(name)
        parameter.requires_grad_(variant == "full" or (variant == "x") == cross)
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen
