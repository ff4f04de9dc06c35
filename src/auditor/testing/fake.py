"""A checkpoint without trained weights: everything a plugin touches is there and real, and it draws noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_WIDTH = 16


def fake_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a Stable Diffusion folder of random weights (about 60,000 numbers, 32 x 32 pixels) to ``folder``.

    It is admitted, loaded, fine-tuned and drawn from like any other, in milliseconds instead of seconds: for
    tests of contracts, shapes and errors. What it draws is noise, so nothing can be learnt of a detector from
    it. The same ``seed`` gives the same bytes. Its tokenizer is the micro world's.
    """
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from auditor._files.bundled import micro_world

    shutil.copytree(micro_world() / "tokenizer", folder / "tokenizer")
    shutil.copyfile(micro_world() / "model_index.json", folder / "model_index.json")
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=_WIDTH,
                intermediate_size=2 * _WIDTH,
                projection_dim=_WIDTH,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=vocabulary["<|startoftext|>"],
                eos_token_id=vocabulary["<|endoftext|>"],
                pad_token_id=vocabulary["<|endoftext|>"],
            )
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=_WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            sample_size=32,
            block_out_channels=(4, 4, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
    for name, part in (("text_encoder", text_encoder), ("unet", unet), ("vae", vae)):
        part.save_pretrained(folder / name, safe_serialization=True)
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    return folder
