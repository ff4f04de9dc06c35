"""Names of tensors, as older and newer libraries call them."""

from __future__ import annotations


def plain_name(name: str) -> str:
    """Names as of before and after transformers dropped the text model's prefix, and diffusers renamed the
    VAE's attention."""
    name = name.removeprefix("text_model.")
    for old, new in (
        (".query.", ".to_q."),
        (".key.", ".to_k."),
        (".value.", ".to_v."),
        (".proj_attn.", ".to_out.0."),
    ):
        name = name.replace(old, new)
    return name


def is_buffer(name: str) -> bool:
    """Is this no weight: token positions that older files hold?"""
    return name.endswith("position_ids")
