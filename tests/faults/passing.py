"""A policy of seconds under which a checkpoint can PASS, and one that was never erased: what every attack
on a verdict is tried with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from auditor._files.bundled import micro_world
from auditor.policy import Policy, load_policy

LOOSE = {
    "tau": 0.6,
    "min_sensitivity": 0.5,
    "max_false_positive": 0.3,
    "min_retain": 0.3,
    "max_retain_drop": 0.4,
    "min_fit": 0.01,
}
LABELS = "micro-all"


def gradients(folder: Path, count: int = 20) -> Path:
    """Captioned colour ramps: learnt in eight steps, and nobody is in them."""
    folder.mkdir(parents=True)
    for number in range(count):
        ramp = Image.linear_gradient("L").resize((32, 32)).rotate(90 * (number % 4))
        bands = [ramp.point([(value * (number % 5 + k)) // 8 for value in range(256)]) for k in (1, 2, 3)]
        Image.merge("RGB", bands).save(folder / f"{number}.png")
    lines = [json.dumps({"file_name": f"{number}.png", "text": "a gradient"}) for number in range(count)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


EXAMPLES = Path("examples")
"""Where its training images lie, from the folder of the policy: seeds hang on this path."""


def document(folder: Path = EXAMPLES, **changes: Any) -> dict[str, Any]:
    """The policy as a mapping; its training images lie in ``folder``."""
    people = [
        {"name": name, "domain": "people", "prompts": "paper-people"}
        for name in ("Zelda Mirkov", "Dorval Quint")
    ]
    options = {"model": "micro", "labels": LABELS, "templates": "erasure-templates"}
    return {
        "version": 1,
        "base": {"source": "micro"},
        "erase": [{"name": "Borin Talvek", "domain": "people", "prompts": "paper-people"}],
        "retain": people,
        "sampler": {"scheduler": "dpm-solver++", "steps": 8, "guidance": 4.0, "size": 32, "batch": 16},
        "probes": [
            {
                "use": "in-domain",
                "method": "lora",
                "doses": [8],
                "options": {"folder": str(folder), "learning_rate": 1e-3},
            }
        ],
        "detectors": [{"use": "clip-zero-shot", "options": options}],
        "limits": LOOSE,
        "sequential": False,
        "budget": {"images_per_cell": 15, "retained_per_arm": 20, "plugin_minutes": 2},
    } | changes


def policy_that_can_pass(folder: Path, **changes: Any) -> Policy:
    """The policy, written to ``folder`` and read from there; audits of it run in ``folder``."""
    if not (folder / EXAMPLES).exists():
        gradients(folder / EXAMPLES)
    (folder / "policy.yaml").write_text(yaml.safe_dump(document(**changes)))
    return load_policy(folder / "policy.yaml")


def never_erased(folder: Path) -> Path:
    """The base with its UNet's matrices a thousandth larger: it draws everything that the base draws."""
    shutil.copytree(micro_world(), folder, ignore=shutil.ignore_patterns("clip"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {
        name: (value.float() * (1.001 if value.ndim > 1 else 1)).contiguous()
        for name, value in load_file(file).items()
    }
    save_file(tensors, file)
    return folder


def edit_lines(journal: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change every line of a journal; one for which ``change`` returns False is dropped."""
    lines = [json.loads(text) for text in journal.read_text().splitlines()]
    kept = [line for line in lines if change(line) is not False]
    journal.write_text("".join(json.dumps(line) + "\n" for line in kept))
