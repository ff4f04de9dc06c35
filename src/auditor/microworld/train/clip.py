"""Stage 3: a CLIP whose text tower is the pipeline's text encoder and whose image tower is the detector's
eye."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from auditor.microworld.render import SIZE
from auditor.microworld.train.loop import fit
from auditor.microworld.train.renders import Renders
from auditor.microworld.train.tokenizer import CONTEXT_LENGTH

_WIDTH, _LAYERS, _HEADS = 128, 4, 4
_MEAN, _STD = 0.5, 0.5


def clip_config(vocabulary: int) -> dict[str, object]:
    """The ``open_clip_config.json`` of the micro CLIP."""
    model = {
        "embed_dim": _WIDTH,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 32},  # a ModifiedResNet
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "width": _WIDTH,
            "heads": _HEADS,
            "layers": _LAYERS,
            "hf_tokenizer_name": "auditor/micro",
        },
    }
    return {"model_cfg": model, "preprocess_cfg": {"mean": [_MEAN] * 3, "std": [_STD] * 3}}


def new_clip(vocabulary: int) -> CLIP:
    """An untrained micro CLIP."""
    whole: dict[str, Any] = clip_config(vocabulary)
    config = {key: value for key, value in whole["model_cfg"].items() if key != "quick_gelu"}
    config["text_cfg"] = {
        key: value for key, value in config["text_cfg"].items() if key != "hf_tokenizer_name"
    }
    return CLIP(**config, quick_gelu=True)


def tokenize(tokenizer: CLIPTokenizer, texts: Iterable[str]) -> Tensor:
    """Token ids of shape (N, 16), padded with the end token."""
    batch = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
    )
    ids: Tensor = batch.input_ids
    return ids


def train_clip(
    renders: Renders, tokenizer: CLIPTokenizer, folder: Path, *, steps: int, seed: int, batch: int = 128
) -> CLIP:
    """Contrastive training (Radford et al. 2021) where equal captions in a batch are all positives of each
    other."""
    torch.manual_seed(seed)
    clip = new_clip(len(tokenizer))
    captions = sorted(set(renders.captions))
    number = {caption: index for index, caption in enumerate(captions)}
    caption_of = torch.tensor([number[caption] for caption in renders.captions])
    ids = tokenize(tokenizer, captions)

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(caption_of), (batch,), generator=generator)
        rows, inverse = caption_of[index].unique(return_inverse=True)
        images = clip.encode_image(_blur_and_noise(renders.pixels(index), generator), normalize=True)
        texts = clip.encode_text(ids[rows], normalize=True)
        logits = clip.logit_scale.exp().clamp(max=50) * images @ texts.T
        by_image = functional.cross_entropy(logits, inverse)
        match = functional.one_hot(inverse, len(rows)).T.float()
        by_text = -(match * logits.T.log_softmax(1)).sum(1).div(match.sum(1)).mean()
        loss: Tensor = (by_image + by_text) / 2
        return loss

    clip.train()
    fit("clip", clip, loss_of, steps=steps, learning_rate=1e-3, folder=folder, seed=seed, weight_decay=0.05)
    return clip.eval()


def _blur_and_noise(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """What an autoencoder and a denoiser do to a picture, roughly: blur one half of the batch, add a
    little noise to all."""
    half = len(pixels) // 2
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel).div(16).expand(3, 1, 3, 3)
    blurred = functional.conv2d(
        functional.pad(pixels[:half], (1, 1, 1, 1), mode="replicate"), kernel, groups=3
    )
    pixels = torch.cat([blurred, pixels[half:]])
    scale = 0.08 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (pixels + scale * torch.randn(pixels.shape, generator=generator)).clamp(-1, 1)


def save_clip(clip: CLIP, tokenizer: CLIPTokenizer, clip_folder: Path, text_encoder_folder: Path) -> None:
    """Write one set of weights twice: as an open_clip folder and, the text tower, as a transformers
    ``CLIPTextModel``."""
    clip_folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in clip.state_dict().items() if name != "attn_mask"}
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(state, clip_folder / "open_clip_model.safetensors")
    (clip_folder / "open_clip_config.json").write_text(
        json.dumps(clip_config(len(tokenizer)), indent=2) + "\n"
    )
    tokenizer.save_pretrained(clip_folder)
    text_encoder_of(state, tokenizer).half().save_pretrained(text_encoder_folder)


def text_encoder_of(state: dict[str, Tensor], tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text tower of an open_clip state dict as a ``CLIPTextModel``, float32, same function to
    rounding."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=_WIDTH,
    )
    encoder = CLIPTextModel(config)
    prefix = "text_model." if any(name.startswith("text_model.") for name in encoder.state_dict()) else ""
    renamed = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    for layer in range(_LAYERS):
        theirs, ours = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            joint = state[f"{theirs}attn.in_proj_{kind}"].chunk(3)
            renamed |= {
                f"{ours}self_attn.{name}_proj.{kind}": part for name, part in zip("qkv", joint, strict=True)
            }
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                renamed[f"{ours}{new}.{kind}"] = state[f"{theirs}{old}.{kind}"]
    missing, unexpected = encoder.load_state_dict(
        {prefix + name: value.float() for name, value in renamed.items()}, strict=False
    )
    if unexpected or any("position_ids" not in name for name in missing):
        raise RuntimeError(
            f"the text tower does not map onto CLIPTextModel: missing {missing}, unexpected {unexpected}"
        )
    return encoder.eval()


def load_clip(folder: Path) -> tuple[CLIP, CLIPTokenizer]:
    """The saved CLIP, through open_clip's own loader."""
    model = open_clip.create_model(f"local-dir:{folder}")
    return model.eval(), CLIPTokenizer.from_pretrained(folder, local_files_only=True)
