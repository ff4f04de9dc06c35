"""Does a checkpoint hold the tensors that its configuration declares? Asked of a model without memory,
before any is allocated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor._checkpoint.names import is_buffer, is_unused, plain_name
from auditor._files.json_files import read_json
from auditor.errors import ENDINGS, AuditorError, RefusedError, said

if TYPE_CHECKING:
    from auditor._checkpoint.vocabulary import Vocabulary

Shapes = dict[str, tuple[int, ...]]


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever a hostile configuration makes the libraries raise becomes a :class:`RefusedError` of one
    sentence."""
    try:
        yield
    except (AuditorError, *ENDINGS):
        raise
    except BaseException as error:  # a library in Rust that panics raises no Exception
        reason = (said(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise RefusedError(f"{what}: {reason}") from error


def declared_shapes(component: str, config: dict[str, Any]) -> Shapes:
    """Names and shapes of the tensors of a component with this configuration. Whatever the libraries make
    of it may be raised."""
    import torch

    with torch.device("meta"):
        model = build(component, config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def build(component: str, config: dict[str, Any]) -> Any:
    """A component with this configuration and weights that mean nothing."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    if component == "text_encoder":
        return CLIPTextModel(CLIPTextConfig.from_dict(config | {"attn_implementation": "sdpa"}))
    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component].from_config(config)


def refuse_what_cannot_draw(
    source: str, vocabulary: Vocabulary, text_encoder: dict[str, Any], schedule: Mapping[str, Any]
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


def refuse_other_tensors(source: str, component: str, folder: Path, shapes: Shapes) -> None:
    """Compare what a folder's weights hold with what its configuration declares; :class:`RefusedError` at
    the first difference."""
    config = read_json(folder / component / "config.json")
    with refusing(f"{source} does not load as Stable Diffusion: {component}/config.json"):
        declared = declared_shapes(component, config)
    adapted = min((name for name in shapes if ".base_layer." in name or ".lora_" in name), default=None)
    if adapted is not None:
        raise RefusedError(
            f"{source}: {component} was saved with an adapter on ({adapted}), so its own weights are not "
            "where programs look for them; merge the adapter and save it again."
        )
    used = [name for name in shapes if not is_unused(component, name, config)]
    held = {plain_name(name): shapes[name] for name in used}
    if len(held) < len(used):
        raise RefusedError(f"{source}: {component} holds tensors twice, under old and new names.")
    wanted = {plain_name(name): shape for name, shape in declared.items() if not is_buffer(name)}
    for what, names in (
        ("missing", wanted.keys() - held.keys()),
        ("unexpected", held.keys() - wanted.keys()),
    ):
        if names:
            raise RefusedError(
                f"{source}: {component} has {len(names)} {what} tensors for its declared architecture, the "
                f"first {min(names)}."
            )
    for name, shape in wanted.items():
        if held[name] != shape:
            raise RefusedError(
                f"{source}: {component} has mismatched tensors: {name} is of shape {held[name]}, declared is "
                f"{shape}."
            )
