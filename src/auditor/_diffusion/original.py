"""A checkpoint as it was loaded: gives copies to plugins to change, and says what they changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from auditor._diffusion.latents import unequal
from auditor._diffusion.model import DiffusionModel, digest_of_weights
from auditor.errors import PluginError
from auditor.families.family import Family


@dataclass(frozen=True)
class Change:
    """Tensors that differ from the original or were added, by part and name, and how far those moved that
    were there before.

    ``relative`` is the L2 norm of their difference over that of the parts hit. What was added has no share in
    it: alone it says nothing of what the model draws.
    """

    tensors: dict[str, Tensor]
    relative: float


class Original:
    """A model that no plugin ever holds."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        self._squares: dict[str, float] = {}
        self._digests: dict[str, str] = {}

    def fresh(self) -> DiffusionModel:
        """A copy to be changed by a plugin: weights, tokenizer, and the text states that were computed so
        far."""
        return self.copy(self._model.parts)

    def copy(self, parts: Iterable[str]) -> DiffusionModel:
        """A copy that has ``parts`` of its own and shares the rest: for us, never for a plugin."""
        model = self._model
        own = {name: copy.deepcopy(model.parts[name]) for name in set(parts)}
        return replace(
            model,
            parts=model.parts | own,
            scheduler_config=dict(model.scheduler_config),
            _conditions=dict(model._conditions),
        )

    def digest_of(self, model: DiffusionModel) -> list[str]:
        """The digest of every part's weights, in the family's order.

        A part that ``model`` shares with this one is changed by nobody: its digest is computed once.
        """
        found = []
        for name, part in model.modules.items():
            if part is not self._model.parts[name]:
                found.append(digest_of_weights(part))
                continue
            if name not in self._digests:
                self._digests[name] = digest_of_weights(part)
            found.append(self._digests[name])
        return found

    def change(
        self, changed: DiffusionModel, allowed: Sequence[str], who: str, *, may_be_nothing: bool = False
    ) -> Change:
        """What ``changed`` differs in, made ready to be sampled.

        ``allowed`` holds patterns of ``part.tensor`` names. Raises :class:`PluginError`, naming ``who``, for
        a change outside of them, for a tensor that is gone or of another shape or type, for anything that is
        no tensor (hooks, tokenizer, scheduler, precision), and where nothing differs.
        """
        ours, family = self._model, self._model.family
        settings = ("family", "scheduler_config", "precision", "digest")
        tokenizers = ours.parts.keys() - set(family.weights)
        if (
            any(getattr(ours, name) != getattr(changed, name) for name in settings)
            or ours.parts.keys() != changed.parts.keys()
            or any(len(ours.parts[name]) != len(changed.parts[name]) for name in tokenizers)
        ):
            raise PluginError(
                f"{who} changed the model's tokenizer, scheduler or precision, which no update may."
            )
        found, squares = dict[str, Tensor](), 0.0
        sizes = dict[str, float]()
        for part in family.weights:
            before, after = ours.parts[part], changed.parts[part]
            if before is after:
                continue
            if left := _left_behind(before, after, may_adapt=part == family.denoiser):
                raise PluginError(
                    f"{who} left {left} on the {part}; a model state is its weights and nothing else."
                )
            differences = _differences(before, after, who)
            found |= {f"{part}.{name}": tensor for name, tensor, _ in differences}
            squares += sum(square for *_, square in differences)
            if differences:
                if part not in self._squares:
                    self._squares[part] = sum(_squares(before.state_dict().values()))
                sizes[part] = self._squares[part]
        outside = next(
            (name for name in found if not any(allows(one, name, family) for one in allowed)), None
        )
        if outside is not None:
            raise PluginError(f"{who} changed {outside}; it says that it changes {', '.join(allowed)}.")
        if not found and not may_be_nothing:
            raise PluginError(f"{who} changed no weight: images after it would be those of the erased model.")
        changed._conditions.clear()
        if not sizes.keys() & set(family.text):
            changed._conditions.update(ours._conditions)
        for module in changed.modules.values():
            module.eval()
        return Change(found, (squares / sum(sizes.values())) ** 0.5 if found else 0.0)


def allows(pattern: str, name: str, family: Family) -> bool:
    """Is the tensor ``name`` (``part.tensor``) within ``pattern``? ``denoiser.`` stands for the family's own
    name of that part. The autoencoder is meant only where it is named: a pattern for everything is one for
    denoiser and text encoders."""
    if pattern.startswith("denoiser."):
        pattern = family.denoiser + pattern.removeprefix("denoiser")
    decoder = f"{family.decoder}."
    return fnmatchcase(name, pattern) and (pattern.startswith(decoder) or not name.startswith(decoder))


@torch.no_grad()
def _differences(before: nn.Module, after: nn.Module, who: str) -> list[tuple[str, Tensor, float]]:
    """(name, tensor, squared difference) of everything that is not the same bit for bit. peft calls a
    wrapped weight ``base_layer``."""
    old, left = before.state_dict(), set(before.state_dict())
    added, pairs = set[str](), dict[str, tuple[Tensor, Tensor]]()
    own = after.state_dict()
    for name, value in own.items():
        plain = name.replace(".base_layer", "")
        known = old.get(plain)
        left.discard(plain)
        if known is None:
            added.add(name)
        elif known.shape != value.shape or known.dtype != value.dtype:
            raise PluginError(
                f"{who} changed the shape or type of {plain}: {tuple(known.shape)} → {tuple(value.shape)}, "
                f"{value.dtype}."
            )
        else:
            pairs[name] = value, known
    if left:
        raise PluginError(f"{who} took away {min(left)}.")
    differ = unequal([value for value, _ in pairs.values()], [known for _, known in pairs.values()])
    changed = [name for name, other in zip(pairs, differ, strict=True) if other]
    moved = dict(
        zip(changed, _squares(pairs[name][0].double() - pairs[name][1] for name in changed), strict=True)
    )
    return [
        (name, value, moved.get(name, 0.0)) for name, value in own.items() if name in added or name in moved
    ]


def _squares(tensors: Iterable[Tensor]) -> list[float]:
    """The sum of each tensor's squares, in float64; a GPU is waited for once."""
    found = [each.double().square().sum() for each in tensors]
    return torch.stack(found).tolist() if found else []


_HARMLESS = {
    "peft_config",
    "_hf_peft_config_loaded",
    "lora_scale",
    "_safe_fusing",
    "_gradient_checkpointing_func",
}
"""Attributes of modules that peft and diffusers add themselves."""


def _left_behind(before: nn.Module, after: nn.Module, *, may_adapt: bool) -> str | None:
    """What changes images and is no tensor, so that putting the weights back would not bring it back."""
    if _hooks(after) > _hooks(before):
        return "hooks"
    if [type(each) for each in _processors(after)] != [type(each) for each in _processors(before)]:
        return "other attention"
    known = dict(before.named_modules())
    for name, module in after.named_modules():
        plain = known.get(name.replace(".base_layer", ""))
        if plain is not None and type(plain) is type(module):
            extra = set(vars(module)) - set(vars(plain)) - _HARMLESS
            if extra:
                return f"an attribute ({min(extra)})"
    return _odd_adapter(after, may_adapt=may_adapt)


def _odd_adapter(module: nn.Module, *, may_adapt: bool) -> str | None:
    """An adapter that is kept is put back as ``add_adapter`` lays it on: one, switched on, at its own
    scale."""
    configs = getattr(module, "peft_config", {})
    if configs and (not may_adapt or len(configs) > 1):
        return f"{len(configs)} adapters" if may_adapt else "an adapter"
    for layer in module.modules():
        if not isinstance(layer, LoraLayer):
            continue
        for name, config in configs.items():
            rank = layer.r.get(name, config.r)
            alpha = config.alpha_pattern.get(name, config.lora_alpha)
            usual = alpha / rank**0.5 if config.use_rslora else alpha / rank
            if (
                layer.disable_adapters
                or layer.merged
                or layer.active_adapters != [name]
                or abs(layer.scaling.get(name, 0) - usual) > 1e-9
            ):
                return "an adapter that is switched off, merged or rescaled"
    return None


def _processors(module: nn.Module) -> list[object]:
    return list(getattr(module, "attn_processors", {}).values())


def _hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())
