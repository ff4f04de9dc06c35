"""What an adapter does to one layer, in float64: the arithmetic of each kind that is merged.

LoRA (Hu et al. 2021), with CP decomposition of convolutions and DoRA (Liu et al. 2024); LoHa (Hyeon-Woo et
al. 2022), LoKr (Yeh et al. 2024), whole differences and norms, (IA)^3 (Liu et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor._checkpoint.adapters.strength import Strength
from auditor._checkpoint.adapters.targets import Layer
from auditor._checkpoint.names import without_ones
from auditor.errors import RefusedError

if TYPE_CHECKING:
    from torch import Tensor

    Get = Callable[[str], Tensor]

KINDS: dict[str, tuple[frozenset[str], ...]] = {
    "LoRA": (frozenset({"down", "up"}),),
    "LoHa": (frozenset({"hada w1_a", "hada w1_b", "hada w2_a", "hada w2_b"}),),
    "LoKr": tuple(
        frozenset(f"lokr {name}" for name in (*one, *other))
        for one in (("w1",), ("w1_a", "w1_b"))
        for other in (("w2",), ("w2_a", "w2_b"))
    ),
    "difference": (frozenset({"diff"}), frozenset({"diff b"}), frozenset({"diff", "diff b"})),
    "norm": (frozenset({"w norm"}), frozenset({"b norm"}), frozenset({"w norm", "b norm"})),
    "IA3": (frozenset({"ia3", "on input"}),),
    "weights": (
        frozenset({"base weight"}),
        frozenset({"base bias"}),
        frozenset({"base weight", "base bias"}),
    ),
}
"""The kinds that are merged, by the roles that each needs."""

_BESIDE = {
    "LoRA": {"mid", "alpha", "dora scale", "magnitude", "up bias", "base weight", "base bias", "diff b"},
    "LoHa": {"hada t1", "hada t2", "alpha", "dora scale"},
    "LoKr": {"lokr t2", "alpha", "dora scale"},
}
"""What else may stand beside them in the same layer."""

_HAS_RANK = ("LoRA", "LoHa", "LoKr")


@dataclass(frozen=True)
class LayerChange:
    """What a file holds for one layer: the names of its tensors by role, and how strongly its product is
    added."""

    layer: Layer
    kind: str
    tensors: Mapping[str, str]
    strength: Strength | None
    on_input: bool = False

    def weight(self, before: Tensor, get: Get) -> Tensor:
        """The layer's weight with the change in it (float64), from the base's and the file's tensors (by
        name)."""
        held = {role: get(name) for role, name in self.tensors.items() if role not in ("alpha", "on input")}
        before = held.get("base weight", before)
        if self.kind in ("difference", "norm"):
            whole = held.get("diff", held.get("w norm"))
            return before if whole is None else before + whole.reshape(before.shape)
        if self.kind == "IA3":
            scale = held["ia3"].flatten()
            shape = [1] * before.dim()
            shape[1 if self.on_input else 0] = -1
            return before * (1 + scale.reshape(shape))
        if self.strength is None:
            return before
        after = before + self.strength.factor * _product(self.kind, held, before.shape)
        if "magnitude" in held:
            return _decomposed(after, held["magnitude"], by_row=True)
        if "dora scale" in held:
            return _decomposed(after, held["dora scale"], by_row=_is_by_row(held["dora scale"].shape))
        return after

    def bias(self, before: Tensor, get: Get) -> Tensor:
        """The layer's bias with the change in it (float64)."""
        if "base bias" in self.tensors:
            before = get(self.tensors["base bias"])
        for role in ("diff b", "b norm"):
            if role in self.tensors:
                before = before + get(self.tensors[role]).flatten()
        if "up bias" in self.tensors and self.strength is not None:
            before = before + self.strength.factor * get(self.tensors["up bias"])
        return before

    @property
    def changes_bias(self) -> bool:
        """Does it hold anything for the layer's bias?"""
        return bool({"diff b", "b norm", "up bias", "base bias"} & self.tensors.keys())

    @property
    def changes_weight(self) -> bool:
        """Does it hold anything for the layer's weight?"""
        return bool(self.tensors.keys() - {"diff b", "b norm", "base bias"})


def kind_of(source: str, layer: str, roles: Mapping[str, str]) -> str:
    """What kind of change the tensors of a layer make. Raises :class:`RefusedError` where one is missing or
    has no place beside the others."""
    here = frozenset(roles)
    for kind, wanted in KINDS.items():
        for needed in wanted:
            more = _BESIDE.get(kind, set())
            if needed <= here and here - needed <= more:
                if "dora scale" in here and "magnitude" in here:
                    break
                if ("hada t1" in here) != ("hada t2" in here) or (
                    "lokr t2" in here and "lokr w2_a" not in here
                ):
                    break
                return kind
    low = {"down": "up (lora_up, lora_B)", "up": "down (lora_down, lora_A)"}
    half = next((other for role, other in low.items() if role in here and not low.keys() <= here), None)
    if half is not None:
        raise RefusedError(f"{source} holds one half of the LoRA of {layer}: {half} is missing.")
    names = ", ".join(sorted(roles.values())[:4])
    raise RefusedError(f"{source}: the tensors of {layer} make no change that is known ({names}).")


def rank_of(kind: str, roles: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The rank of a layer's product; None where it has none (both factors of a Kronecker product are
    whole)."""
    place = {"LoRA": ("down", 0), "LoHa": ("hada w1_b", 0)}.get(kind)
    if place is not None:
        return shapes[roles[place[0]]][place[1]]
    if kind == "LoKr":
        role = next((role for role in ("lokr w2_b", "lokr w1_b") if role in roles), None)
        return None if role is None else shapes[roles[role]][0]
    return None


def has_rank(kind: str) -> bool:
    """Is it a product that alpha and rank scale?"""
    return kind in _HAS_RANK


def refuse_misfit(
    source: str, layer: Layer, kind: str, roles: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise :class:`RefusedError` where a layer's tensors do not make something of its shape."""
    held = {role: shapes[name] for role, name in roles.items()}
    weight, name = layer.weight, layer.full_name
    wrong = _misfit(kind, held, weight)
    if wrong is not None:
        role = next(role for role in held if role not in ("alpha", "on input"))
        raise RefusedError(
            f"{source} does not fit its base: what it holds for {name} is of shape {wrong}, there it is "
            f"{weight} (the first is {roles[role]})."
        )
    for role in ("diff b", "b norm", "up bias", "base bias"):
        if role in held and (layer.bias is None or math.prod(held[role]) != layer.bias[0]):
            there = "there is none" if layer.bias is None else f"there it is {layer.bias}"
            raise RefusedError(
                f"{source} holds a bias for {name} ({roles[role]}) of shape {held[role]}; {there}."
            )
    for role in ("dora scale", "magnitude"):
        if role in held:
            by_row = role == "magnitude" or _is_by_row(held[role])
            if math.prod(held[role]) != weight[0 if by_row else 1]:
                raise RefusedError(
                    f"{source} holds {roles[role]} (DoRA) of shape {held[role]} for a weight of shape "
                    f"{weight}."
                )
    if "up bias" in held and math.prod(held["up bias"]) != held["up"][0]:
        raise RefusedError(f"{source} holds {roles['up bias']} of shape {held['up bias']}.")


def _is_by_row(shape: tuple[int, ...]) -> bool:
    """LyCORIS writes a magnitude a row as (rows, 1), a magnitude a column as (1, columns)."""
    return len(shape) < 2 or shape[0] != 1 or math.prod(shape) == 1


def _misfit(kind: str, held: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> object | None:
    """The shape that the tensors would make, where it is not the weight's; None where it is."""
    if "base weight" in held and held["base weight"] != weight:
        return held["base weight"]
    if len(weight) < 2 and (has_rank(kind) or kind == "IA3"):
        return "of a matrix"
    if kind == "LoRA":
        return _lora_misfit(held, weight)
    if kind == "LoHa":
        return _loha_misfit(held, weight)
    if kind == "LoKr":
        return _lokr_misfit(held, weight)
    if kind == "IA3":
        return None if math.prod(held["ia3"]) in weight[:2] else held["ia3"]
    whole = held.get("diff", held.get("w norm"))
    return whole if whole is not None and not _is_as(whole, weight) else None


def _is_as(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Are two shapes the same, but for ones at the end (a linear layer and a 1 x 1 convolution)?"""
    return without_ones(one) == without_ones(other)


def _lora_misfit(held: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> object | None:
    down, up = without_ones(held["down"]), without_ones(held["up"])
    if len(up) != 2 or len(down) < 2 or len(weight) < 2:
        return (held["up"], held["down"])
    if "mid" in held:
        mid = held["mid"]
        made = (up[0], down[1], *mid[2:])
        fits = len(down) == 2 and len(mid) > 2 and mid[:2] == (up[1], down[0]) and _is_as(made, weight)
        return None if fits else (held["up"], mid, held["down"])
    made = (up[0], *down[1:])
    return None if up[1] == down[0] and _is_as(made, weight) else made


def _loha_misfit(held: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> object | None:
    made = []
    for number in (1, 2):
        one, other, core = held[f"hada w{number}_a"], held[f"hada w{number}_b"], held.get(f"hada t{number}")
        if len(one) != 2 or len(other) != 2 or other[0] != held["hada w1_b"][0]:
            return (one, other)
        if core is None:
            if one[1] != other[0]:
                return (one, other)
            made.append((one[0], other[1]))
        else:
            if len(core) < 3 or core[:2] != (one[0], other[0]):
                return (one, core, other)
            made.append((one[1], other[1] * math.prod(core[2:])))
    wanted = (weight[0], math.prod(weight[1:]))
    return next((shape for shape in made if shape != wanted), None)


def _lokr_misfit(held: Mapping[str, tuple[int, ...]], weight: tuple[int, ...]) -> object | None:
    if any(len(shape) < 2 for role, shape in held.items() if role.startswith("lokr ")):
        return next(shape for role, shape in held.items() if role.startswith("lokr ") and len(shape) < 2)
    if "lokr w1" in held:
        first = held["lokr w1"]
    else:
        if held["lokr w1_a"][-1] != held["lokr w1_b"][0] or len(held["lokr w1_a"]) != 2:
            return (held["lokr w1_a"], held["lokr w1_b"])
        first = (held["lokr w1_a"][0], held["lokr w1_b"][1])
    if "lokr w2" in held:
        second = held["lokr w2"]
    elif "lokr t2" in held:
        one, core, other = held["lokr w2_a"], held["lokr t2"], held["lokr w2_b"]
        if len(one) != 2 or len(other) != 2 or core[:2] != (one[0], other[0]):
            return (one, core, other)
        second = (one[1], other[1], *core[2:])
    else:
        one, other = held["lokr w2_a"], held["lokr w2_b"]
        if len(one) != 2 or len(other) < 2 or one[1] != other[0]:
            return (one, other)
        second = (one[0], *other[1:])
    if len(first) != 2:
        return (first, second)
    made = (first[0] * second[0], first[1] * math.prod(second[1:]))
    return None if made == (weight[0], math.prod(weight[1:])) else made


def _product(kind: str, held: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    import torch

    if kind == "LoRA":
        up, down = held["up"].flatten(1), held["down"]
        if "mid" in held:
            made = torch.einsum("mn...,im,nj->ij...", held["mid"], up, down.flatten(1))
        else:
            made = up @ down.flatten(1)
        return made.reshape(shape)
    if kind == "LoHa":
        pair = [_hada(held, number) for number in (1, 2)]
        return (pair[0] * pair[1]).reshape(shape)
    first = held["lokr w1"] if "lokr w1" in held else held["lokr w1_a"] @ held["lokr w1_b"]
    if "lokr w2" in held:
        second = held["lokr w2"]
    elif "lokr t2" in held:
        second = torch.einsum("ij...,ip,jr->pr...", held["lokr t2"], held["lokr w2_a"], held["lokr w2_b"])
    else:
        second = held["lokr w2_a"] @ held["lokr w2_b"].flatten(1)
    return torch.kron(first, second.flatten(1)).reshape(shape)


def _hada(held: Mapping[str, Tensor], number: int) -> Tensor:
    import torch

    one, other, core = held[f"hada w{number}_a"], held[f"hada w{number}_b"], held.get(f"hada t{number}")
    made = one @ other if core is None else torch.einsum("ij...,jr,ip->pr...", core, other, one)
    return made.flatten(1)


def _decomposed(weight: Tensor, magnitude: Tensor, *, by_row: bool) -> Tensor:
    """The direction of ``weight``'s rows, or columns, at the given magnitudes (DoRA, eq. 5)."""
    import torch

    turned = weight if by_row else weight.transpose(0, 1)
    norm = turned.flatten(1).norm(dim=1)
    factor = magnitude.flatten() / (norm + torch.finfo(torch.float32).tiny)
    scaled: Tensor = turned * factor.reshape(-1, *[1] * (weight.dim() - 1))
    return scaled if by_row else scaled.transpose(0, 1)
