"""One file over a base: what each of its tensors becomes. Every tensor is claimed by name, or the file is
refused with the first that has no place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from auditor._checkpoint.adapters.table import Adapter, is_adapter, read_adapter
from auditor._checkpoint.folder import refuse_unet
from auditor._checkpoint.names import is_buffer, plain_name, without_ones
from auditor._checkpoint.prediction import MARKERS
from auditor._files.safetensors_header import FLOATING, Header
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.components import SINGLE_FILE_PARTS
from auditor.families.stable_diffusion.original_names import (
    Piece,
    open_clip_names,
    unet_names,
    vae_names,
)

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

_COUNTERS = ("model_ema.decay", "model_ema.num_updates")
_SCHEDULE = re.compile(
    r"(log_)?(one_minus_|sqrt_|recip_|recipm1_)*alphas_cumprod(_prev)?|sqrt_recipm?1?_alphas_cumprod|betas|posterior_\w+|lvlb_weights|logvar|scale_factor"
)
_OPEN_CLIP = "cond_stage_model.model."
_OPEN_CLIP_REST = re.compile(r"(visual\..+|logit_scale|text_projection|attn_mask)")
_ADAPTERS = re.compile(r"adapter|_ip\b|fuser|gated|lora|control")


class Form(StrEnum):
    """How a checkpoint is stored."""

    FOLDER = "diffusers folder"
    SINGLE = "single file"
    UNET = "UNet over a base"
    LORA = "LoRA over a base"
    DELTA = "changed tensors over a base"


@dataclass(frozen=True)
class Overlay:
    """What one file does to a base: tensors of its own by part and name there, or an adapter's changes."""

    form: Form
    tensors: dict[str, dict[str, Piece]] = field(default_factory=dict)
    """Of each part, where in the file the tensor of a (plain) name lies."""
    adapter: Adapter | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are not the base's own any more."""
        return self.adapter.parts if self.adapter is not None else tuple(sorted(self.tensors))

    def values(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What it puts into its base, by part and name there, from the ``digests`` of the file's tensors: the
        same whatever the file calls them, and nothing of what it holds beside."""
        if self.adapter is not None:
            return self.adapter.values(digests)
        return {
            f"{part}.{name}": [digests[piece.name], piece.third]
            for part, own in sorted(self.tensors.items())
            for name, piece in sorted(own.items())
        }

    def sentence(self, declared: Mapping[str, Shapes]) -> str:
        """What it holds, in words, for inspection and report."""
        if self.adapter is not None:
            return self.adapter.sentence()
        if self.form is Form.SINGLE:
            return ""
        held = ", ".join(
            f"{len(own)} of {sum(not is_buffer(name) for name in declared[part])} tensors of {part}"
            for part, own in sorted(self.tensors.items())
        )
        return f"{held}; the others are the base's" if self.form is Form.DELTA else held


def form_of(source: str, header: Header) -> Form:
    """What a file seems to hold, by the names of its tensors alone. Raises :class:`RefusedError` where no
    tensor is one that is known."""
    names = [name for name in header.shapes if not is_buffer(name) and name not in MARKERS]
    refuse_unet(source, header.shapes)
    if is_adapter(names):
        return Form.LORA
    if any(name.startswith("model.diffusion_model.") for name in names) and any(
        name.startswith(tuple(SINGLE_FILE_PARTS.values())[1:]) for name in names
    ):
        return Form.SINGLE
    ends = {name.rpartition("model.")[2].removeprefix("unet.") for name in names}
    if {"conv_in.weight", "conv_norm_out.weight"} <= ends or {
        "input_blocks.0.0.weight",
        "out.0.weight",
    } <= ends:
        return Form.UNET
    if any(_KNOWN.match(name) for name in names):
        return Form.DELTA
    raise RefusedError(
        f"{source} holds neither a Stable Diffusion model, a UNet, a LoRA nor changed tensors of a UNet (the "
        f"first is {min(names, default='none')})."
    )


_KNOWN = re.compile(
    r"(unet\.|model\.diffusion_model\.|diffusion_model\.)?"
    r"(conv_in|time_embedding|down_blocks|mid_block|up_blocks|conv_norm_out|conv_out|input_blocks|middle_block|output_blocks|time_embed|out)\."
    r"|(text_encoder|vae)\."
)


def read_overlay(
    source: str,
    header: Header,
    config: Mapping[str, Any] | None,
    declared: Mapping[str, Shapes],
    value: Callable[[str], float],
) -> Overlay:
    """What the file with this ``header`` does to a base whose parts declare ``declared``.

    ``config`` is ``adapter_config.json`` beside an adapter; ``value`` gives the number in a tensor of one.
    Raises :class:`RefusedError` for a tensor that has no place.
    """
    form = form_of(source, header)
    shapes = {name: shape for name, shape in header.shapes.items() if name not in MARKERS}
    if form is Form.LORA:
        adapter = read_adapter(source, shapes, header.metadata, config, declared, value)
        _refuse_integers(source, header, {"alpha", "on_input"})
        return Overlay(form, adapter=adapter)
    _refuse_integers(source, header, set())
    if form is Form.SINGLE:
        return Overlay(form, _single(source, shapes, declared))
    found = _changed(source, shapes, declared)
    whole = set(found) == {"unet"} and found["unet"].keys() == {
        name for name in declared["unet"] if not is_buffer(name)
    }
    return Overlay(Form.UNET if whole else Form.DELTA, found)


def taken(piece: Piece, held: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The tensor that a piece of a file is, as float32 of ``shape`` (a linear layer and a 1 x 1 convolution
    hold the same numbers)."""
    value = held[piece.name].float()
    if piece.third is not None:
        value = value.chunk(3)[piece.third]
    return value.reshape(shape)


def _refuse_integers(source: str, header: Header, numbers: set[str]) -> None:
    for tensor in header.tensors:
        if tensor.dtype in FLOATING or is_buffer(tensor.name) or tensor.name in (*MARKERS, *_COUNTERS):
            continue
        if tensor.name.rpartition(".")[2] not in numbers:
            raise RefusedError(
                f"{source} has {tensor.name} of the kind {tensor.dtype}; weights are {', '.join(FLOATING)}."
            )


# -- a whole model -------------------------------------------------------------------------------------------


def _single(source: str, shapes: Shapes, declared: Mapping[str, Shapes]) -> dict[str, dict[str, Piece]]:
    found = {}
    left = {name for name in shapes if not is_buffer(name)}
    for part, prefix in SINGLE_FILE_PARTS.items():
        if not any(name.startswith(prefix) for name in left):
            raise RefusedError(f"{source} has no {part}: no tensor is called {prefix}…")
        own = {plain_name(name): shape for name, shape in declared[part].items() if not is_buffer(name)}
        found[part] = _pieces(part, prefix, own, shapes)
        for name, piece in found[part].items():
            if piece.name not in shapes:
                raise RefusedError(
                    f"{source} has no {piece.name}, which the base's configuration declares ({part}: {name})."
                )
            _refuse_shape(source, piece, shapes[piece.name], own[name])
        left -= {piece.name for piece in found[part].values()}
    other = sorted(name for name in left if not _is_idle(name, declared, left))
    if other:
        what = "an adapter or another layer" if any(_ADAPTERS.search(name) for name in other) else "they"
        raise RefusedError(
            f"{source} holds {len(other)} tensors beside the model's own ({', '.join(other[:3])}): {what} "
            f"would "
            "change what another program draws with it."
        )
    return found


def _pieces(part: str, prefix: str, own: Shapes, shapes: Shapes) -> dict[str, Piece]:
    if part == "unet":
        return {name: Piece(prefix + other) for name, other in unet_names(own).items()}
    if part == "vae":
        return {name: Piece(prefix + other) for name, other in vae_names(own).items()}
    if any(name.startswith(_OPEN_CLIP) for name in shapes):
        return {
            name: Piece(_OPEN_CLIP + piece.name, piece.third) for name, piece in open_clip_names(own).items()
        }
    inside = f"{prefix}transformer."
    inside += "text_model." if any(name.startswith(f"{inside}text_model.") for name in shapes) else ""
    return {name: Piece(inside + name) for name in own}


def _is_idle(name: str, declared: Mapping[str, Shapes], left: set[str]) -> bool:
    """Is a tensor one that no program draws with: numbers of the training's schedule, OpenCLIP's image side
    and the layer that Stable Diffusion 2 skips, counters of averages that are not there?"""
    if "." not in name:
        return _SCHEDULE.fullmatch(name) is not None
    if name in _COUNTERS:
        return not any(other.startswith("model_ema.") and other not in _COUNTERS for other in left)
    if name.startswith(_OPEN_CLIP):
        rest = name.removeprefix(_OPEN_CLIP)
        layers = {
            int(match[1])
            for other in declared["text_encoder"]
            if (match := re.search(r"encoder\.layers\.(\d+)\.", other))
        }
        skipped = f"transformer.resblocks.{max(layers, default=-1) + 1}."
        return _OPEN_CLIP_REST.fullmatch(rest) is not None or rest.startswith(skipped)
    return False


# -- some tensors --------------------------------------------------------------------------------------------


def _changed(source: str, shapes: Shapes, declared: Mapping[str, Shapes]) -> dict[str, dict[str, Piece]]:
    known = dict(_places(declared))
    found: dict[str, dict[str, Piece]] = {}
    for name, shape in shapes.items():
        if is_buffer(name):
            continue
        if name not in known:
            raise RefusedError(f"{source} does not fit its base: it holds {name}, which the base has not.")
        part, own, wanted = known[name]
        if own in found.setdefault(part, {}):
            raise RefusedError(
                f"{source} holds {name} and {found[part][own].name}, which are the same tensor."
            )
        found[part][own] = Piece(name)
        _refuse_shape(source, found[part][own], shape, wanted)
    return found


def _places(declared: Mapping[str, Shapes]) -> Iterable[tuple[str, tuple[str, str, tuple[int, ...]]]]:
    """Every name under which a tensor of a base may stand in a file of some, with its part, its name there
    and its shape."""
    for part, shapes in declared.items():
        own = {plain_name(name): shape for name, shape in shapes.items() if not is_buffer(name)}
        for name, shape in own.items():
            place = (part, name, shape)
            yield f"{part}.{name}", place
            if part == "text_encoder":
                yield f"{part}.text_model.{name}", place
            if part == "unet":
                yield name, place
        if part == "unet":
            for name, original in unet_names(own).items():
                for prefix in ("model.diffusion_model.", "diffusion_model.", ""):
                    if prefix or original != name:
                        yield f"{prefix}{original}", (part, name, own[name])


def _refuse_shape(source: str, piece: Piece, held: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if piece.third is not None:
        held = (held[0] // 3, *held[1:]) if held and held[0] % 3 == 0 else held
    same = held == wanted or (
        without_ones(held) == without_ones(wanted) and len(wanted) > 1 and len(held) > 1
    )
    if not same:
        raise RefusedError(
            f"{source} does not fit its base: {piece.name} is of shape {held}, there it is {wanted}."
        )
