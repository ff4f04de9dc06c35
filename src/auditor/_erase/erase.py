"""Makes a reference erased checkpoint: base, policy and eraser in; a diffusers folder, or only what changed,
out.

``OUT/``            the base's files with the changed UNet, or ``unet-changed.safetensors`` alone
(``save="delta"``) ``OUT/erasure.json``  where it comes from: eraser, options, concepts, base and its licence,
seed, versions, and the eraser's own notes ``OUT/erasure/``    what the eraser keeps: MACE's Gram matrices and
LoRAs, from which concepts can be added or taken away later

Until it is whole all of it lies in ``.OUT.part`` beside it, where the same command goes on after an
interruption. What the eraser keeps says of itself what it was made from, so that a command with other
settings takes over what still fits.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auditor._checkpoint.admit import DELTA_BASE
from auditor._checkpoint.folder import LICENCES
from auditor._checkpoint.inspection import licence_of
from auditor._files.bundled import bundled_policy
from auditor._files.digest import seed_of
from auditor._files.documents import parse_options, read_mapping
from auditor._files.whole_files import room_on_disk, write_whole
from auditor._process.machine import versions
from auditor._process.signals import stoppable
from auditor._process.watchdog import WATCHDOG
from auditor.errors import AuditorError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import find_plugin, make_plugin
from auditor.plugin.contracts import Eraser, Erasure
from auditor.policy import Policy, load_policy

if TYPE_CHECKING:
    from torch import nn

    from auditor._checkpoint import Checkpoint
    from auditor._diffusion.model import DiffusionModel

Save = Literal["full", "delta"]
_MARK = "auditor-erasure"
_LITTLE_WORK = 60  # seconds: so much is thrown away where it turned out that something cannot be erased


@dataclass(frozen=True)
class _Order:
    """One erasure as it was asked for, with everything it needs in memory."""

    opened: Checkpoint
    model: DiffusionModel
    policy: Policy
    name: str
    plugin: Eraser
    seed: int
    reuse: Path | None

    def erasure(
        self, folder: Path | None, on_step: Callable[[str, int, int], None] = lambda stage, step, steps: None
    ) -> Erasure:
        """What the eraser is given."""
        seed = seed_of(self.seed, self.name)
        return Erasure(self.model, self.policy.erase, self.policy.retain, seed, on_step, folder, self.reuse)

    def provenance(self) -> dict[str, Any]:
        """Where the result comes from, as far as it is known before the work."""
        record = find_plugin("erasers", self.name)
        return {
            "eraser": self.name,
            "plugin": f"{record.distribution} {record.version}",
            "parts": [part.origin for part in self.plugin.parts()],
            "options": self.plugin.options.model_dump(mode="json"),
            "erased": [concept.model_dump(mode="json") for concept in self.policy.erase],
            "retained": [concept.name for concept in self.policy.retain],
            "base": {
                "source": self.opened.source,
                "digest": self.opened.digest,
                "licence": licence_of(self.opened.folder),
            },
            "policy": self.policy.digest(),
            "seed": self.seed,
            "reuse": None if self.reuse is None else str(self.reuse),
            "versions": versions(),
        }


def plan_erasure(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    *,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    reuse: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """What :func:`erase` would do, by the eraser's own account, and nothing of it done. Raises as it
    would."""
    if out is not None:
        _new_folder(out)
    order = _order(base, policy, eraser, options, seed, reuse)
    found: dict[str, Any] = door.call(order.plugin, order.plugin.plan, order.erasure(None))
    return found


def erase(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    out: Path,
    *,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    save: Save = "full",
    reuse: Path | None = None,
    on_step: Callable[[str, int, int], None] = lambda stage, step, steps: None,
) -> Path:
    """Erase the policy's concepts from ``base`` and write the result to ``out``.

    ``base`` is what a checkpoint is called, or one that is in memory (as float32): then its UNet is changed
    in place, and is the result. Only the UNet changes; every other file is copied from the base. ``reuse`` is
    an earlier result whose parts the eraser may take. Raises :class:`UsageError` where ``out`` is not empty
    or something cannot be erased; then nothing is written.
    """
    out = _new_folder(out)
    order = _order(base, policy, eraser, options, seed, reuse)
    # says what cannot be done, before anything is written
    door.call(order.plugin, order.plugin.plan, order.erasure(None))
    part = out.with_name(f".{out.name}.part")
    with room_on_disk(out), _only_one(part, eraser) as begun:
        began = time.monotonic()
        before = _tensor_digests(order.model.denoiser)
        # hours at true size, with a person at the terminal
        with (
            stoppable(),
            WATCHDOG.waiting(None, lambda sentence: None),
        ):
            try:
                notes = door.call(order.plugin, order.plugin.erase, order.erasure(part / "erasure", on_step))
            except UsageError:
                if begun and time.monotonic() - began < _LITTLE_WORK:
                    shutil.rmtree(part)
                raise
        if not all(bool(parameter.isfinite().all()) for parameter in order.model.denoiser.parameters()):
            raise AuditorError(
                f"The eraser '{eraser}' left weights that are not finite: nothing was written. Lower its "
                "learning rate."
            )
        after = _tensor_digests(order.model.denoiser)
        changed = sorted(name for name, digest in after.items() if before.get(name) != digest)
        if not changed:
            raise AuditorError(f"The eraser '{eraser}' changed nothing, so {out.name} was not written.")
        record = order.provenance() | {
            "seconds": round(time.monotonic() - began, 1),
            "changed": changed,
            "notes": notes,
        }
        _write(order, part, save, changed, record)
        try:
            if out.exists():
                out.rmdir()
            part.rename(out)
        except OSError as error:
            raise AuditorError(
                f"{out} is no longer empty; the result is whole in {part}: move it from there."
            ) from error
        (out / _MARK).unlink(missing_ok=True)
    return out


def _new_folder(out: Path) -> Path:
    """``out`` without links in it. Raises :class:`UsageError` where it cannot become the result."""
    found = out.resolve()
    if found.exists() and (not found.is_dir() or any(found.iterdir())):
        raise UsageError(f"{out} is not empty; give a new folder with --out.")
    if not found.name or found.is_mount():
        raise UsageError(
            f"{out} cannot be replaced by the result; give a new folder inside of it with --out."
        )
    return found


def _order(
    base: str | tuple[Checkpoint, DiffusionModel],
    policy: Policy | Path | str,
    eraser: str,
    options: dict[str, Any] | None,
    seed: int,
    reuse: Path | None,
) -> _Order:
    from auditor._checkpoint import open_checkpoint
    from auditor._checkpoint.load import load_model

    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    plugin: Eraser = make_plugin("erasers", eraser, options or {})
    if reuse is not None and not plugin.reuses:
        raise UsageError(f"The eraser '{eraser}' takes nothing from an earlier result; leave out --reuse.")
    if reuse is not None and not (reuse / "erasure").is_dir():
        raise UsageError(
            f"{reuse} holds nothing to reuse: give the folder that an earlier 'auditor erase' wrote, with "
            "its erasure/ in it."
        )
    if isinstance(base, str):
        opened = open_checkpoint(base)
        base = (opened, load_model(opened, "float32"))
    return _Order(*base, policy, eraser, plugin, seed, None if reuse is None else reuse / "erasure")


@contextmanager
def _only_one(part: Path, eraser: str) -> Iterator[bool]:
    """Hold ``part`` for one erasure at a time; what another eraser left in it is removed. Yields whether it
    is new.

    Raises :class:`UsageError` where it is somebody else's, or another process works in it.
    """
    mark = part / _MARK
    if part.exists() and (part.is_symlink() or not mark.is_file()):
        raise UsageError(f"{part} is in the way and no part of an erasure; move it, or give another --out.")
    begun = not part.exists()
    part.mkdir(parents=True, exist_ok=True)
    with mark.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"Another erasure is at work in {part}; wait for it, or give another --out."
            ) from error
        file.seek(0)
        if file.read() not in ("", eraser):
            shutil.rmtree(part / "erasure", ignore_errors=True)
        file.truncate(0)
        file.write(eraser)
        file.flush()
        (part / "erasure").mkdir(exist_ok=True)
        yield begun


def _tensor_digests(denoiser: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy().data).hexdigest()
        for name, value in denoiser.state_dict().items()
    }


def _write(order: _Order, part: Path, save: Save, changed: list[str], provenance: dict[str, Any]) -> None:
    from safetensors.torch import save as to_bytes

    for path in part.iterdir():  # of an earlier attempt
        if path.name not in (_MARK, "erasure"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder, denoiser = order.opened.folder, order.model.family.denoiser
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.split(".")[0].upper() in LICENCES:
            shutil.copyfile(file, part / file.name)
    if save == "full":
        for name in order.opened.files:
            if not name.startswith(f"{denoiser}/"):
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, part / name)
        order.model.denoiser.save_pretrained(part / denoiser, safe_serialization=True)
    else:
        state = order.model.denoiser.state_dict()
        tensors = {name: state[name].detach().cpu().contiguous() for name in changed}
        write_whole(
            part / f"{denoiser}-changed.safetensors",
            to_bytes(tensors, {"format": "pt", DELTA_BASE: order.opened.digest}),
        )
    write_whole(part / "README.md", _card(order, provenance).encode())
    write_whole(part / "erasure.json", (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode())
    if not any((part / "erasure").iterdir()):
        (part / "erasure").rmdir()


def _card(order: _Order, provenance: dict[str, Any]) -> str:
    """A model card with the base's licence, and no promise."""
    licence = provenance["base"]["licence"]
    front = [
        "---",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
    ]
    names = ", ".join(concept.name for concept in order.policy.erase)
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"`{order.opened.source}` after `auditor erase --eraser {order.name}` of: {names}.",
            "",
            "How it was made is in `erasure.json`. That the concepts are gone, and stay gone when the "
            "checkpoint is fine-tuned, is not",
            "said by this: `auditor audit` measures it.",
            "",
        ]
    )


def read_options(file: str | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """An eraser's options from a YAML file (or a bundled one, by name) and ``KEY=VALUE`` pairs, which win."""
    options: dict[str, Any] = {}
    if file is not None:
        path = Path(file)
        path = path if path.exists() else bundled_policy(f"erasers/{file}") or path
        options |= read_mapping(path)
    return options | parse_options(pairs)
