"""LoRA files made by renaming, dropping, doubling and rescaling layers: each is merged exactly by an
arithmetic of its own here, or refused.

``python -m tests.checkpoint.wild.fuzz 10000`` counts how they end.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.adapters.table import read_adapter
from auditor._checkpoint.admit import declared_by
from auditor._files.safetensors_header import read_header
from auditor.errors import RefusedError

Layers = list[tuple[str, int, float | None]]
"""(layer, rank, alpha or None) of a sound file."""


class Subject:
    """The micro base's UNet, its layers, and files over it."""

    def __init__(self) -> None:
        self.base = open_checkpoint("micro")
        self.declared = declared_by(self.base)
        shapes = self.declared["unet"]
        self.layers = {
            name.removesuffix(".weight"): shape
            for name, shape in shapes.items()
            if name.endswith(".weight") and len(shape) in (2, 4)
        }

    def sound(self, rng: random.Random) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A sound file's tensors, and what they add to each weight (float64)."""
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        dialect = rng.choice(["peft", "diffusers", "kohya", "processor"])
        tensors: dict[str, Tensor] = {}
        added: dict[str, Tensor] = {}
        attention = [name for name in self.layers if name.endswith(("to_q", "to_k", "to_v"))]
        for layer in rng.sample(
            attention if dialect == "processor" else list(self.layers), rng.randint(1, 4)
        ):
            rows, columns, *kernel = self.layers[layer]
            rank, ones = rng.choice([1, 2, 4]), [1] * len(kernel)
            up = torch.randn(rows, rank, *ones, generator=generator)
            down = torch.randn(rank, columns, *kernel, generator=generator)
            alpha = rng.choice([None, 0.5, 4.0]) if dialect != "processor" else None
            tensors |= named(dialect, layer, up, down, alpha)
            made = up.double().flatten(1) @ down.double().flatten(1)
            added[layer] = made.reshape(self.layers[layer]) * (1.0 if alpha is None else alpha / rank)
        return tensors, added


def named(dialect: str, layer: str, up: Tensor, down: Tensor, alpha: float | None) -> dict[str, Tensor]:
    """The tensors of one layer as a program writes them."""
    flat = f"lora_unet_{layer.replace('.', '_')}"
    head, _, tail = layer.rpartition(".")
    start, names = {
        "peft": (f"unet.{layer}", ("lora_B.weight", "lora_A.weight")),
        "diffusers": (f"unet.{layer}", ("lora.up.weight", "lora.down.weight")),
        "kohya": (flat, ("lora_up.weight", "lora_down.weight")),
        "processor": (f"unet.{head}.processor.{tail}_lora", ("up.weight", "down.weight")),
    }[dialect]
    found = {f"{start}.{names[0]}": up, f"{start}.{names[1]}": down}
    return found if alpha is None else found | {f"{start}.alpha": torch.tensor(alpha)}


def spoil(tensors: dict[str, Tensor], rng: random.Random) -> tuple[dict[str, Tensor], str]:
    """The same file with one thing done to it, and what."""
    name = rng.choice(sorted(tensors))
    value, found = tensors[name], dict(tensors)
    what = rng.choice(
        ["nothing", "drop", "rename", "double", "rescale", "reshape", "prefix", "transpose", "number"]
    )
    if what == "drop":
        del found[name]
    elif what == "rename":
        del found[name]
        at = rng.randrange(len(name))
        found[name[:at] + rng.choice("aZ_.0") + name[at + 1 :]] = value
    elif what == "double":
        found[name.replace("lora", "lora_lora", 1) if "lora" in name else f"{name}.x"] = value.clone()
    elif what == "rescale":
        found[name] = value * rng.choice([2.0, -1.0, 0.5])
    elif what == "reshape":
        found[name] = value.flatten()
    elif what == "prefix":
        del found[name]
        found[f"{rng.choice(['unet.', 'base_model.model.', 'text_encoder.', 'x.'])}{name}"] = value
    elif what == "transpose" and value.dim() > 1:
        found[name] = value.transpose(0, 1).contiguous()
    elif what == "number":
        found[f"{name.rpartition('.')[0]}.alpha"] = torch.tensor(rng.choice([0.0, -1.0, 3.0]))
    return found, what


def expected(tensors: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What the file means, by pairing names here anew: None where a tensor of it cannot be paired or
    placed."""
    pairs: dict[str, dict[str, Tensor]] = {}
    flat = {layer.replace(".", "_"): layer for layer in before}
    ends = {
        "lora_B.weight": "up", "lora_A.weight": "down", "lora.up.weight": "up", "lora.down.weight": "down",
        "lora_up.weight": "up", "lora_down.weight": "down", "alpha": "alpha",
    }  # fmt: skip
    for name, value in tensors.items():
        end = next((end for end in ends if name.endswith(f".{end}")), None)
        layer, role = name.removesuffix(f".{end}"), ends.get(str(end), "")
        if ".processor." in name:
            head, _, tail = name.partition(".processor.")
            kind, _, rest = tail.partition("_lora.")
            layer, role = (
                f"{head}.{kind}",
                {"up.weight": "up", "down.weight": "down", "alpha": "alpha"}.get(rest, ""),
            )
        for prefix in ("base_model.model.", "unet."):
            layer = layer.removeprefix(prefix)
        layer = flat.get(layer.removeprefix("lora_unet_"), "") if layer.startswith("lora_unet_") else layer
        if not role or layer not in before or role in pairs.get(layer, {}):
            return None
        pairs.setdefault(layer, {})[role] = value
    found = {}
    for layer, own in pairs.items():
        if not {"up", "down"} <= own.keys():
            return None
        rank = own["down"].shape[0]
        factor = float(own["alpha"]) / rank if "alpha" in own else 1.0
        found[layer] = factor * (own["up"].double().flatten(1) @ own["down"].double().flatten(1))
    return found


def run(subject: Subject, seed: int, folder: Path) -> tuple[str, str]:
    """One file: what was done to it, and how it ended. Raises ``AssertionError`` where it was merged to
    anything else than it means."""
    rng = random.Random(seed)
    tensors, _ = subject.sound(rng)
    tensors, what = spoil(tensors, rng)
    path = folder / "x.safetensors"
    save_file(tensors, path)
    try:
        header = read_header(path)
        adapter = read_adapter(
            subject.base.family,
            "x",
            header.shapes,
            header.metadata,
            None,
            subject.declared,
            lambda name: float(tensors[name].flatten()[0]),
        )
    except RefusedError as error:
        assert "\n" not in str(error)
        return what, "refused"
    wanted = expected(tensors, {layer: torch.empty(0) for layer in subject.layers})
    assert wanted is not None, (seed, what, sorted(tensors))
    held = {each.layer.name: each for each in adapter.changes}
    assert held.keys() == wanted.keys(), (seed, what)
    for layer, value in wanted.items():
        zero = torch.zeros(subject.layers[layer], dtype=torch.float64)
        made = held[layer].weight(zero, lambda name: tensors[name].double())
        assert torch.allclose(made, value.reshape(made.shape), rtol=1e-9, atol=1e-12), (seed, what, layer)
    return what, "merged"


def main(count: int) -> None:
    """Run ``count`` files and print how they ended."""
    subject, ends = Subject(), Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            ends[run(subject, seed, Path(folder))] += 1
    for (what, end), number in sorted(ends.items()):
        print(f"{what:>10} {end:>8} {number}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
