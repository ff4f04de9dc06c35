"""Names of tensors, as older and newer libraries call them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


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


def is_unused(component: str, name: str, config: Mapping[str, Any]) -> bool:
    """Is this tensor of a component's file one that its library leaves out: layers of a text encoder beyond
    those that its configuration counts ("clip skip"), a projection that a text encoder without one has no
    place for?"""
    if is_buffer(name):
        return True
    if component != "text_encoder":
        return False
    layer = re.match(r"encoder\.layers\.(\d+)\.", plain_name(name))
    layers = config.get("num_hidden_layers", 12)
    return name == "text_projection.weight" or (
        layer is not None and isinstance(layers, int) and int(layer[1]) >= layers
    )
