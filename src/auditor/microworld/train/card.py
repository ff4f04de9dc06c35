"""The last stage: what the weights score on held-out seeds, and contact sheets, for the model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.sampling import draw
from auditor.builtins.clip.model import load_clip
from auditor.microworld.render import draw_prompt
from auditor.policy import Sampler
from auditor.policy.concepts.micro import OBJECTS, PAPER_PROMPTS, PEOPLE
from auditor.policy.concepts.sets import concept_names, prompt_templates

SAMPLER = Sampler(scheduler="dpm-solver++", steps=15, guidance=4.0, size=32)
_IMAGES_EACH = 20
_GOOD = 0.85
_HELD_OUT = 9_000_000  # far from every seed of the recipe
_COLUMNS = 22


def measure(folder: Path) -> dict[str, object]:
    """Top-1 over all labels on rendered and on generated images, by domain; writes ``card.json`` and four
    sheets to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(open_checkpoint("micro"))

    def rendered(prompts: list[tuple[str, str]], seed: int) -> Tensor:
        pictures = [
            draw_prompt(name, template, np.random.default_rng([seed, row]))
            for row, (name, template) in enumerate(prompts)
        ]
        return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)

    def generated(prompts: list[tuple[str, str]], seed: int) -> Tensor:
        texts = [template.format(name) for name, template in prompts]
        return draw(model, texts, [seed + row for row in range(len(prompts))], SAMPLER)[0]

    scores: dict[str, object] = {}
    for kind, source in (("rendered", rendered), ("generated", generated)):
        for domain, names in (("people", tuple(PEOPLE)), ("objects", tuple(OBJECTS))):
            rates = _rates(source, names, PAPER_PROMPTS[domain])
            scores[f"{kind} {domain}"] = {
                "mean": round(sum(rates.values()) / len(rates), 4),
                "concepts": len(rates),
                f"at least {_GOOD}": sum(rate >= _GOOD for rate in rates.values()),
                "below": {name: rate for name, rate in rates.items() if rate < _GOOD},
            }
            prompts = [(name, template) for template in PAPER_PROMPTS[domain] for name in names]
            _sheet(source(prompts[: 5 * _COLUMNS * 2], _HELD_OUT), folder / f"{kind}-{domain}.png")
    (folder / "card.json").write_text(json.dumps(scores, indent=2) + "\n")
    return scores


def _rates(
    source: Callable[[list[tuple[str, str]], int], Tensor], names: tuple[str, ...], templates: tuple[str, ...]
) -> dict[str, float]:
    clip, labels = load_clip("micro"), concept_names("micro-all")
    features = clip.label_features(labels, prompt_templates("erasure-templates"))
    rates = {}
    for number, name in enumerate(names):
        prompts = [(name, template) for template in templates] * (_IMAGES_EACH // len(templates))
        best = (
            (clip.image_features(source(prompts, _HELD_OUT + 1000 * number)) @ features.T).argmax(1).tolist()
        )
        rates[name] = sum(labels[index] == name for index in best) / len(best)
    return rates


def _sheet(images: Tensor, path: Path) -> None:
    """Images in rows of 22, doubled in size."""
    rows = [torch.cat(list(row), dim=2) for row in images.split(_COLUMNS) if len(row) == _COLUMNS]
    pixels = torch.cat(rows, dim=1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
