"""One LoRA a concept, trained to take the attention that the concept's tokens draw inside its mask (Lu et al. 2024, Eq. 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional

from auditor.diffusion.model import TextToImage
from auditor.diffusion.sampling import draw
from auditor.erasers.closed_form import LowRank
from auditor.policy import Sampler

ADAPTER = "mace"


class RecordedCrossAttention:
    """An attention processor that computes probabilities explicitly and hands each layer's to ``maps``."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Attention as diffusers' default processor, for cross-attention without masks; stores (batch, heads, pixels, tokens)."""
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        )
        shares = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(dim=-1)
        self.maps.append(shares)
        mixed = (shares.to(value.dtype) @ value).transpose(1, 2).flatten(-2)
        out: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return out


@contextmanager
def recorded_attention(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """While open, every forward pass appends its cross-attention maps, layer by layer, to the list that is yielded."""
    maps: list[Tensor] = []
    before = unet.attn_processors
    unet.set_attn_processor({name: RecordedCrossAttention(maps) if ".attn2." in name else processor for name, processor in before.items()})
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


@dataclass(frozen=True)
class ConceptImages:
    """Training images of one concept: scaled latents (N, C, H, W), masks (N, H, W) in {0, 1}, and their prompt's states."""

    latents: Tensor
    masks: Tensor


Masks = Callable[[Tensor, Tensor], Tensor]
"""Images (uint8, (N, 3, H, W)) and attention (N, h, w) in, masks (N, h, w) out."""


def draw_masked(
    model: TextToImage, prompt: str, tokens: Sequence[int], seeds: Sequence[int], sampler: Sampler, masks: Masks
) -> ConceptImages:
    """Draw one image a seed, and its mask from the image or from the attention that ``tokens`` drew on the way.

    Each layer's map is averaged over heads and scaled to the latents' size; what ``masks`` is given is their sum over layers and steps.
    """
    _, height, width = model.latent_shape(sampler.size)
    total = torch.zeros(len(seeds), height, width, device=model.device)
    with recorded_attention(model.unet) as maps:

        def gather(timestep: int, latents: Tensor) -> None:
            for shares in maps:
                given = shares[len(seeds) :, :, :, list(tokens)].sum(-1).mean(1)
                side = math.isqrt(given.shape[1] * height // width)
                grid = given.view(len(seeds), 1, side, -1)
                total.add_(functional.interpolate(grid, size=(height, width), mode="bilinear")[:, 0])
            maps.clear()

        latents, _ = draw(model, [prompt] * len(seeds), seeds, sampler, on_step=gather, decode=False)
    return ConceptImages(latents, masks(model.decode(latents)[0], total))


def focal_timesteps(length: int, generator: torch.Generator, count: int) -> Tensor:
    """Timesteps by concept-focal importance sampling: sigma(0.05 (t - 200)) - sigma(0.05 (t - 400)) of 1,000, normalised."""
    times = torch.arange(length, dtype=torch.float64) * 1000 / length
    weights = torch.sigmoid(0.05 * (times - 200)) - torch.sigmoid(0.05 * (times - 400))
    return torch.multinomial(weights, count, replacement=True, generator=generator)


@dataclass(frozen=True)
class LoraSetting:
    """How a concept's LoRA is trained."""

    steps: int
    learning_rate: float
    rank: int
    batch: int
    importance_sampling: bool


def attention_loss(maps: Sequence[Tensor], masks: Tensor, marked: Tensor) -> Tensor:
    """Sum over layers of the squared attention of ``marked`` tokens (batch, tokens) inside ``masks`` (batch, H, W).

    Masks go to each layer's size by area and count where above one half; a mask that vanishes there counts where it is
    largest. Averaged over the batch; no gradient where nothing is masked.
    """
    loss = maps[0].new_zeros(())
    for shares in maps:
        pixels = shares.shape[2]
        side = math.isqrt(pixels * masks.shape[1] // masks.shape[2])
        area = functional.adaptive_avg_pool2d(masks[:, None], (side, pixels // side)).flatten(1)
        inside = (area >= torch.minimum(area.amax(1, keepdim=True), area.new_tensor(0.5))) & (area > 0)
        loss = loss + (shares * inside[:, None, :, None] * marked[:, None, None, :]).square().sum()
    return loss / len(masks)


def train_lora(
    model: TextToImage,
    images: ConceptImages,
    states: Tensor,
    marked: Tensor,
    setting: LoraSetting,
    seed: int,
    on_step: Callable[[int], None],
) -> tuple[dict[str, LowRank], list[float]]:
    """Train one concept's LoRA on keys and values of every cross-attention; the UNet is given back unchanged.

    ``states`` (prompts, tokens, width) and ``marked`` (prompts, tokens) belong to the concept's prompts. Returns the LoRA by
    projection name ("….attn2.to_k") and the losses.
    """
    unet, device = model.unet, model.device
    scheduler = DDPMScheduler.from_config(dict(model.scheduler_config))
    length = scheduler.config.num_train_timesteps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=setting.rank, lora_alpha=setting.rank, init_lora_weights="gaussian", target_modules=r".*\.attn2\.(to_k|to_v)")
        unet.add_adapter(config, adapter_name=ADAPTER)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=setting.learning_rate, weight_decay=0.01)
    losses = []
    with recorded_attention(unet) as maps:
        for step in range(setting.steps):
            generator = torch.Generator().manual_seed(seed + step)
            rows = torch.randint(len(images.latents), (setting.batch,), generator=generator).to(device)
            texts = torch.randint(len(states), (setting.batch,), generator=generator).to(device)
            if setting.importance_sampling:
                times = focal_timesteps(length, generator, setting.batch).to(device)
            else:
                times = torch.randint(length, (setting.batch,), generator=generator).to(device)
            noise = torch.randn((setting.batch, *images.latents.shape[1:]), generator=generator).to(device)
            maps.clear()
            unet(scheduler.add_noise(images.latents[rows], noise, times), times, states[texts], return_dict=False)
            loss = attention_loss(maps, images.masks[rows], marked[texts])
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            on_step(step + 1)
    trained = {name.removesuffix(f".lora_A.{ADAPTER}.weight"): value for name, value in unet.state_dict().items() if ".lora_A." in name}
    ups = {name.removesuffix(f".lora_B.{ADAPTER}.weight"): value for name, value in unet.state_dict().items() if ".lora_B." in name}
    loras = {name: LowRank(ups[name].detach().clone(), down.detach().clone()) for name, down in trained.items()}
    unet.requires_grad_(False)
    unet.unload_lora()
    return loras, losses
