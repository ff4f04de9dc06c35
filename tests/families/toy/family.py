"""The toy as a family: what its checkpoints are on disk, and how its parts work together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from auditor._files.json_files import parse_json
from auditor.errors import RefusedError
from auditor.families.family import Condition, Family, Noising, Parts, SamplingScheduler
from auditor.families.on_disk import (
    SAVED,
    AdapterNames,
    Component,
    Configs,
    Configurations,
    Schedules,
    Words,
)
from tests.families.toy.parts import (
    PATCH,
    TOKENS,
    ZOOM,
    Euler,
    Flow,
    ToyPixels,
    ToyTable,
    ToyTransformer,
    ToyWords,
)

_STEM = "diffusion_pytorch_model"


class Toy(Family):
    """Conditions are ``words`` (N, tokens, width) and ``pooled`` (N, width)."""

    name = "toy"
    title = "Toy"
    denoiser = "transformer"
    text = ("words",)
    decoder = "pixels"
    denoiser_title = "transformer"
    components = (
        Component("transformer", ("ToyTransformer",), _STEM, (*SAVED, "channels")),
        Component("words", ("ToyTable",), _STEM, (*SAVED, "words")),
        Component("pixels", ("ToyPixels",), _STEM, SAVED),
        Component("tokenizer", ("ToyTokenizer",)),
        Component("scheduler", ("ToyFlow",)),
    )
    configurations = Configurations(pipelines=("ToyPipeline",), libraries=("toy",), largest={"channels": 4})
    schedules = Schedules({"ToyFlow": {"shift": 1.0}}, ("shift",), ("velocity",))
    word_files = ("tokenizer/words.json",)
    adapters = AdapterNames(prefixes=(("transformer.", "transformer"), ("words.", "words")))
    known_tensors = re.compile(r"(transformer\.|words\.|pixels\.)?(patches|time|to_[qkv]|out|table|scale)\b")
    lora_targets = ("to_q", "to_k", "to_v")

    def build(self, component: str, config: Mapping[str, Any]) -> Any:
        kinds = {"transformer": ToyTransformer, "words": ToyTable, "pixels": ToyPixels}
        return kinds[component].from_config(dict(config))

    def read_words(self, source: str, read: Callable[[str], bytes | None]) -> ToyWords:
        content = read(self.word_files[0])
        words = [] if content is None else parse_json(self.word_files[0], content).get("words")
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise RefusedError(f"{source} has no words: {self.word_files[0]} lists none.")
        return ToyWords(tuple(words))

    def refuse_what_cannot_draw(
        self, source: str, words: Words, configs: Configs, schedule: Mapping[str, Any]
    ) -> None:
        if len(words.record) != configs["words"]["words"]:
            raise RefusedError(f"{source} lists {len(words.record)} words, and its table holds others.")
        if not schedule["shift"] > 0:
            raise RefusedError(f"{source} has a noise schedule with the shift {schedule['shift']}.")

    def token_ids(self, parts: Parts, prompts: Sequence[str]) -> Tensor:
        batch = parts["tokenizer"](
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        ids: Tensor = batch.input_ids
        return ids

    def condition(self, parts: Parts, prompts: Sequence[str]) -> Condition:
        table = parts["words"].table
        words = table(self.token_ids(parts, prompts).to(table.weight.device))
        return Condition({"words": words, "pooled": words.mean(1)})

    def noising(self, schedule: Mapping[str, Any]) -> Noising:
        return Flow()

    def sampling_scheduler(self, name: str, schedule: Mapping[str, Any]) -> SamplingScheduler:
        return Euler(schedule["shift"])

    def predict(self, denoiser: nn.Module, latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        predicted: Tensor = denoiser(latents, times, condition.rows["words"], condition.rows["pooled"])
        return predicted

    def latent_shape(self, parts: Parts, size: int) -> tuple[int, int, int]:
        return 3, size // ZOOM, size // ZOOM

    def smallest(self, parts: Parts) -> tuple[tuple[int, int, int], int]:
        return (3, PATCH, PATCH), PATCH * ZOOM

    def encode(self, parts: Parts, pixels: Tensor) -> tuple[Tensor, Tensor]:
        latents = nn.functional.avg_pool2d(pixels, ZOOM) * parts["pixels"].scale
        return latents, torch.zeros_like(latents)

    def decode(self, parts: Parts, latents: Tensor) -> Tensor:
        plain = latents / parts["pixels"].scale
        pixels: Tensor = nn.functional.interpolate(plain, scale_factor=ZOOM, mode="bilinear")
        return pixels

    def projections(self, denoiser: nn.Module) -> dict[str, Tensor]:
        return {}

    def reads_text(self, name: str) -> bool:
        return name.startswith(("to_k", "to_v"))

    def groups(self, name: str) -> tuple[str, ...]:
        return (name.split(".")[0],)

    def flops(
        self, configs: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]], size: int
    ) -> int:
        raise ValueError("what a toy costs is not known")
