"""Merges a plain LoRA, in peft's or diffusers' keys, into a UNet's weights (Hu et al. 2021)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from auditor.families.stable_diffusion.components import UNET_PARTS

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


def merge_lora(
    unet: UNet2DConditionModel, held: Mapping[str, Tensor], metadata: Mapping[str, str], scale: float = 1.0
) -> None:
    """Add ``scale`` times the LoRA ``held`` to ``unet``'s weights.

    ``metadata`` is that of the safetensors file: ranks and alphas, where diffusers or peft wrote them. Raises
    ``ValueError`` with half a sentence ("changes more than ...") where it is no plain LoRA of this UNet.
    """
    from diffusers import StableDiffusionPipeline  # takes a second to import, and few checkpoints need it

    if any("dora_scale" in name or "hada" in name or "lokr" in name for name in held):
        raise ValueError("is not a plain LoRA (DoRA, LoHa or LoKr); only plain ones are merged")
    named = {
        f"unet.{name}" if name.split(".")[0] in UNET_PARTS else name: value for name, value in held.items()
    }
    tensors, alphas = StableDiffusionPipeline.lora_state_dict(
        named, unet_config=unet.config, return_alphas=True
    )
    other = [name for name in tensors if not name.startswith("unet.")]
    if other:
        raise ValueError(
            f"changes more than the UNet ({len(other)} tensors, the first {other[0]}); only its UNet is "
            "audited"
        )
    unet.load_lora_adapter(tensors, network_alphas=alphas, prefix="unet", metadata=_settings(metadata))
    taken = sum("lora_A" in name or "lora_B" in name for name in unet.state_dict())
    if taken != sum("lora" in name for name in tensors):
        raise ValueError(
            f"has layers that the base's UNet has not: {taken} of {len(tensors)} tensors found a place"
        )
    unet.fuse_lora(lora_scale=scale)
    unet.unload_lora()


def _settings(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    text = metadata.get("lora_adapter_metadata")
    settings = json.loads(text) if text else {}
    return {
        key.removeprefix("unet."): value for key, value in settings.items() if key.startswith("unet.")
    } or None
