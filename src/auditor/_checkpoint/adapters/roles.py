"""What each tensor of an adapter is to its layer, by the last words of its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.families.family import Family

_A_B = {"A": "down", "B": "up"}
_PROCESSOR = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}

OTHER_KINDS = (
    (re.compile(r"\.oft_|\.R(\.weight)?$"), "OFT"),
    (re.compile(r"\.[ab][12]\.weight$"), "GLoRA"),
    (re.compile(r"lora_embedding_"), "a LoRA of an embedding"),
    (re.compile(r"^bundle_emb\."), "a bundled embedding, which changes words too"),
    (re.compile(r"vera_|lora_[AB]_\d"), "an adapter of another kind"),
)
"""What is refused by its kind: it is no change of the base's own weights, or not one that is merged here."""


@dataclass(frozen=True)
class Role:
    """A tensor's part in a layer's change; ``adapter`` is the name that a model's own state has in its
    tensors' names (``default``)."""

    layer: str
    role: str
    adapter: str = ""


def role_of(name: str) -> Role | None:
    """What the tensor called ``name`` is; None where it is no part of an adapter."""
    if match := re.fullmatch(r"(.+)\.lora_([AB])(?:\.(\w+))??(?:\.(weight|bias))?", name):
        role = _A_B[match[2]]
        return Role(match[1], f"{role} bias" if match[4] == "bias" else role, match[3] or "")
    if match := re.fullmatch(r"(.+)\.lora_(down|up|mid)\.(weight|bias)", name):
        return Role(match[1], f"{match[2]} bias" if match[3] == "bias" else match[2])
    if match := re.fullmatch(r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight", name):
        return Role(f"{match[1]}.{_PROCESSOR[match[2]]}", match[3])
    if match := re.fullmatch(r"(.+\.self_attn)\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight", name):
        return Role(f"{match[1]}.{_TEXT[match[2]]}", match[3])
    if match := re.fullmatch(r"(.+)\.(?:lora|lora_linear_layer)\.(down|up)\.weight", name):
        return Role(match[1], match[2])
    if match := re.fullmatch(r"(.+)\.lora_magnitude_vector(?:\.(\w+))??(?:\.weight)?", name):
        return Role(match[1], "magnitude", match[2] or "")
    if match := re.fullmatch(r"(.+)\.hada_(w1_a|w1_b|w2_a|w2_b|t1|t2)", name):
        return Role(match[1], f"hada {match[2]}")
    if match := re.fullmatch(r"(.+)\.lokr_(w1|w1_a|w1_b|w2|w2_a|w2_b|t2)", name):
        return Role(match[1], f"lokr {match[2]}")
    if match := re.fullmatch(r"(.+)\.(alpha|dora_scale|diff|diff_b|w_norm|b_norm|on_input)", name):
        return Role(match[1], match[2].replace("_", " "))
    if match := re.fullmatch(r"(.+)\.base_layer\.(weight|bias)", name):
        return Role(match[1], f"base {match[2]}")
    return None


def other_kind(family: Family, name: str) -> str | None:
    """What kind of adapter a tensor belongs to that is never merged; None where its name does not say."""
    kinds = (*OTHER_KINDS, *family.adapters.others)
    return next((kind for pattern, kind in kinds if pattern.search(name)), None)
