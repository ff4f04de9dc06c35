"""LoRA and its kin, in every dialect that is published: read from names and shapes, merged by own
arithmetic."""

from __future__ import annotations

ADAPTER_FILES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""What peft and diffusers call the file of an adapter."""
ADAPTER_CONFIG = "adapter_config.json"
"""Where peft writes an adapter's settings, beside it."""
