"""CLIP through open_clip: normalised features of texts and images, with label embeddings averaged over
templates."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from torch import Tensor
from torch.nn import functional

from auditor._diffusion.model import digest_of_weights
from auditor._files.bundled import micro_world
from auditor._process.device import best_device
from auditor.builtins.clip.options import FOLDER, QUICK
from auditor.errors import UsageError

_BATCH = 256


class Clip:
    """An open_clip model in evaluation mode, on the device that models run on."""

    def __init__(self, name: str, pretrained: str | None = None) -> None:
        """``name``: ``micro``, ``local-dir:PATH`` or a name that open_clip knows (then ``pretrained`` is
        its tag or file)."""
        source = f"{FOLDER}{micro_world() / 'clip'}" if name == "micro" else name
        _refuse_other_activation(name, pretrained)
        if source.startswith(FOLDER):
            _refuse_code(Path(source.removeprefix(FOLDER)))
        try:
            self._model = (
                open_clip.create_model(source, pretrained=pretrained, require_pretrained=True)
                .eval()
                .requires_grad_(False)
            )
            self._tokenizer = open_clip.get_tokenizer(source)
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"open_clip cannot load '{name}': {str(error).splitlines()[0]}") from error
        self._device = best_device()
        self._model.to(self._device)
        visual = self._model.visual
        self._size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        self._mean = torch.tensor(visual.image_mean).view(3, 1, 1)
        self._std = torch.tensor(visual.image_std).view(3, 1, 1)

    @property
    def scale(self) -> float:
        """The factor on cosines before the softmax."""
        return float(self._model.logit_scale.exp())

    @property
    def digest(self) -> str:
        """sha256 of all tensors."""
        return digest_of_weights(self._model)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of shape (N, width)."""
        parts = [
            self._tokenizer(list(texts[start : start + _BATCH])) for start in range(0, len(texts), _BATCH)
        ]
        return torch.cat(
            [self._model.encode_text(part.to(self._device), normalize=True).cpu() for part in parts]
        )

    @torch.no_grad()
    def label_features(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """One unit vector a label: the mean over ``templates``, as in Radford et al. 2021, section 3.1.4."""
        texts = [template.format(label) for label in labels for template in templates]
        means = self.text_features(texts).view(len(labels), len(templates), -1).mean(1)
        return functional.normalize(means, dim=1)

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Unit vectors of ``images`` (uint8, (N, 3, H, W)), resized to the model's size."""
        features = []
        for part in images.split(_BATCH):
            pixels = part.float() / 255
            if pixels.shape[-1] != self._size or pixels.shape[-2] != self._size:
                pixels = functional.interpolate(
                    pixels, size=(self._size, self._size), mode="bicubic", antialias=True
                ).clamp(0, 1)
            pixels = (pixels - self._mean) / self._std
            features.append(self._model.encode_image(pixels.to(self._device), normalize=True).cpu())
        return torch.cat(features)


_TEXT = (
    *("context_length", "vocab_size", "width", "heads", "layers", "ls_init_value", "embed_cls", "pad_id"),
    *(
        "eos_id",
        "no_causal_mask",
        "final_ln_after_pool",
        "pool_type",
        "proj_bias",
        "output_tokens",
        "mlp_ratio",
    ),
    *("proj_type", "act_kwargs", "norm_kwargs", "hf_tokenizer_name"),
)
"""What open_clip may be told of a text side that it builds itself."""
_ELSEWHERE = ("timm_model_name", "hf_model_name")


def _refuse_code(folder: Path) -> None:
    """Refuse a folder with a CLIP that leads open_clip or transformers to code, or to another repository:
    what a tokenizer is made with is handed on, ``trust_remote_code`` with it."""
    config = _json(folder / "open_clip_config.json").get("model_cfg", {})
    text, vision = config.get("text_cfg", {}), config.get("vision_cfg", {})
    odd = next((key for key in text if key not in _TEXT), None)
    odd = odd or next((key for key in vision if key in _ELSEWHERE), None)
    if odd is not None:
        raise UsageError(
            f"{folder}: open_clip_config.json has the key '{odd}', which could load code or other weights."
        )
    for file in sorted(folder.iterdir()):
        if file.suffix == ".py" or (
            file.suffix == ".json" and "auto_map" in file.read_text(encoding="utf-8")
        ):
            raise UsageError(f"{folder}: {file.name} is code of its own, or asks for it; none is ever run.")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: it is missing, or no JSON.") from error
    return value if isinstance(value, dict) else {}


def _refuse_other_activation(name: str, pretrained: str | None) -> None:
    """Refuse weights that were trained with another activation than the architecture called ``name`` is built
    with: open_clip loads them with a warning alone, and what they see is another model's."""
    trained = get_pretrained_cfg(name, pretrained) if pretrained else None
    if not trained:
        return
    quick = bool(trained.get("quick_gelu"))
    built = bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))
    if quick != built and (quick or name.endswith(QUICK)):
        how = {True: "with", False: "without"}
        right = name + QUICK if quick else name.removesuffix(QUICK)
        raise UsageError(
            f"open_clip's weights '{pretrained}' were trained {how[quick]} QuickGELU, and '{name}' is built "
            f"{how[built]} it; name '{right}' where open_clip knows that."
        )


@functools.lru_cache(maxsize=2)
def load_clip(name: str, pretrained: str | None = None) -> Clip:
    """The model called ``name``, loaded once."""
    return Clip(name, pretrained)
