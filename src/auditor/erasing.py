"""Makes a reference erased checkpoint: base, policy and eraser in, a diffusers folder out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from auditor.digest import seed_of
from auditor.documents import parse_options, read_mapping
from auditor.errors import AuditorError, UsageError
from auditor.files import room_on_disk, write_whole
from auditor.plugin import door
from auditor.plugin.contracts import Eraser, Erasure
from auditor.plugin.loader import find_plugin, make_plugin
from auditor.plugin.watchdog import WATCHDOG
from auditor.policy import Policy, load_policy
from auditor.sets import bundled_policy


def erase(
    base: str,
    policy: Policy | Path | str,
    eraser: str,
    out: Path,
    *,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    on_step: Callable[[str, int, int], None] = lambda stage, step, steps: None,
) -> Path:
    """Erase the policy's concepts from ``base`` and write the result to ``out``, a diffusers folder with ``erasure.json``.

    Only the UNet changes; every other file is copied from the base. Raises :class:`UsageError` where ``out`` is not empty.
    """
    from auditor.checkpoint import open_checkpoint
    from auditor.checkpoint.load import load_model

    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; give a new folder with --out.")
    plugin: Eraser = make_plugin("erasers", eraser, options or {})
    record = find_plugin("erasers", eraser)
    opened = open_checkpoint(base)
    model = load_model(opened, "float32")
    began = time.monotonic()
    erasure = Erasure(model, policy.erase, policy.retain, seed_of(seed, eraser), on_step)
    with WATCHDOG.waiting(None, lambda sentence: None):  # hours at true size, with a person at the terminal
        notes = door.call(plugin, plugin.erase, erasure)
    if not all(bool(parameter.isfinite().all()) for parameter in model.unet.parameters()):
        raise AuditorError(f"The eraser '{eraser}' left weights that are not finite; nothing was written. Lower its learning rate.")
    part = out.with_name(f".{out.name}.part")
    provenance = {
        "eraser": eraser,
        "plugin": f"{record.distribution} {record.version}",
        "options": plugin.options.model_dump(mode="json"),
        "erased": [concept.model_dump(mode="json") for concept in policy.erase],
        "base": {"source": base, "digest": opened.digest},
        "policy": policy.digest(),
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "versions": {name: version(name) for name in ("auditor", "torch", "diffusers", "peft")},
        "notes": notes,
    }
    with room_on_disk(out):
        shutil.rmtree(part, ignore_errors=True)
        for name in opened.files:
            if not name.startswith("unet/"):
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(opened.folder / name, part / name)
        model.unet.save_pretrained(part / "unet", safe_serialization=True)
        write_whole(part / "erasure.json", (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode())
    if out.exists():
        out.rmdir()
    part.rename(out)
    return out


def read_options(file: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """An eraser's options from a YAML file (or a bundled one, by name) and ``KEY=VALUE`` pairs, which win."""
    options: dict[str, Any] = {}
    if file is not None:
        path = Path(file)
        path = path if path.exists() else bundled_policy(f"erasers/{file}") or path
        options |= read_mapping(path)
    return options | parse_options(pairs)
