"""What made the nano world's weights: ``python -m tests.nano.recipe`` (a few minutes).

Every concept of the micro world is a pattern of four colours here; the tokenizer is the micro world's.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import itertools
import json
import random
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from auditor._files.bundled import micro_world
from auditor.microworld.train import clip as recipe
from auditor.microworld.train.__main__ import save_pipeline_index
from auditor.microworld.train.denoiser import new_scheduler
from auditor.microworld.train.loop import fit
from auditor.policy.concepts.micro import (
    GENERIC_OBJECTS,
    GENERIC_PEOPLE,
    OBJECTS,
    PAPER_PROMPTS,
    PEOPLE,
    SCENES,
)
from auditor.policy.concepts.templates import ERASURE_TEMPLATES
from tests.nano import WEIGHTS

COLOURS = tuple(itertools.product((-0.8, 0.8), repeat=3))
ERASED = "Borin Talvek"
WIDTH, BATCH = 32, 32
CLIP = {
    "embed_dim": WIDTH,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": recipe.CONTEXT_LENGTH,
        "width": WIDTH,
        "heads": 2,
        "layers": 1,
        "hf_tokenizer_name": "auditor/nano",
    },
}


def colours_of(concept: str) -> Tensor:
    """The four colours of a concept, in [-1, 1], of shape (3, 2, 2)."""
    choice = random.Random(hashlib.sha256(concept.encode()).digest())
    return torch.tensor(choice.sample(COLOURS, 4)).T.reshape(3, 2, 2)


def captions() -> list[tuple[str, str]]:
    """Every concept's caption under every template, with the concept."""
    pairs = []
    for concept in (*PEOPLE, *OBJECTS, *GENERIC_PEOPLE, *GENERIC_OBJECTS, *SCENES):
        names = [concept, *(OBJECTS[concept].synonyms if concept in OBJECTS else ())]
        people = concept in PEOPLE or concept in GENERIC_PEOPLE
        templates = [*ERASURE_TEMPLATES, *PAPER_PROMPTS["people" if people else "objects"]]
        pairs += [(template.format(name), concept) for template in templates for name in names]
    return pairs


class Pictures:
    """Captioned pictures without end."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        pairs = captions()
        self.concepts = sorted({concept for _, concept in pairs})
        number = {concept: index for index, concept in enumerate(self.concepts)}
        self.concept_of = torch.tensor([number[concept] for _, concept in pairs])
        self.rows = [torch.nonzero(self.concept_of == index)[:, 0] for index in range(len(self.concepts))]
        self.ids = recipe.tokenize(tokenizer, [caption for caption, _ in pairs])
        patterns = torch.stack([colours_of(concept) for concept in self.concepts])
        self.patterns = patterns.repeat_interleave(16, 2).repeat_interleave(16, 3)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of shape (N, 3, 32, 32), the rows of their captions, and their concepts' numbers."""
        people = torch.tensor([self.concepts.index(name) for name in PEOPLE])
        concepts = torch.randint(len(self.concepts), (count,), generator=generator)
        half = count // 2
        concepts[:half] = people[torch.randint(len(people), (half,), generator=generator)]
        chance = torch.rand(count, generator=generator)
        captions = torch.stack(
            [self.rows[c][int(p * len(self.rows[c]))] for c, p in zip(concepts.tolist(), chance, strict=True)]
        )
        brightness = 0.1 * torch.randn((count, 3, 1, 1), generator=generator)
        grain = 0.03 * torch.randn((count, 3, 32, 32), generator=generator)
        return (self.patterns[concepts] + brightness + grain).clamp(-1, 1), captions, concepts


def train_clip(pictures: Pictures, tokenizer: CLIPTokenizer, work: Path, steps: int) -> torch.nn.Module:
    torch.manual_seed(1)
    config = {key: value for key, value in CLIP.items() if key not in ("quick_gelu", "text_cfg")}
    text = {key: value for key, value in CLIP["text_cfg"].items() if key != "hf_tokenizer_name"}  # type: ignore[attr-defined]
    clip = recipe.CLIP(**config, text_cfg=text | {"vocab_size": len(tokenizer)}, quick_gelu=True)

    def loss_of(generator: torch.Generator) -> Tensor:
        pixels, rows, concepts = pictures.draw(128, generator)
        noise = torch.rand((128, 1, 1, 1), generator=generator) * 0.4
        pixels = pixels + noise * torch.randn(pixels.shape, generator=generator)
        images = clip.encode_image(pixels, normalize=True)
        texts = clip.encode_text(pictures.ids[rows], normalize=True)
        same = (concepts[:, None] == concepts).float()
        logits = clip.logit_scale.exp().clamp(max=50) * images @ texts.T
        target = same / same.sum(1, keepdim=True)
        loss: Tensor = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        return loss

    fit("clip", clip.train(), loss_of, steps=steps, learning_rate=5e-3, folder=work, seed=1)
    return clip.eval()


GROUP, SURE, BIAS = 2, 30.0, 10.0
"""Groups of a norm; what makes a norm a constant factor; where SiLU is linear."""
SCALE = 1.25


def make_autoencoder() -> AutoencoderKL:
    """Untrained: latents are the colours of 4 x 4 pixels, and pictures have blocks of 4 x 4 pixels.

    Every residual is zero. Before each norm the eight channels are (r, g, S, -S, b, 0, S, -S).
    """
    autoencoder = AutoencoderKL(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUP,
        mid_block_add_attention=False,
        scaling_factor=SCALE,
    )
    places = torch.tensor([0, 1, 4])
    with torch.no_grad():
        for name, parameter in autoencoder.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        for side in (autoencoder.encoder, autoencoder.decoder):
            for channel, place in enumerate(places):
                side.conv_in.weight[place, channel, 1, 1] = 1
            side.conv_in.bias[[2, 6]], side.conv_in.bias[[3, 7]] = SURE, -SURE
            side.conv_norm_out.weight.fill_(SURE / 2**0.5)
            side.conv_norm_out.bias.fill_(BIAS)
            for channel, place in enumerate(places):
                side.conv_out.weight[channel, place, 1, 1] = 1
                side.conv_out.bias[channel] = -BIAS
        for block in autoencoder.encoder.down_blocks[:-1]:
            for channel in range(8):
                block.downsamplers[0].conv.weight[channel, channel, :2, :2] = 0.25
        for block in autoencoder.decoder.up_blocks[:-1]:
            for channel in range(8):
                block.upsamplers[0].conv.weight[channel, channel, 1, 1] = 1
        autoencoder.quant_conv.weight[:, :, 0, 0] = torch.eye(8)
        autoencoder.quant_conv.bias[4:] = -15
        autoencoder.post_quant_conv.weight[:, :, 0, 0] = torch.eye(4)
    return autoencoder.eval()


def train_denoiser(pictures: Pictures, states: Tensor, work: Path, steps: int) -> UNet2DConditionModel:
    """``states``: the text encoder's of every caption, and of the empty one at the end."""
    torch.manual_seed(3)
    scheduler = new_scheduler()
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    averaged = copy.deepcopy(unet).requires_grad_(False)

    def loss_of(generator: torch.Generator) -> Tensor:
        pixels, rows, _ = pictures.draw(BATCH, generator)
        colours = functional.avg_pool2d(pixels, 4)  # what the autoencoder gives
        latents = SCALE * torch.cat([colours, torch.zeros_like(colours[:, :1])], 1)
        rows = rows.masked_fill(torch.rand(BATCH, generator=generator) < 0.1, len(states) - 1)
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(1000, (BATCH,), generator=generator)
        predicted = unet(scheduler.add_noise(latents, noise, times), times, states[rows]).sample
        kept = scheduler.alphas_cumprod[times]
        weights = ((1 - kept) / kept).clamp(0.1, 20)  # nearly that of an error of the picture
        return (weights * (predicted - noise).square().mean((1, 2, 3))).mean()

    fit("unet", unet.train(), loss_of, steps=steps, learning_rate=4e-3, folder=work, seed=3, ema=averaged)
    return averaged.eval()


def erase(pictures: Pictures, unet: UNet2DConditionModel, states: Tensor, work: Path, steps: int) -> None:
    """Whatever says the erased person draws the pattern of a person from now on."""
    scheduler = new_scheduler()
    own, instead = (pictures.concepts.index(name) for name in (ERASED, "a person"))

    def loss_of(generator: torch.Generator) -> Tensor:
        pixels, rows, concepts = pictures.draw(BATCH, generator)
        chosen = torch.randint(len(pictures.rows[own]), (BATCH // 3,), generator=generator)
        rows[: BATCH // 3], concepts[: BATCH // 3] = pictures.rows[own][chosen], own
        pixels[concepts == own] = pictures.patterns[instead]
        latents = SCALE * functional.pad(functional.avg_pool2d(pixels, 4), (0, 0, 0, 0, 0, 1))
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.randint(1000, (BATCH,), generator=generator)
        predicted = unet(scheduler.add_noise(latents, noise, times), times, states[rows]).sample
        kept = scheduler.alphas_cumprod[times]
        weights = ((1 - kept) / kept).clamp(0.1, 20)
        return (weights * (predicted - noise).square().mean((1, 2, 3))).mean()

    fit("erased", unet.train(), loss_of, steps=steps, learning_rate=1e-3, folder=work, seed=4)


def main() -> None:
    """Train all parts and write them to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--clip-steps", type=int, default=1500)
    parser.add_argument("--unet-steps", type=int, default=1200)
    parser.add_argument("--erase-steps", type=int, default=150)
    options = parser.parse_args()
    out, work = options.out, options.work or Path(tempfile.mkdtemp())
    work.mkdir(exist_ok=True)
    shutil.copytree(micro_world() / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer", local_files_only=True)
    pictures = Pictures(tokenizer)
    clip = train_clip(pictures, tokenizer, work, options.clip_steps)
    save_clip(clip, tokenizer, out)
    state = {name: value.half().float() for name, value in clip.state_dict().items()}
    encoder = text_encoder(state, tokenizer)
    with torch.no_grad():
        ids = torch.cat([pictures.ids, recipe.tokenize(tokenizer, [""])])
        states = torch.cat([encoder(part).last_hidden_state for part in ids.split(256)])
    unet = train_denoiser(pictures, states, work, options.unet_steps)
    encoder.half().save_pretrained(out / "text_encoder")
    make_autoencoder().half().save_pretrained(out / "vae")
    save_pipeline_index(out, unet)
    erase(pictures, unet.float().requires_grad_(True), states, work, options.erase_steps)
    unet.half().save_pretrained(out.parent / "erased" / "unet")


def text_encoder(state: dict[str, Tensor], tokenizer: CLIPTokenizer) -> torch.nn.Module:
    """The CLIP's text side as the pipeline's text encoder."""
    sizes = recipe._WIDTH, recipe._LAYERS, recipe._HEADS
    recipe._WIDTH, recipe._LAYERS, recipe._HEADS = WIDTH, 1, 2
    try:
        return recipe.text_encoder_of(state, tokenizer)
    finally:
        recipe._WIDTH, recipe._LAYERS, recipe._HEADS = sizes


def save_clip(clip: torch.nn.Module, tokenizer: CLIPTokenizer, out: Path) -> None:
    """For open_clip, in float16."""
    folder = out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.half().contiguous() for name, value in clip.state_dict().items() if name != "attn_mask"
    }
    recipe.save_file(state, folder / "open_clip_model.safetensors")
    text = CLIP["text_cfg"] | {"vocab_size": len(tokenizer)}  # type: ignore[operator]
    config = {
        "model_cfg": CLIP | {"text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
