"""What is refused of a checkpoint by more than an allow-list: other families by their names, latents without
a scale, words and noise schedules that nothing can be drawn with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from auditor.errors import RefusedError
from auditor.families.clip.vocabulary import Vocabulary
from auditor.families.refusing import refusing

_TRANSFORMER = re.compile(
    r"(model\.diffusion_model\.|transformer\.)?(single_)?(transformer|joint|double)_blocks\."
)


def refuse_by_name(source: str, index: Mapping[str, Any]) -> None:
    """Refuse a ``model_index.json`` of another family."""
    pipeline = str(index.get("_class_name", ""))
    for word, family in (
        ("XL", "Stable Diffusion XL"),
        ("Inpaint", "an inpainting model"),
        ("Flux", "Flux"),
        ("StableDiffusion3", "SD 3"),
    ):
        if word in pipeline:
            raise RefusedError(
                f"{source} is {family} ({pipeline[:60]}); only Stable Diffusion 1.x and 2.x can be audited "
                "so far."
            )
    if "transformer" in index and "unet" not in index:
        raise RefusedError(
            f"{source} is a diffusion transformer; only Stable Diffusion 1.x and 2.x can be audited so far."
        )


def refuse_unet(source: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse by name what cannot be audited yet: the UNets of other families."""
    first = shapes.get("conv_in.weight") or shapes.get("model.diffusion_model.input_blocks.0.0.weight")
    if any(name.startswith("add_embedding") or ".label_emb." in name for name in shapes):
        raise RefusedError(
            f"{source} is Stable Diffusion XL; only Stable Diffusion 1.x and 2.x can be audited so far."
        )
    if first is None and any(_TRANSFORMER.match(name) for name in shapes):
        raise RefusedError(
            f"{source} is a diffusion transformer; only Stable Diffusion 1.x and 2.x can be audited so far."
        )
    if first is not None and len(first) == 4 and first[1] == 9:
        raise RefusedError(
            f"{source} is an inpainting model (9 input channels); only text-to-image models can be audited."
        )
    if first is not None and len(first) == 4 and first[1] != 4:
        raise RefusedError(
            f"{source} takes {first[1]} input channels; only text-to-image models of 4 can be audited."
        )


def refuse_scale(source: str, config: Mapping[str, Any]) -> None:
    """Refuse an autoencoder whose latents have no scale."""
    scale = config.get("scaling_factor", 0.18215)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0:
        raise RefusedError(
            f"{source}: vae/config.json has scaling_factor = {str(scale)[:20]}; a number above 0 is right."
        )


def refuse_what_cannot_draw(
    source: str, vocabulary: Vocabulary, text_encoder: Mapping[str, Any], schedule: Mapping[str, Any]
) -> None:
    """Encode one prompt's words and step through the noise schedule, as drawing will;
    :class:`RefusedError` where that does not work."""
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    with refusing(f"{source} has a tokenizer that does not read"):
        ids = vocabulary.tokenizer()("a photo").input_ids
    most, positions = max(vocabulary.tokens.values()), text_encoder.get("max_position_embeddings", 77)
    if most >= text_encoder.get("vocab_size", 49408) or len(ids) > positions:
        raise RefusedError(
            f"{source}: the tokenizer gives ids up to {most}, which the text encoder has no place for."
        )
    with refusing(f"{source} has a noise schedule that cannot be stepped through"):
        latents = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
        for kind in (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
            scheduler: Any = kind.from_config(dict(schedule))
            scheduler.set_timesteps(4)
            found = latents * scheduler.init_noise_sigma
            for timestep in scheduler.timesteps:
                found = scheduler.step(
                    scheduler.scale_model_input(found, timestep), timestep, found, return_dict=False
                )[0]
            if not bool(found.isfinite().all()):
                raise RefusedError(f"{source} has a noise schedule under which nothing finite is drawn.")
        noised = DDPMScheduler.from_config(dict(schedule)).add_noise(latents, latents, torch.tensor([1]))
        if not bool(noised.isfinite().all()):
            raise RefusedError(f"{source} has a noise schedule under which nothing finite is trained on.")
