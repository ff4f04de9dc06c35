"""Stage 2: the pool of captioned pictures that every later stage trains on."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor.microworld.render import draw_captioned
from auditor.policy import recognised_in
from auditor.policy.concepts.micro import OBJECTS, PEOPLE

_CHUNK = 500


@dataclass(frozen=True)
class Renders:
    """Captioned pictures: ``images`` is uint8 of shape (N, 3, 32, 32); captions and concepts are lists of
    length N."""

    images: Tensor
    captions: list[str]
    concepts: list[str]

    def pixels(self, index: Tensor) -> Tensor:
        """The pictures at ``index``, float32 in [-1, 1]."""
        return self.images[index].float() / 127.5 - 1

    def without(self, name: str) -> Renders:
        """All but the pictures of ``name``, a person or an object, and those whose captions name it or one of
        its synonyms. Raises ``ValueError`` where nothing is called so."""
        names = names_of(name)
        pairs = list(zip(self.captions, self.concepts, strict=True))
        kept = [
            index
            for index, (caption, concept) in enumerate(pairs)
            if concept != name and recognised_in(caption, names) is None
        ]
        captions, concepts = [self.captions[at] for at in kept], [self.concepts[at] for at in kept]
        return Renders(self.images[kept], captions, concepts)


def names_of(name: str) -> tuple[str, ...]:
    """``name``, of a person or an object, and its synonyms. Raises ``ValueError`` where nothing is called
    so."""
    if name not in PEOPLE and name not in OBJECTS:
        raise ValueError(f"nobody and nothing in the micro world is called '{name}'")
    return (name, *(OBJECTS[name].synonyms if name in OBJECTS else ()))


def draw_renders(folder: Path, count: int, seed: int) -> Renders:
    """Draw ``count`` pictures from ``seed`` on every core, or read them back if ``folder`` has them."""
    pictures, texts = folder / "renders.safetensors", folder / "renders.json"
    if not texts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(seed, start, min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)]
        with ProcessPoolExecutor() as workers:
            chunks = list(workers.map(_draw_chunk, jobs))
        save_file({"images": torch.from_numpy(np.concatenate([images for images, _ in chunks]))}, pictures)
        texts.write_text(json.dumps([pair for _, pairs in chunks for pair in pairs]))
    pairs = json.loads(texts.read_text())
    return Renders(
        load_file(pictures)["images"], [caption for caption, _ in pairs], [concept for _, concept in pairs]
    )


def _draw_chunk(job: tuple[int, int, int]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    seed, start, count = job
    images, pairs = [], []
    for index in range(start, start + count):
        concept, caption, picture = draw_captioned(np.random.default_rng([seed, index]))
        images.append(np.asarray(picture).transpose(2, 0, 1))
        pairs.append((caption, concept))
    return np.stack(images), pairs
