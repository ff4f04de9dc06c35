"""How strongly an adapter's product is added: alpha over rank, from wherever its file says it.

An alpha tensor beside the layer (kohya), else the settings of peft (Hu et al. 2021: alpha / r; Kalajdzievski
2023, rank-stabilised: alpha / sqrt(r)), else 1, which every program takes that finds neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditor._files.json_files import parse_json
from auditor.errors import RefusedError
from auditor.families.family import Family

_READ = (
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "init_lora_weights",
    "peft_type",
)
"""peft's settings that say what is merged, and how strongly."""
_SWITCHES = ("use_rslora", "use_dora", "lora_bias")
"""The same, true or false."""
_NO_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
)
"""Settings that change nothing of what a finished LoRA adds. Any other has to be empty, false, or ``none``:
with it a LoRA is more than the products in its file, or less."""
_INITS = ("true", "false", "none", "gaussian", "orthogonal", "eva")
"""Ways to begin a LoRA that leave the base's weights as they are (lower case)."""
_PATTERN = re.compile(r"\^?[\w.]+\$?")
_NAMES = r"\w+(?:\\?\.\w+)*"
_FEWEST_STEPS = re.compile(
    rf"(?=.{{1,200}}$)(?!(?:.*\(){{4}})(?!(?:.*[*+]){{4}})(?:\.[*+]|\\?\.|[\w^$]|\((?:\?:)?{_NAMES}(?:\|{_NAMES})*\))+"
)
"""Regular expressions that no name makes slow: at most three of ``.*``, at most three groups of plain
names."""


@dataclass(frozen=True)
class Strength:
    """The factor of a layer's product, and whether it was assumed: the file does not say."""

    factor: float
    assumed: bool = False


class Settings:
    """What peft's settings say of each layer's rank and alpha; of one part, or of all."""

    def __init__(self, source: str, values: Mapping[str, Any]) -> None:
        self.source = source
        self.values = values
        self._refuse_more()

    def strength(self, layer: str, rank: int) -> float:
        """The factor of the layer called ``layer`` in its part. Raises :class:`RefusedError` where the
        settings say another rank than its tensors have."""
        declared = self._number("r", 8) if "r" in self.values else rank
        declared = self._of_layer("rank_pattern", layer, declared)
        alpha = self._of_layer("alpha_pattern", layer, self._number("lora_alpha", 8))
        if declared != rank:
            raise RefusedError(
                f"{self.source}: {layer} is of rank {rank}, and the settings in the file say {declared:g}."
            )
        return alpha / math.sqrt(rank) if self.values.get("use_rslora") is True else alpha / rank

    def refuse_outside(self, layer: str, dimensions: int = 2) -> None:
        """Refuse a layer that is not among the modules which peft would put an adapter on: its tensors would
        not be loaded."""
        wanted = self.values.get("target_modules")
        if wanted is None:
            return
        if wanted == "all-linear":
            inside = dimensions == 2
        elif isinstance(wanted, str):
            if not _FEWEST_STEPS.fullmatch(wanted):
                raise RefusedError(
                    f"{self.source}: its target_modules {wanted[:60]!r} are not understood; a list is."
                )
            try:
                inside = re.fullmatch(wanted, layer) is not None
            except re.error as error:
                raise RefusedError(
                    f"{self.source}: its target_modules {wanted[:60]!r} are not understood."
                ) from error
        elif isinstance(wanted, list) and all(isinstance(name, str) for name in wanted):
            inside = any(layer == name or layer.endswith(f".{name}") for name in wanted)
        else:
            raise RefusedError(f"{self.source}: its target_modules are no list of names.")
        if not inside:
            raise RefusedError(
                f"{self.source} holds tensors of {layer}, which is not among the target_modules in its "
                "settings; programs that read those load it without them."
            )

    @property
    def is_dora(self) -> bool:
        """Do they say that a magnitude belongs to each layer?"""
        return self.values.get("use_dora") is True

    def _number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise RefusedError(
                f"{self.source}: its settings have {key} = {str(value)[:40]}; a number above 0 is right."
            )
        return value

    def _of_layer(self, key: str, layer: str, default: float) -> float:
        """The value of the first pattern that ends as the layer's name does, as peft matches it."""
        patterns = self.values.get(key) or {}
        if not isinstance(patterns, dict):
            raise RefusedError(f"{self.source}: its settings have a {key} that is no object.")
        for pattern, value in patterns.items():
            if not _PATTERN.fullmatch(pattern):
                raise RefusedError(
                    f"{self.source}: its settings have the {key} {pattern[:60]!r}; only names of layers are "
                    "understood."
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise RefusedError(
                    f"{self.source}: its settings have {key} = {str(value)[:40]}; a number above 0 is right."
                )
            if re.match(rf"(.*\.)?({pattern})$", layer):
                return value
        return default

    def _refuse_more(self) -> None:
        for key in _SWITCHES:
            if self.values.get(key) not in (True, False, None) or type(self.values.get(key)) is int:
                raise RefusedError(
                    f"{self.source}: its settings have {key} = {str(self.values[key])[:40]}; true or false "
                    "is right."
                )
        for key, value in self.values.items():
            known = key in (*_READ, *_SWITCHES, *_NO_EFFECT)
            if not known and value not in (None, False, [], {}, "none"):
                raise RefusedError(
                    f"{self.source}: its settings have {key[:40]} = {str(value)[:40]}; only a LoRA's "
                    "products are merged."
                )
        kind = self.values.get("peft_type") or "LORA"
        if kind != "LORA":
            raise RefusedError(f"{self.source} is an adapter of the kind {str(kind)[:40]}; LoRAs are merged.")
        init = str(self.values.get("init_lora_weights", True)).lower()
        if init not in _INITS:
            raise RefusedError(
                f"{self.source} was begun by changing the base's weights (init_lora_weights = {init[:40]}); "
                "what it is laid over is not the base."
            )


def settings_of(
    family: Family, source: str, metadata: Mapping[str, str], config: Mapping[str, Any] | None
) -> dict[str, Settings]:
    """peft's settings by part (``""``: of all), from a file's metadata (``lora_adapter_metadata``: diffusers)
    or from ``adapter_config.json`` beside it."""
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {} if config is None else {"": Settings(source, config)}
    if config is not None:
        raise RefusedError(f"{source} says its strength twice: in its metadata and in adapter_config.json.")
    values = parse_json(f"{source}: its lora_adapter_metadata", text.encode())
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        part, _, rest = key.partition(".")
        if part in family.adapted and rest:
            found.setdefault(part, {})[rest] = value
        elif "." in key:
            raise RefusedError(f"{source}: its settings have the key {key[:60]!r}, which belongs to no part.")
        else:
            found.setdefault("", {})[key] = value
    if "" in found and len(found) > 1:
        raise RefusedError(f"{source}: some of its settings name a part and some do not.")
    return {part: Settings(source, own) for part, own in found.items()}


def layers(count: int) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count} layer{'s' if count != 1 else ''}"


def show(factors: Mapping[str, Strength]) -> str:
    """Strengths in words: how many layers have which, and for how many it was assumed."""
    by_factor: dict[str, int] = {}
    for strength in factors.values():
        by_factor[f"{strength.factor:.4g}"] = by_factor.get(f"{strength.factor:.4g}", 0) + 1
    named = [
        f"{factor} ({layers(count)})"
        for factor, count in sorted(by_factor.items(), key=lambda item: float(item[0]))
    ]
    text = ", ".join(named[:4]) + (f" and {len(named) - 4} others" if len(named) > 4 else "")
    assumed = sum(strength.assumed for strength in factors.values())
    return text + (f"; assumed for {assumed}, the file does not say" if assumed else "")
