"""Which layer of a base a tensor of an adapter means, in whatever names its program writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from auditor._checkpoint.names import plain_name
from auditor.families.stable_diffusion.original_names import unet_names

Shapes = Mapping[str, tuple[int, ...]]


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


_PREFIXES = (
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("base_model.model.unet.", "unet"),
    ("base_model.model.text_encoder.", "text_encoder"),
    ("base_model.model.", None),
    ("model.diffusion_model.", "unet"),
    ("diffusion_model.", "unet"),
    ("", None),
)
"""What may stand before a layer's name with dots, and the part that it says (None: either)."""

_FLAT_PREFIXES = (("lora_unet_", "unet"), ("lora_te_", "text_encoder"), ("lycoris_", None))
"""The same before names with underscores instead of dots."""


class Targets:
    """The layers of a base's UNet and text encoder, by every name that programs give them."""

    def __init__(self, declared: Mapping[str, Shapes]) -> None:
        self._dotted: dict[str, dict[str, Layer]] = {}
        self._flat: dict[str, dict[str, Layer]] = {}
        self._twice: set[str] = set()
        for part in ("unet", "text_encoder"):
            layers = {layer.name: layer for layer in _layers(part, declared.get(part, {}))}
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
        for prefix, part in _FLAT_PREFIXES:
            if name.startswith(prefix) and "." not in name:
                return self._one(self._flat, part, name.removeprefix(prefix))
        for prefix, part in _PREFIXES:
            if (
                prefix
                and name.startswith(prefix)
                and (found := self._one(self._dotted, part, name.removeprefix(prefix)))
            ):
                return found
        return self._one(self._dotted, None, name)

    def _one(self, where: Mapping[str, Mapping[str, Layer]], part: str | None, name: str) -> Layer | None:
        found = [where[each][name] for each in where if part in (None, each) and name in where[each]]
        return found[0] if len(found) == 1 and name not in self._twice else None

    def _aliases(self, part: str, layers: Mapping[str, Layer]) -> Iterator[tuple[str, Layer]]:
        if part == "text_encoder":
            for name, layer in layers.items():
                yield name, layer
                yield f"text_model.{name}", layer
            return
        yield from layers.items()
        original = unet_names(f"{name}.weight" for name in layers)
        for name, layer in layers.items():
            if (other := original[f"{name}.weight"].removesuffix(".weight")) != name:
                yield other, layer


def _layers(part: str, shapes: Shapes) -> Iterator[Layer]:
    held = {plain_name(name) if part == "text_encoder" else name: shape for name, shape in shapes.items()}
    for name, shape in held.items():
        if name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            yield Layer(part, layer, shape, held.get(f"{layer}.bias"))
