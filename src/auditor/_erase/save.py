"""Writes what an erasure made: a whole diffusers folder, or the tensors that changed, with its provenance."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auditor._checkpoint.admit import DELTA_BASE
from auditor._checkpoint.folder import LICENCES, schedule_path
from auditor._diffusion.model import configuration_of
from auditor._diffusion.original import allows
from auditor._erase.job import ErasureJob
from auditor._files.json_files import read_json
from auditor._files.safetensors_header import read_header
from auditor._files.whole_files import write_whole
from auditor.errors import AuditorError, PluginError, UsageError
from auditor.plugin import _door as door

if TYPE_CHECKING:
    from auditor._checkpoint import Checkpoint
    from auditor._diffusion.model import DiffusionModel
    from auditor.families.family import Family

Save = Literal["full", "delta"]
MARK = "auditor-erasure"
"""The file that says whose an unfinished folder is."""


def changed_file(family: Family) -> str:
    """What the file with the tensors that an erasure changed is called."""
    return f"{family.denoiser}-changed.safetensors"


def refuse_delta(job: ErasureJob) -> None:
    """Raise :class:`UsageError` where changed tensors cannot say what the result is: they are the denoiser's,
    over a diffusers folder."""
    own = tuple(f"{name}." for name in ("denoiser", job.model.family.denoiser))
    if job.opened.base is not None:
        raise UsageError(f"{job.opened.source} is a {job.opened.form}; save the result whole (--save full).")
    if job.opened.chosen:
        raise UsageError(
            f"{job.opened.source} is read as it was chosen; save the result whole (--save full)."
        )
    if not all(pattern.startswith(own) for pattern in job.changes):
        raise UsageError(
            f"The eraser '{job.name}' changes {', '.join(job.changes)}; save the result whole (--save full)."
        )


@dataclass(frozen=True)
class Before:
    """A model before it is erased from: sha256 of every tensor by part and name (``unet.conv_in.bias``), and
    how each part computes."""

    tensors: dict[str, str]
    configurations: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, model: DiffusionModel) -> Before:
        """The model as it is now."""
        tensors = {
            f"{part}.{name}": hashlib.sha256(value.detach().cpu().contiguous().numpy().data).hexdigest()
            for part, module in model.modules.items()
            for name, value in module.state_dict().items()
        }
        return cls(tensors, {part: configuration_of(module) for part, module in model.modules.items()})


def changed_tensors(job: ErasureJob, before: Before) -> list[str]:
    """The tensors that an erasure changed.

    Raises :class:`AuditorError` where something is not finite, and :class:`PluginError` for what its eraser
    may not change: tensors outside of its patterns, configurations, which tensors there are.
    """
    who, family, now = door.title(job.plugin), job.model.family, Before.of(job.model)
    if before.tensors.keys() != now.tensors.keys():
        other = min(before.tensors.keys() ^ now.tensors.keys())
        raise PluginError(
            f"{who} left a model with other tensors than before ({other}); an erasure is other values of the "
            "same. Nothing was written."
        )
    if before.configurations != now.configurations:
        raise PluginError(
            f"{who} changed a configuration, which is no part of what is saved. Nothing was written."
        )
    parts = job.model.modules.values()
    if not all(bool(value.isfinite().all()) for part in parts for value in part.parameters()):
        raise AuditorError(
            f"The eraser '{job.name}' left weights that are not finite: nothing was written. Lower its "
            "learning rate."
        )
    changed = sorted(name for name, digest in before.tensors.items() if now.tensors[name] != digest)
    outside = [name for name in changed if not any(allows(one, name, family) for one in job.changes)]
    if outside:
        raise PluginError(
            f"{who} changed {outside[0]}; it says that it changes {', '.join(job.changes)}. Nothing was "
            "written."
        )
    return changed


def write_result(
    job: ErasureJob, part: Path, save: Save, changed: list[str], provenance: dict[str, Any]
) -> None:
    """Write the result to ``part``: every file of a checkpoint, or what changed; with a card and the record
    of where it comes from."""
    from safetensors.torch import save as to_bytes

    for path in part.iterdir():  # of an earlier attempt
        if path.name not in (MARK, "erasure"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder, model = job.opened.folder, job.model
    origin = job.opened.base or job.opened
    whole = {name.split(".")[0] for name in changed} | _laid_over(job)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.split(".")[0].upper() in LICENCES:
            shutil.copyfile(file, part / file.name)
    if save == "full":
        for name in origin.files:
            if name not in {each for component in whole for each in origin.weights_of(component)}:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin.paths[name], part / name)
        for component in whole:
            _write_component(part / component, origin, component, model.parts[component])
        _write_prediction(schedule_path(part), job.opened.prediction, model.family.schedules.predictions[0])
    else:
        denoiser = model.family.denoiser
        state = {f"{denoiser}.{name}": value for name, value in model.denoiser.state_dict().items()}
        tensors = {
            name.removeprefix(f"{denoiser}."): state[name].detach().cpu().contiguous() for name in changed
        }
        write_whole(
            part / changed_file(model.family),
            to_bytes(tensors, {"format": "pt", DELTA_BASE: job.opened.digest}),
        )
    write_whole(part / "README.md", _card(job, provenance).encode())
    write_whole(part / "erasure.json", (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode())
    if not any((part / "erasure").iterdir()):
        (part / "erasure").rmdir()


def _laid_over(job: ErasureJob) -> set[str]:
    """The parts that are not the files of the base's folder under their usual names: a file over it replaced
    them, or another file was chosen."""
    return set(job.opened.replaced) | (set(job.opened.chosen) - {"prediction"})


def _write_prediction(path: Path, prediction: str, usual: str) -> None:
    """Say in a saved scheduler's configuration what was chosen for the erased checkpoint, where that is
    another; ``usual`` is what is predicted where it says nothing."""
    config = read_json(path, constants=True)
    if config.get("prediction_type", usual) != prediction:
        text = json.dumps(config | {"prediction_type": prediction}, indent=2, sort_keys=True)
        write_whole(path, f"{text}\n".encode())


def _write_component(folder: Path, origin: Checkpoint, component: str, module: Any) -> None:
    """A part's weights beside the configuration that was copied, under the names that the folder's own files
    have: other versions of the libraries know those too. An index of shards is gone with them."""
    from safetensors.torch import save as to_bytes

    for index in folder.glob("*.safetensors.index*.json"):
        index.unlink()
    files = [origin.paths[name] for name in origin.weights_of(component)]
    family = origin.family
    names = {family.plain_name(name): name for file in files for name in read_header(file).shapes}
    tensors = {
        names.get(family.plain_name(name), name): value.detach().cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    write_whole(folder / f"{family.stems[component]}.safetensors", to_bytes(tensors, {"format": "pt"}))


def _card(job: ErasureJob, provenance: dict[str, Any]) -> str:
    """A model card with the base's licence, and no promise."""
    licence = provenance["base"]["licence"]
    front = [
        "---",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
    ]
    names = ", ".join(concept.name for concept in job.policy.erase)
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"`{job.opened.source}` after `auditor erase --eraser {job.name}` of: {names}.",
            "",
            "How it was made is in `erasure.json`. That the concepts are gone, and stay gone when the "
            "checkpoint is fine-tuned, is not",
            "said by this: `auditor audit` measures it.",
            "",
        ]
    )
