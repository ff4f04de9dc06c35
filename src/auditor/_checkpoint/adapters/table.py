"""An adapter's file as one table: every tensor is claimed by the layer that it changes, or refused by its
name.

Read from names, shapes and the few numbers that say a strength, so that an inspection knows what a load will
do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from auditor._checkpoint.adapters import change as changes
from auditor._checkpoint.adapters.change import LayerChange
from auditor._checkpoint.adapters.roles import Role, other_kind, role_of
from auditor._checkpoint.adapters.strength import Settings, Strength, layers, settings_of, show
from auditor._checkpoint.adapters.targets import Layer, Targets
from auditor.errors import RefusedError
from auditor.families.family import Family
from auditor.families.on_disk import Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

_NUMBERS = ("alpha", "on input")  # read as a factor and a side


@dataclass(frozen=True)
class Adapter:
    """What an adapter's file changes, layer by layer."""

    family: Family
    changes: tuple[LayerChange, ...]

    @property
    def strengths(self) -> dict[str, Strength]:
        """The factor of every product, by ``part.layer``."""
        return {each.layer.full_name: each.strength for each in self.changes if each.strength is not None}

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it changes."""
        return tuple(sorted({each.layer.part for each in self.changes}))

    def values(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What each layer's change is made of, by the ``digests`` of the file's tensors, and how strongly it
        is added: the same in every dialect."""
        return {
            each.layer.full_name: {
                "factor": None if each.strength is None else each.strength.factor,
                "on input": each.on_input,
                **{role: digests[name] for role, name in each.tensors.items() if role not in _NUMBERS},
            }
            for each in self.changes
        }

    def sentence(self) -> str:
        """What it is, in words, for inspection and report."""
        kinds = dict[str, int]()
        for each in self.changes:
            name = "DoRA" if {"magnitude", "dora scale"} & each.tensors.keys() else each.kind
            kinds[name] = kinds.get(name, 0) + 1
        what = ", ".join(f"{kind} of {layers(count)}" for kind, count in sorted(kinds.items()))
        where = " and ".join(self.parts)
        strengths = self.strengths
        return f"{what} of {where}" + (f"; strength {show(strengths)}" if strengths else "")

    def merge(
        self, modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], scale: float = 1.0
    ) -> None:
        """Change the weights of ``modules`` (by part) in place: ``scale`` times of what the file adds,
        computed in float64."""
        import torch

        def get(name: str) -> Tensor:
            return tensors[name].to(torch.float64)

        plain = self.family.plain_name
        parts = {
            part: {plain(name): value for name, value in module.named_parameters()}
            for part, module in modules.items()
        }
        with torch.no_grad():
            for each in self.changes:
                own = parts[each.layer.part]
                for kind, changed, compute in (
                    ("weight", each.changes_weight, each.weight),
                    ("bias", each.changes_bias, each.bias),
                ):
                    if changed:
                        value = own[f"{each.layer.name}.{kind}"]
                        before = value.detach().to(torch.float64)
                        after = compute(before, get)
                        value.copy_(before + scale * (after - before) if scale != 1.0 else after)


def is_adapter(family: Family, names: Iterable[str]) -> bool:
    """Does any of a file's tensors belong to an adapter, by its name?"""
    return any(_is_part(family, name) for name in names)


def _is_part(family: Family, name: str) -> bool:
    found = role_of(name)
    flat = name.startswith(family.adapters.marks)
    return (
        flat or (found is not None and found.role != "alpha") or ("lora" in name and ".attentions." in name)
    )


def read_adapter(
    family: Family,
    source: str,
    shapes: Shapes,
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None,
    declared: Mapping[str, Shapes],
    value: Callable[[str], float],
) -> Adapter:
    """The table of the file ``source``.

    ``family`` is the base's, ``config`` is ``adapter_config.json`` beside the file, ``declared`` the base's
    parts with their tensors' shapes, and ``value`` gives the number in a tensor of one. Raises
    :class:`RefusedError`, naming the first tensor, where one has no place, a layer's tensors are not all
    there, or how strongly it is to be added cannot be known.
    """
    targets = Targets(family, declared)
    settings = settings_of(family, source, metadata, config)
    if config is None:
        _refuse_other_prefix(family, source, shapes, settings)
    claimed, homes = _claimed(family, source, shapes, targets)
    found = [
        _change(source, homes[name], roles, shapes, settings, value)
        for name, roles in sorted(claimed.items())
    ]
    _refuse_settings_of_others(source, settings, found)
    return Adapter(family, tuple(found))


def _refuse_other_prefix(
    family: Family, source: str, shapes: Shapes, settings: Mapping[str, Settings]
) -> None:
    """Refuse settings in the metadata that name parts where the tensors name none, or the other way round:
    diffusers loads such a file without its settings, or not at all."""
    named = any(name.partition(".")[0] in family.adapted and "." in name for name in shapes)
    if settings and named == ("" in settings):
        what = ("tensors name", "settings do not") if named else ("settings name", "tensors do not")
        raise RefusedError(f"{source}: its {what[0]} the part that they belong to, and its {what[1]}.")


def _claimed(
    family: Family, source: str, shapes: Shapes, targets: Targets
) -> tuple[dict[str, dict[str, str]], dict[str, Layer]]:
    """The tensors of each layer by role, and the layers."""
    layers: dict[str, dict[str, str]] = {}
    homes: dict[str, Layer] = {}
    adapters: dict[str, set[str]] = {}
    scaled = {name.removesuffix(".on_input") for name in shapes if name.endswith(".on_input")}
    for name in shapes:
        if family.is_buffer(name):
            continue
        role = role_of(name)
        if role is None and name.endswith(".weight") and name.removesuffix(".weight") in scaled:
            role = Role(name.removesuffix(".weight"), "ia3")
        if role is None and name.endswith((".weight", ".bias")) and targets.find(name.rpartition(".")[0]):
            role = Role(name.rpartition(".")[0], f"base {name.rpartition('.')[2]}")
        kind = other_kind(family, name)
        if kind is not None:
            raise RefusedError(f"{source} holds {name} ({kind}), which is not merged.")
        if role is None:
            raise RefusedError(f"{source} holds {name}, which has no place in what is merged.")
        home = targets.find(role.layer)
        if home is None:
            raise RefusedError(f"{source} does not fit its base: it has no layer for {name}.")
        roles = layers.setdefault(home.full_name, {})
        if role.role in roles:
            raise RefusedError(
                f"{source} holds {name} and {roles[role.role]}, which are the same to {home.full_name}."
            )
        roles[role.role], homes[home.full_name] = name, home
        if role.role in ("down", "up", "up bias", "magnitude"):
            adapters.setdefault(home.full_name, set()).add(role.adapter)
    for names in (*adapters.values(), {name for own in adapters.values() for name in own} - {""}):
        if len(names) > 1:
            shown = ", ".join(sorted(names - {""}))
            raise RefusedError(f"{source} holds tensors of several adapters ({shown}); one is merged.")
    return layers, homes


def _change(
    source: str,
    layer: Layer,
    roles: dict[str, str],
    shapes: Shapes,
    settings: Mapping[str, Settings],
    value: Callable[[str], float],
) -> LayerChange:
    kind = changes.kind_of(source, layer.full_name, roles)
    changes.refuse_misfit(source, layer, kind, roles, shapes)
    strength = None
    if changes.has_rank(kind):
        own = settings.get(layer.part) or settings.get("")
        strength = _strength(source, layer, changes.rank_of(kind, roles, shapes), roles, own, value)
        if own is not None and own.is_dora != ("magnitude" in roles):
            raise RefusedError(
                f"{source}: its settings say {'' if own.is_dora else 'no '}DoRA, {layer.full_name} does not."
            )
    on_input = kind == "IA3" and value(roles["on input"]) != 0
    if kind == "IA3" and math.prod(shapes[roles["ia3"]]) != layer.weight[1 if on_input else 0]:
        raise RefusedError(
            f"{source} does not fit its base: {roles['ia3']} is of shape {shapes[roles['ia3']]}."
        )
    return LayerChange(layer, kind, dict(roles), strength, on_input)


def _strength(
    source: str,
    layer: Layer,
    rank: int | None,
    roles: Mapping[str, str],
    settings: Settings | None,
    value: Callable[[str], float],
) -> Strength:
    said = None
    if settings is not None and rank is not None:
        settings.refuse_outside(layer.name, len(layer.weight))
        said = settings.strength(layer.name, rank)
    if "alpha" not in roles:
        return Strength(1.0, assumed=rank is not None) if said is None else Strength(said)
    alpha = value(roles["alpha"])
    if not math.isfinite(alpha) or alpha <= 0:
        raise RefusedError(f"{source}: {roles['alpha']} is {alpha:g}, which programs read in different ways.")
    factor = 1.0 if rank is None else alpha / rank
    if said is not None and abs(said - factor) > 1e-6 * factor:
        raise RefusedError(
            f"{source} says two strengths of {layer.full_name}: {factor:g} by {roles['alpha']}, {said:g} by "
            "its settings."
        )
    return Strength(factor)


def _refuse_settings_of_others(
    source: str, settings: Mapping[str, Settings], found: list[LayerChange]
) -> None:
    held = {each.layer.part for each in found}
    other = next((part for part in settings if part and part not in held), None)
    if other is not None:
        raise RefusedError(f"{source} has settings of the {other}, and no tensors of it.")
