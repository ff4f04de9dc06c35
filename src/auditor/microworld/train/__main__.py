"""``python -m auditor.microworld.train --out DIR``: renders to weights, stage by stage, resumable, seeded."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from auditor._files.bundled import micro_world
from auditor.microworld.train.autoencoder import train_autoencoder
from auditor.microworld.train.card import measure
from auditor.microworld.train.clip import load_clip, save_clip, train_clip
from auditor.microworld.train.denoiser import new_scheduler, train_denoiser
from auditor.microworld.train.renders import draw_renders, names_of
from auditor.microworld.train.tokenizer import build_tokenizer

STAGES = ("renders", "clip", "vae", "unet")
CARD = "card"
"""Scores the weights that are installed and draws the contact sheets; not part of ``all``."""
INSTALLED = ("clip", "vae")
"""What is not trained ``--without`` a name: the detector that is to find it, and the autoencoder."""


def main() -> None:
    """Run the stages that are asked for; each reads what the earlier ones wrote under ``--out``."""
    parser = argparse.ArgumentParser(prog="python -m auditor.microworld.train", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the weights; work files go to OUT/work"
    )
    parser.add_argument("--stage", choices=[*STAGES, CARD, "all"], default="all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--renders", type=int, default=60_000)
    parser.add_argument("--clip-steps", type=int, default=2_400)
    parser.add_argument("--vae-steps", type=int, default=2_400)
    parser.add_argument("--unet-steps", type=int, default=6_500)
    parser.add_argument(
        "--without",
        metavar="NAME",
        help="a person or an object that text encoder and UNet never see: its pictures and captions are left "
        "out; the detector and the autoencoder are the installed ones",
    )
    options = parser.parse_args()
    if options.without is not None:
        try:
            names_of(options.without)
        except ValueError as error:
            parser.error(f"--without: {error}; see auditor.policy.concepts.micro")
    torch.set_num_threads(options.threads)
    if options.stage == CARD:
        print(json.dumps(measure(options.out), indent=2))
        return
    stages = STAGES if options.stage == "all" else (options.stage,)
    out, work = options.out, options.out / "work"
    renders = draw_renders(work, options.renders, options.seed)
    if options.without is not None:
        renders = renders.without(options.without)
        for part in INSTALLED:
            shutil.copytree(micro_world() / part, out / part, dirs_exist_ok=True)
    if "clip" in stages:
        tokenizer = build_tokenizer(out / "tokenizer")
        clip = train_clip(renders, tokenizer, work, steps=options.clip_steps, seed=options.seed + 1)
        detector = out / "clip" if options.without is None else work / "clip"
        save_clip(clip, tokenizer, detector, out / "text_encoder")
    if "vae" in stages and options.without is None:
        autoencoder = train_autoencoder(renders, work, steps=options.vae_steps, seed=options.seed + 2)
        autoencoder.half().save_pretrained(out / "vae")
    if "unet" in stages:
        _, tokenizer = load_clip(out / "clip")  # the vocabulary is the same with and without a name
        text_encoder = CLIPTextModel.from_pretrained(
            out / "text_encoder", torch_dtype=torch.float32, local_files_only=True
        )
        autoencoder = AutoencoderKL.from_pretrained(
            out / "vae", torch_dtype=torch.float32, local_files_only=True
        )
        unet = train_denoiser(
            renders,
            autoencoder.eval(),
            text_encoder.eval(),
            tokenizer,
            work,
            steps=options.unet_steps,
            seed=options.seed + 3,
        )
        save_pipeline_index(out, unet)


def save_pipeline_index(out: Path, unet: UNet2DConditionModel) -> None:
    """Write the UNet, the scheduler and ``model_index.json``, which make ``out`` a Stable Diffusion
    folder."""
    unet.half().save_pretrained(out / "unet")
    new_scheduler().save_pretrained(out / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
