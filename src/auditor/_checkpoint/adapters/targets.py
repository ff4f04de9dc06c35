"""Which layer of a base a tensor of an adapter means, in whatever names its program writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditor.families.family import Family
from auditor.families.on_disk import Shapes


@dataclass(frozen=True)
class Layer:
    """A layer of a base: the part it is in, its name there, and the shapes of its weight and bias."""

    part: str
    name: str
    weight: tuple[int, ...]
    bias: tuple[int, ...] | None

    @property
    def full_name(self) -> str:
        """``part.layer``."""
        return f"{self.part}.{self.name}"


class Targets:
    """The layers of a base's parts that adapters change, by every name that programs give them."""

    def __init__(self, family: Family, declared: Mapping[str, Shapes]) -> None:
        self._family = family
        self._dotted: dict[str, dict[str, Layer]] = {}
        self._flat: dict[str, dict[str, Layer]] = {}
        self._twice: set[str] = set()
        for part in family.adapted:
            layers = {layer.name: layer for layer in _layers(family, part, declared.get(part, {}))}
            named = list(self._aliases(part, layers))
            self._dotted[part] = dict(named)
            flat: dict[str, Layer] = {}
            for name, layer in named:
                key = name.replace(".", "_")
                if flat.setdefault(key, layer) is not layer:
                    self._twice.add(key)
            self._flat[part] = flat

    def find(self, name: str) -> Layer | None:
        """The layer that ``name`` (a tensor's name without its last words) means; None where there is none,
        or where it could be two."""
        names = self._family.adapters
        for prefix, part in names.flat:
            if name.startswith(prefix) and "." not in name:
                return self._one(self._flat, part, name.removeprefix(prefix))
        for prefix, part in names.prefixes:
            if name.startswith(prefix) and (
                found := self._one(self._dotted, part, name.removeprefix(prefix))
            ):
                return found
        return self._one(self._dotted, None, name)

    def _one(self, where: Mapping[str, Mapping[str, Layer]], part: str | None, name: str) -> Layer | None:
        found = [where[each][name] for each in where if part in (None, each) and name in where[each]]
        return found[0] if len(found) == 1 and name not in self._twice else None

    def _aliases(self, part: str, layers: Mapping[str, Layer]) -> Iterator[tuple[str, Layer]]:
        yield from layers.items()
        others = self._family.other_names(part, [f"{name}.weight" for name in layers])
        for name, other in others.items():
            yield other.removesuffix(".weight"), layers[name.removesuffix(".weight")]


def _layers(family: Family, part: str, shapes: Shapes) -> Iterator[Layer]:
    held = {family.plain_name(name): shape for name, shape in shapes.items()}
    for name, shape in held.items():
        if name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            yield Layer(part, layer, shape, held.get(f"{layer}.bias"))
