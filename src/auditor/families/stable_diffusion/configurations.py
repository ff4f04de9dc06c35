"""What the configurations of Stable Diffusion 1.x and 2.x may say: an allow-list for each class.

A key that is not named here could make a library run other code, load other files or draw in another way, so
it is refused by its name. The values of most keys are judged by the tensors that they declare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.families.on_disk import EMA_KEYS, SAVED

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "unet": (
        *SAVED,
        *EMA_KEYS,
        "act_fn",
        "attention_head_dim",
        "block_out_channels",
        "center_input_sample",
        "cross_attention_dim",
        "downsample_padding",
        "dual_cross_attention",
        "flip_sin_to_cos",
        "freq_shift",
        "in_channels",
        "layers_per_block",
        "mid_block_only_cross_attention",
        "mid_block_scale_factor",
        "norm_eps",
        "norm_num_groups",
        "num_attention_heads",
        "only_cross_attention",
        "out_channels",
        "resnet_out_scale_factor",
        "resnet_skip_time_act",
        "sample_size",
        "time_embedding_dim",
        "transformer_layers_per_block",
        "upcast_attention",
        "use_linear_projection",
    ),
    "vae": (
        *SAVED,
        "act_fn",
        "block_out_channels",
        "force_upcast",
        "latent_channels",
        "layers_per_block",
        "mid_block_add_attention",
        "norm_num_groups",
        "sample_size",
        "scaling_factor",
        "use_post_quant_conv",
        "use_quant_conv",
    ),
    "text_encoder": (
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "hidden_size",
        "initializer_factor",
        "initializer_range",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "pad_token_id",
        "projection_dim",
        "torch_dtype",
        "transformers_version",
        "vocab_size",
    ),
    "scheduler": (),
}
"""The keys that may have any value, by component. Of a scheduler every key is left unread but those of its
noise schedule."""

RIGHT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "unet": {
        "addition_embed_type": (None,),
        "addition_embed_type_num_heads": (64, None),
        "addition_time_embed_dim": (None,),
        "attention_type": ("default", None),
        "class_embed_type": (None,),
        "class_embeddings_concat": (False, None),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "cross_attention_norm": (None,),
        "dropout": (0, None),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "num_class_embeds": (None,),
        "projection_class_embeddings_input_dim": (None,),
        "resnet_time_scale_shift": ("default",),
        "reverse_transformer_layers_per_block": (None,),
        "time_cond_proj_dim": (None,),
        "time_embedding_act_fn": (None,),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
    },
    "vae": {
        "in_channels": (3,),
        "latents_mean": (None,),
        "latents_std": (None,),
        "out_channels": (3,),
        "shift_factor": (None, 0),
    },
    "text_encoder": {
        "attention_dropout": (0, None),
        "dropout": (0, None),
        "hidden_act": ("quick_gelu", "gelu"),
        "model_type": ("clip_text_model",),
        "output_attentions": (False,),
        "output_hidden_states": (False,),
        "return_dict": (True,),
        "use_cache": (True, False),
        "_attn_implementation_autoset": (True, False),
    },
    "scheduler": {"use_flow_sigmas": (False, None)},
}
"""The keys that may have these values alone: with another one the model is drawn in another way, or
trained."""

BLOCKS: Mapping[str, tuple[str, ...]] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpDecoderBlock2D"),
}
"""The blocks that UNet and autoencoder may be made of."""

REASONS: Mapping[str, str] = {
    "time_cond_proj_dim": (
        "its UNet takes the guidance as an input, as distilled models do, and is drawn in one pass a step"
    ),
    "class_embed_type": "its UNet takes a class beside the prompt",
    "num_class_embeds": "its UNet takes a class beside the prompt",
    "addition_embed_type": "its UNet takes more than latents, time and prompt",
    "encoder_hid_dim_type": "its UNet takes more than latents, time and prompt",
    "attention_type": "its attention is of another kind (GLIGEN's boxes)",
    "dropout": "dropout would act on the probes' training alone",
    "attention_dropout": "dropout would act on the probes' training alone",
    "use_flow_sigmas": "it draws along a flow, not by denoising diffusion",
}
"""Why another value is refused, where that can be said."""

PIPELINES = ("StableDiffusionPipeline",)
"""The pipelines that draw in the way that is audited."""

INDEX_KEYS = ("_class_name", "_diffusers_version", "_name_or_path", "requires_safety_checker")
"""What ``model_index.json`` may say beside its components."""

NEVER_DRAWN_WITH = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that a pipeline may have and that change no image: they are never loaded."""

BETAS: Mapping[str, tuple[float, float, str]] = {
    "DDIMScheduler": (0.0001, 0.02, "linear"),
    "DDPMScheduler": (0.0001, 0.02, "linear"),
    "DEISMultistepScheduler": (0.0001, 0.02, "linear"),
    "DPMSolverMultistepScheduler": (0.0001, 0.02, "linear"),
    "DPMSolverSDEScheduler": (0.00085, 0.012, "linear"),
    "DPMSolverSinglestepScheduler": (0.0001, 0.02, "linear"),
    "EulerAncestralDiscreteScheduler": (0.0001, 0.02, "linear"),
    "EulerDiscreteScheduler": (0.0001, 0.02, "linear"),
    "HeunDiscreteScheduler": (0.00085, 0.012, "linear"),
    "KDPM2AncestralDiscreteScheduler": (0.00085, 0.012, "linear"),
    "KDPM2DiscreteScheduler": (0.00085, 0.012, "linear"),
    "LCMScheduler": (0.00085, 0.012, "scaled_linear"),
    "LMSDiscreteScheduler": (0.0001, 0.02, "linear"),
    "PNDMScheduler": (0.0001, 0.02, "linear"),
    "SASolverScheduler": (0.0001, 0.02, "linear"),
    "TCDScheduler": (0.00085, 0.012, "scaled_linear"),
    "UniPCMultistepScheduler": (0.0001, 0.02, "linear"),
}
"""The schedulers whose noise schedule is read, with the betas that each takes where its configuration says
none."""
