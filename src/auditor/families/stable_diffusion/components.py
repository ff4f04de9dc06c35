"""The components of Stable Diffusion 1.x and 2.x: classes, files, names of tensors, and the most a
configuration may ask for."""

from __future__ import annotations

import re

from auditor.families.on_disk import EMA_KEYS, AdapterNames, Component, Configurations, Schedules
from auditor.families.stable_diffusion.configurations import (
    ALLOWED,
    BETAS,
    BLOCKS,
    INDEX_KEYS,
    NEVER_DRAWN_WITH,
    PIPELINES,
    REASONS,
    RIGHT,
)

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""The components with weights, and how their files are called."""

SINGLE_FILE_PARTS = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
"""What the names of each component's tensors begin with in a single file."""

NOISE_SCHEDULE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "steps_offset",
    "set_alpha_to_one",
    "timestep_spacing",
    "clip_sample",
    "rescale_betas_zero_snr",
)
"""What is taken from a checkpoint's scheduler: the noise it was trained with. How images are drawn is the
policy's."""

CLASSES: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": tuple(BETAS),
}
"""The classes that a folder's ``model_index.json`` may name, by component."""

LIBRARIES = ("diffusers", "transformers")
"""The libraries that may bring them."""

PREDICTIONS = ("epsilon", "v_prediction")
"""What a UNet may have been trained to predict."""

FEWEST_TIMESTEPS = 10
"""Fewer are no noise schedule."""

LARGEST_NUMBERS = {
    "layers_per_block": 8,
    "mid_block_layers_per_block": 8,
    "transformer_layers_per_block": 12,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_train_timesteps": 10_000,
}
"""The most that a configuration may ask for, by key."""

LONGEST_BLOCKS = 8
"""The most blocks that a component may have."""

COMPONENTS = tuple(
    Component(name, classes, WEIGHTS.get(name), ALLOWED.get(name, ()), RIGHT.get(name, {}))
    for name, classes in CLASSES.items()
)
"""The same tables, a component each."""

CONFIGURATIONS = Configurations(
    PIPELINES,
    LIBRARIES,
    INDEX_KEYS,
    NEVER_DRAWN_WITH,
    BLOCKS,
    REASONS,
    LARGEST_NUMBERS,
    dict.fromkeys(("block", "down_block", "up_block"), LONGEST_BLOCKS),
    EMA_KEYS,
)
"""What configurations may say, whatever component they are of."""

SCHEDULES = Schedules(
    {
        kind: dict(zip(("beta_start", "beta_end", "beta_schedule"), BETAS[kind], strict=True))
        for kind in ("DDPMScheduler", *BETAS)
    },
    NOISE_SCHEDULE,
    PREDICTIONS,
    FEWEST_TIMESTEPS,
)
"""What is read of the scheduler."""

ADAPTERS = AdapterNames(
    prefixes=(
        ("unet.", "unet"),
        ("text_encoder.", "text_encoder"),
        ("base_model.model.unet.", "unet"),
        ("base_model.model.text_encoder.", "text_encoder"),
        ("base_model.model.", None),
        ("model.diffusion_model.", "unet"),
        ("diffusion_model.", "unet"),
    ),
    flat=(("lora_unet_", "unet"), ("lora_te_", "text_encoder"), ("lycoris_", None)),
    marks=("lora_unet_", "lora_te", "lycoris_", "bundle_emb."),
    others=((re.compile(r"lora_te[12]_|text_encoder_2\."), "for Stable Diffusion XL"),),
)
"""How peft, diffusers, kohya and LyCORIS name layers."""
