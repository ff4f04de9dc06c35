"""One file over a base: what each of its tensors becomes. Every tensor is claimed by name, or the file is
refused with the first that has no place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from auditor._checkpoint.adapters.table import Adapter, is_adapter, read_adapter
from auditor._checkpoint.names import without_ones
from auditor._files.safetensors_header import FLOATING, Header
from auditor.errors import RefusedError
from auditor.families.family import Family
from auditor.families.on_disk import Form, Piece, Shapes
from auditor.families.registry import families

if TYPE_CHECKING:
    from torch import Tensor

_ADAPTERS = re.compile(r"adapter|_ip\b|fuser|gated|lora|control")


@dataclass(frozen=True)
class Overlay:
    """What one file does to a base: tensors of its own by part and name there, or an adapter's changes."""

    form: Form
    family: Family
    tensors: Mapping[str, Mapping[str, Piece]] = field(default_factory=dict)
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
        is_buffer = self.family.is_buffer
        held = ", ".join(
            f"{len(own)} of {sum(not is_buffer(name) for name in declared[part])} tensors of {part}"
            for part, own in sorted(self.tensors.items())
        )
        return f"{held}; the others are the base's" if self.form is Form.DELTA else held


def form_of(source: str, header: Header, family: Family | None = None) -> Form:
    """What a file seems to hold, by the names of its tensors alone; of ``family``, or of any. Raises
    :class:`RefusedError` where no tensor is one that is known."""
    refused = None
    for each in families() if family is None else (family,):
        try:
            return _form_of(each, source, header)
        except RefusedError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _form_of(family: Family, source: str, header: Header) -> Form:
    names = [name for name in header.shapes if not family.is_buffer(name) and name not in family.markers]
    family.refuse_denoiser(source, header.shapes)
    if is_adapter(family, names):
        return Form.LORA
    form = family.form_of(names)
    if form is None:
        one = family.denoiser_title
        raise RefusedError(
            f"{source} holds neither a {family.title} model, a {one}, a LoRA nor changed tensors of a {one} "
            f"(the first is {min(names, default='none')})."
        )
    return form


def read_overlay(
    family: Family,
    source: str,
    header: Header,
    config: Mapping[str, Any] | None,
    declared: Mapping[str, Shapes],
    value: Callable[[str], float],
) -> Overlay:
    """What the file with this ``header`` does to a base of ``family`` whose parts declare ``declared``.

    ``config`` is ``adapter_config.json`` beside an adapter; ``value`` gives the number in a tensor of one.
    Raises :class:`RefusedError` for a tensor that has no place.
    """
    form = form_of(source, header, family)
    shapes = {name: shape for name, shape in header.shapes.items() if name not in family.markers}
    if form is Form.LORA:
        adapter = read_adapter(family, source, shapes, header.metadata, config, declared, value)
        _refuse_integers(family, source, header, {"alpha", "on_input"})
        return Overlay(form, family, adapter=adapter)
    _refuse_integers(family, source, header, set())
    if form is Form.SINGLE:
        return Overlay(form, family, _single(family, source, shapes, declared))
    found, denoiser = _changed(family, source, shapes, declared), family.denoiser
    whole = set(found) == {denoiser} and found[denoiser].keys() == {
        name for name in declared[denoiser] if not family.is_buffer(name)
    }
    return Overlay(family.whole_denoiser if whole else Form.DELTA, family, found)


def taken(piece: Piece, held: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The tensor that a piece of a file is, as float32 of ``shape`` (a linear layer and a 1 x 1 convolution
    hold the same numbers)."""
    value = held[piece.name].float()
    if piece.third is not None:
        value = value.chunk(3)[piece.third]
    return value.reshape(shape)


def _refuse_integers(family: Family, source: str, header: Header, numbers: set[str]) -> None:
    other = (*family.markers, *family.counters)
    for tensor in header.tensors:
        if tensor.dtype in FLOATING or family.is_buffer(tensor.name) or tensor.name in other:
            continue
        if tensor.name.rpartition(".")[2] not in numbers:
            raise RefusedError(
                f"{source} has {tensor.name} of the kind {tensor.dtype}; weights are {', '.join(FLOATING)}."
            )


# -- a whole model -------------------------------------------------------------------------------------------


def _single(
    family: Family, source: str, shapes: Shapes, declared: Mapping[str, Shapes]
) -> dict[str, Mapping[str, Piece]]:
    found = {}
    left = {name for name in shapes if not family.is_buffer(name)}
    for part, prefix in family.single_file.items():
        if not any(name.startswith(prefix) for name in left):
            raise RefusedError(f"{source} has no {part}: no tensor is called {prefix}…")
        own = _plain(family, declared[part])
        found[part] = family.pieces(part, own, shapes)
        for name, piece in found[part].items():
            if piece.name not in shapes:
                raise RefusedError(
                    f"{source} has no {piece.name}, which the base's configuration declares ({part}: {name})."
                )
            _refuse_shape(source, piece, shapes[piece.name], own[name])
        left -= {piece.name for piece in found[part].values()}
    other = sorted(name for name in left if not family.is_idle(name, declared, left))
    if other:
        what = "an adapter or another layer" if any(_ADAPTERS.search(name) for name in other) else "they"
        raise RefusedError(
            f"{source} holds {len(other)} tensors beside the model's own ({', '.join(other[:3])}): {what} "
            f"would "
            "change what another program draws with it."
        )
    return found


# -- some tensors --------------------------------------------------------------------------------------------


def _plain(family: Family, declared: Shapes) -> dict[str, tuple[int, ...]]:
    """The weights that a part declares, by their plain names."""
    return {family.plain_name(name): shape for name, shape in declared.items() if not family.is_buffer(name)}


def _changed(
    family: Family, source: str, shapes: Shapes, declared: Mapping[str, Shapes]
) -> dict[str, dict[str, Piece]]:
    known = dict(_places(family, declared))
    found: dict[str, dict[str, Piece]] = {}
    for name, shape in shapes.items():
        if family.is_buffer(name):
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


def _places(
    family: Family, declared: Mapping[str, Shapes]
) -> Iterable[tuple[str, tuple[str, str, tuple[int, ...]]]]:
    """Every name under which a tensor of a base may stand in a file of some, with its part, its name there
    and its shape."""
    for part, shapes in declared.items():
        own = _plain(family, shapes)
        for name, shape in own.items():
            yield f"{part}.{name}", (part, name, shape)
            if part == family.denoiser:
                yield name, (part, name, shape)
        for name, other in family.other_names(part, own).items():
            for prefix in family.other_prefixes.get(part, ()):
                yield f"{prefix}{other}", (part, name, own[name])


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
