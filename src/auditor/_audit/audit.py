"""The audit from end to end: policy and checkpoint in, run folder and report out."""

from __future__ import annotations

import os
import platform
import shlex
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs

from auditor._audit.cells import Seeds
from auditor._audit.contents import contents_of, refuse_changed
from auditor._audit.cost import call_cost, denoiser_calls, keep_rate, out_of_reach
from auditor._audit.evidence.counts import tally
from auditor._audit.judge import judge_folder
from auditor._audit.plan import Plan, derive_seeds, make_plan
from auditor._audit.progress import Progress
from auditor._audit.run_folder.manifest import check_folder, seal_of, write_manifest
from auditor._audit.verdict.assemble import would_pass
from auditor._audit.weaker import weaker_than_default
from auditor._files.whole_files import room_on_disk
from auditor._journal.file import Journal, read_journal
from auditor._journal.seal import read_key
from auditor._process.signals import stoppable
from auditor.errors import PluginError, PolicyError, RefusedError, UsageError
from auditor.plugin import _door as door
from auditor.plugin._loader import (
    CONTRACTS,
    SINGULAR,
    broken_plugins,
    find_plugin,
    make_plugin,
    named_files,
)
from auditor.plugin._observers import Observers
from auditor.plugin.contracts import Detector, Plugin
from auditor.plugin.records import ReportWritten, RunStarted
from auditor.policy import Base, Policy, concept_lines, load_policy
from auditor.report import Report

if TYPE_CHECKING:
    from auditor._audit.run.runner import Runner
    from auditor._checkpoint import Checkpoint

STACK = ("torch", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors")


def audit(
    checkpoint: str,
    policy: Policy | Path | str,
    out: Path,
    *,
    base: str | None = None,
    offline: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    title: str | None = None,
    policy_file: Path | str | None = None,
    seal: Path | None = None,
) -> Report:
    """Audit ``checkpoint`` against ``policy`` and write everything to the folder ``out``.

    ``base`` overrides the policy's; ``policy_file`` says where a policy that is given as an object was read
    from. With ``offline`` repositories on the Hub are taken from its cache alone. The same call goes on where
    an interrupted one stopped; ``out`` with another audit in it is refused. Before a PASS that rests on what
    earlier processes left in ``out``, their images are looked at again; with ``seal``, a file with a secret
    key, every line of the journal is signed instead, and lines without that signature are refused. Raises the
    errors of :mod:`auditor.errors`; a FAIL is no error.
    """
    from auditor._audit.run.recorder import Recorder
    from auditor._audit.run.runner import Runner
    from auditor._checkpoint.load import load_model

    file = policy_file if isinstance(policy, Policy) else policy
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    progress = progress or Progress()
    if base is not None:
        policy = policy.with_base(base)
    key = None if seal is None else read_key(seal)
    check_plugins(policy)
    plan = make_plan(policy, contents=contents_of(policy))
    progress.planned(plan)
    for reason in out_of_reach(plan)[:1]:
        progress.stage(f"out of reach: {reason} ('auditor plan' says more)")
    progress.stage("admitting checkpoints")
    opened, opened_base = _open(checkpoint, policy.base, offline=offline)
    seeds = derive_seeds(policy, opened.drawn_digest, opened_base.drawn_digest if opened_base else None)
    observers = Observers()
    manifest = _manifest(plan, opened, opened_base, seeds) | {
        "title": title or Path(checkpoint).name,
        "observers": observers.origins,
        "warnings": broken_plugins(),
        "policy_file": None if file is None else {"path": _shown(file), "lines": _lines(file)},
        "command": _command(checkpoint, file or "POLICY", base, out, offline=offline),
    }
    for warning in manifest["warnings"]:
        progress.stage(f"not loaded: {warning}")
    cache = cache or default_cache()
    with room_on_disk(out), stoppable():
        check_folder(out, manifest)
        out.mkdir(parents=True, exist_ok=True)
        with Journal(out / "journal.jsonl", seal_of(manifest, key)) as journal:
            written = write_manifest(out, manifest, cache)
            progress.stage("loading models")
            erased = load_model(opened, policy.sampler.dtype)
            loaded_base = load_model(opened_base, policy.sampler.dtype) if opened_base else None
            lines = read_journal(out / "journal.jsonl")
            record = Recorder(
                journal, tally(plan, seeds, lines), observers, progress, written, resumed=bool(lines)
            )
            runner = Runner(plan, seeds, erased, loaded_base, out, cache, record)
            _measure(runner, out, manifest, sealed=key is not None)
        refuse_changed(policy, plan.contents)
        report = judge_folder(out, key)
        for problem in observers.tell("auditor_report_written", ReportWritten(report, out)):
            progress.stage(problem)
    with suppress(OSError, ValueError):  # a forecast's convenience is no reason to lose a report
        operations = denoiser_calls(plan, runner.drawing.drawn) * call_cost(plan, opened)
        keep_rate(cache, device_name(), operations, runner.drawing.seconds)
    return report


def _measure(runner: Runner, out: Path, manifest: dict[str, Any], *, sealed: bool) -> None:
    """Draw what is open; where a PASS would then rest on what earlier processes left, look at that again."""
    plan, arms = runner.plan, tuple(arm.name for arm in runner.plan.arms)
    digest = manifest["identity"]["checkpoint"]
    started = RunStarted(manifest["title"], digest, plan.policy.digest(plan.contents), arms, out)
    counted = runner.run(started)
    if runner.has_earlier and would_pass(plan, counted):
        runner.check_earlier(sealed=sealed)


def _open(
    checkpoint: str, base: Base | Literal["none"], *, offline: bool
) -> tuple[Checkpoint, Checkpoint | None]:
    """The audited checkpoint and its base, admitted. Raises :class:`RefusedError` where both have the same
    weights."""
    from auditor._checkpoint import open_checkpoint

    if base == "none":
        return open_checkpoint(checkpoint, offline=offline), None
    source = base_source(base)
    opened_base = open_checkpoint(source, offline=offline)
    opened = open_checkpoint(checkpoint, base=opened_base, offline=offline)
    if _weights(opened.files) == _weights(opened_base.files):
        raise RefusedError(f"{checkpoint} has the same weights as its base {source}: nothing was erased.")
    return opened, opened_base


def _command(checkpoint: str, policy: Path | str, base: str | None, out: Path, *, offline: bool) -> str:
    """The command line that does this audit again, as a shell reads it."""
    options = [
        "--policy",
        str(policy),
        *(["--base", base] if base else []),
        *(["--offline"] if offline else []),
    ]
    options += [part for file in named_files() for part in ("--plugin", file.name)]
    return shlex.join(
        [
            "auditor",
            "audit",
            *options,
            "--out",
            out.name,
            *(["--"] if checkpoint.startswith("-") else []),
            checkpoint,
        ]
    )


def _lines(policy: Path | str) -> dict[str, int]:
    """Where findings are shown in it; nothing else hangs on this second reading."""
    try:
        return concept_lines(policy)
    except (UsageError, ValueError):  # it changed, or it was a pipe
        return {}


def _shown(policy: Path | str) -> str:
    """The policy's file as a repository's viewer finds it: relative where it lies under the working
    folder; a bundled one by its name."""
    path = Path(policy)
    if not path.exists():
        return f"{path.name}.yaml"
    inside = path.resolve().is_relative_to(Path.cwd())
    return path.resolve().relative_to(Path.cwd()).as_posix() if inside else path.name


def default_cache() -> Path:
    """Where pictures of bases are kept between audits: ``AUDITOR_CACHE`` or the user's cache folder."""
    given = os.environ.get("AUDITOR_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("auditor")) / "pictures"


def _manifest(plan: Plan, opened: Checkpoint, base: Checkpoint | None, seeds: Seeds) -> dict[str, Any]:
    """What a run is, before anything is drawn. Its ``identity`` may never change in a folder."""
    return {
        "identity": {
            "checkpoint": opened.digest,
            "base": base.digest if base else None,
            "policy": plan.policy.identity(plan.contents),
            "contents": {name: dict(named) for name, named in plan.contents.items()},
            "plugins": _plugins_of(plan.policy),
            "device": device_name(),
            "versions": {name: version(name) for name in ("auditor", *STACK)},
        },
        "policy": plan.policy.model_dump(mode="json"),
        "probes": list(plan.probe_names),
        "weaker": list(weaker_than_default(plan.policy)),
        "checkpoint": _facts(opened),
        "base": _facts(base) if base else None,
        "seeds": {"audit": seeds.audit, "shared": seeds.shared},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def base_source(base: Base) -> str:
    """What a policy's base is called."""
    return base.source if base.revision is None else f"{base.source}@{base.revision}"


def _facts(opened: Checkpoint) -> dict[str, Any]:
    return {
        "source": opened.source,
        "form": opened.form,
        "commit": opened.commit,
        "digest": opened.digest,
        "root_digest": opened.root_digest,
        "drawn_digest": opened.drawn_digest,
        "beside": list(opened.beside),
        "beside_known": opened.beside_known,
        "parameters": opened.parameters,
        "files": opened.files,
    }


def _weights(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def _plugins_of(policy: Policy) -> dict[str, str]:
    """Every plugin that the policy uses, with distribution, version and the weights it decides by; also
    those inside of others."""
    named: dict[str, str] = {}
    for kind in ("probes", "detectors", "metrics"):
        for use in getattr(policy, kind):
            _name_plugin(make_plugin(kind, use.use, use.options), named)
    return dict(sorted(named.items()))


def _name_plugin(plugin: Plugin, named: dict[str, str]) -> None:
    kind = next(kind for kind, contract in CONTRACTS.items() if isinstance(plugin, contract))
    origin = find_plugin(kind, plugin.name).origin
    if isinstance(plugin, Detector):
        fingerprint = door.call(plugin, plugin.fingerprint)
        if not isinstance(fingerprint, str):
            raise PluginError(
                f"{door.title(plugin)} returned {type(fingerprint).__name__} from fingerprint(); a string is "
                "right."
            )
        origin += f", weights {fingerprint}" if fingerprint else ""
    before = named.get(f"{kind}/{plugin.name}", origin)
    named[f"{kind}/{plugin.name}"] = origin if origin in before else f"{before}; {origin}"
    for part in door.call(plugin, plugin.parts):
        _name_plugin(part, named)


def check_plugins(policy: Policy) -> None:
    """Fail before anything is drawn where a detector or metric is unknown or its options are wrong (the
    plan checks probes)."""
    for kind in ("detectors", "metrics"):
        for use in getattr(policy, kind):
            plugin = make_plugin(kind, use.use, use.options)
            if getattr(plugin, "uses_outcomes", False):
                raise PolicyError(
                    f"The metric '{use.use}' is about what a detector saw, which an audit's checks say; "
                    "studies measure it."
                )
        names = [use.use for use in getattr(policy, kind)]
        if len(set(names)) != len(names):
            raise PolicyError(f"A {SINGULAR[kind]} stands twice in the policy.")


def device_name() -> str:
    """What images are drawn on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def elapsed(began: float) -> str:
    """Seconds since ``began`` (``time.monotonic``) for people: ``73 s`` or ``4 min 10 s``."""
    seconds = round(time.monotonic() - began)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"
