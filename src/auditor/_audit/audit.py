"""The audit from end to end: policy and checkpoint in, run folder and report out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auditor._audit.cells import Seeds
from auditor._audit.command import command_of, more_of
from auditor._audit.cost import call_cost, out_of_reach, training_calls_by_arm
from auditor._audit.evidence.counts import tally
from auditor._audit.judge import judge_folder
from auditor._audit.plan import Plan, derive_seeds, make_plan, with_updates
from auditor._audit.progress import Progress
from auditor._audit.run_folder.finished import is_finished
from auditor._audit.run_folder.manifest import (
    FORMAT,
    check_folder,
    own_budget,
    seal_of,
    threads_of,
    write_manifest,
)
from auditor._audit.speed import keep_speed, speed_of
from auditor._audit.verdict.assemble import would_pass
from auditor._audit.weaker import weaker_than_default
from auditor._files.places import refuse_unwritable
from auditor._files.repository import path_in_repository
from auditor._files.whole_files import on_disk
from auditor._journal.file import Journal, read_journal
from auditor._journal.lines import ErrorLine
from auditor._journal.seal import read_key
from auditor._process.device import device_kind, device_said, refuse_true_size
from auditor._process.machine import default_cache, torch_threads, versions
from auditor._process.signals import stoppable
from auditor.errors import AuditorError, PluginError, PolicyError, RefusedError, said
from auditor.plugin._loader import broken_plugins
from auditor.plugin._observers import Observers
from auditor.plugin.instruments import Instruments, make_instruments
from auditor.plugin.records import ReportWritten, RunStarted
from auditor.policy import Base, Policy, PolicyFile, read_policy
from auditor.report import Report

if TYPE_CHECKING:
    from auditor._audit.run.runner import Runner
    from auditor._checkpoint import Checkpoint


def audit(
    checkpoint: str,
    policy: Policy | PolicyFile | Path | str,
    out: Path,
    *,
    base: str | None = None,
    policy_digest: str | None = None,
    offline: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
    title: str | None = None,
    seal: Path | None = None,
    chosen: Mapping[str, str] | None = None,
    budget: Mapping[str, float | None] | None = None,
) -> Report:
    """Audit ``checkpoint`` against ``policy`` and write everything to the folder ``out``.

    ``base`` overrides the policy's; with ``policy_digest`` (``sha256:HEX``) any other policy is refused. With
    ``offline`` repositories on the Hub are taken from its cache alone. The same call goes on where an
    interrupted one stopped; ``out`` with another audit in it is refused. Before a PASS that rests on what
    earlier processes left in ``out``, their images are looked at again; with ``seal``, a file with a secret
    key, every line of the journal is signed instead, and lines without that signature are refused. Raises the
    errors of :mod:`auditor.errors`; a FAIL is no error. ``chosen``: see
    :func:`~auditor._checkpoint.admit.open_checkpoint`. ``budget`` holds larger numbers than the policy's by
    the keys of :class:`~auditor.policy.Budget`: an undecided run goes on with them in the same folder.
    """
    began = time.monotonic()
    asked, file = _asked(policy, base)
    more = {name: value for name, value in (budget or {}).items() if value is not None}
    policy = asked.with_budget(**more) if more else asked
    progress = progress or Progress()
    key = None if seal is None else read_key(seal)
    instruments = make_instruments(policy)
    plan = make_plan(policy, instruments, asked=asked if more else None)
    if policy_digest is not None:
        _refuse_other(plan, policy_digest, file, other_base=base is not None)
    refuse_unwritable(out, go_on=True)
    progress.planned(plan)
    for reason in out_of_reach(plan)[:1]:
        progress.stage(f"out of reach: {reason} ('auditor plan' says more)")
    _refuse_missing(checkpoint, policy.base)
    plugins = instruments.identity()
    progress.stage("admitting checkpoints")
    opened, opened_base = _open(checkpoint, policy.base, chosen or {}, offline=offline)
    seeds = derive_seeds(policy, opened.drawn_digest, opened_base.drawn_digest if opened_base else None)
    plan = with_updates(plan, seeds) if policy.updates is not None else plan
    kept = cache or default_cache()
    made = instruments.with_updates([update.use for update in plan.updates], policy)
    work = _Work(plan, made, seeds, opened, opened_base, Observers(), progress, kept, key, began)
    manifest = _manifest(work, plugins) | {
        "title": title or Path(checkpoint).name,
        "observers": work.observers.origins,
        "warnings": broken_plugins(),
        "policy_file": None if file is None else {"path": _shown(file.path), "lines": dict(file.lines)},
        "command": more_of(
            command_of(
                checkpoint,
                "POLICY" if file is None else file.path,
                base,
                out,
                chosen or {},
                seal,
                offline=offline,
            ),
            more,
        ),
    }
    for warning in manifest["warnings"]:
        progress.stage(f"not loaded: {warning}")
    with on_disk(out), stoppable(), ExitStack() as stack:
        manifest["threads"] = threads_of(check_folder(out, manifest))
        stack.enter_context(torch_threads(manifest["threads"]))
        out.mkdir(parents=True, exist_ok=True)
        with Journal(out / "journal.jsonl", seal_of(manifest, key)) as journal:
            if not journal.locked:
                manifest["warnings"].append(
                    f"{out} is on a file system without locks: nothing keeps other audits from writing to it."
                )
            written = write_manifest(out, manifest, work.cache)
            runner = work.runner(journal, written)
            if runner is not None:
                work.measure(runner, manifest)
        report = judge_folder(out, key)
        for problem in work.observers.tell("auditor_report_written", ReportWritten(report, out)):
            progress.stage(problem)
    if runner is not None:
        # a forecast's convenience is no reason to lose a report
        with suppress(OSError, ValueError, AuditorError):
            work.keep_speed(runner)
    return report


@dataclass
class _Work:
    """What one call of :func:`audit` works with, once everything is admitted."""

    plan: Plan
    instruments: Instruments
    seeds: Seeds
    opened: Checkpoint
    base: Checkpoint | None
    observers: Observers
    progress: Progress
    cache: Path | None
    key: bytes | None
    began: float
    started: float = 0.0
    ended: float = 0.0

    def runner(self, journal: Journal, manifest: str) -> Runner | None:
        """What draws, with both models in memory and the journal counted so far; None where nothing is left
        to do. ``manifest``: its sha256."""
        counted = tally(self.plan, self.seeds, read_journal(journal.path))
        # before a PASS somebody looks at the images of earlier processes; a gate's seal vouches for its own
        seen = self.key is not None and (counted.earlier is not None or not counted.earlier_batches)
        looks = would_pass(self.plan, counted) and not seen
        if is_finished(self.plan, self.instruments, counted, manifest) and not looks:
            self.progress.stage("nothing is left to do: no model is loaded")
            return None
        from auditor._audit.run.recorder import Recorder
        from auditor._audit.run.runner import Runner
        from auditor._checkpoint.load import load_model, precision_name

        self.progress.stage(f"loading models to: {device_said()}")
        dtype, out = self.plan.policy.sampler.dtype, journal.path.parent
        erased = load_model(self.opened, dtype)
        base = load_model(self.base, dtype) if self.base else None
        resumed, precision = journal.path.stat().st_size > 0, precision_name(erased)
        record = Recorder(
            journal, counted, self.observers, self.progress, manifest, precision, resumed=resumed
        )
        return Runner(self.plan, self.instruments, self.seeds, erased, base, out, self.cache, record)

    def measure(self, runner: Runner, manifest: Mapping[str, Any]) -> None:
        """Draw what is open; where a PASS would then rest on what earlier processes left, look at that again.
        Raises :class:`UsageError` where a file that the plugins decide by changed meanwhile."""
        plan, digest = self.plan, manifest["identity"]["checkpoint"]
        out = runner.record.journal.path.parent
        arms = tuple(arm.name for arm in plan.arms)
        self.started = time.monotonic()
        counted = runner.run(RunStarted(manifest["title"], digest, plan.policy_digest, arms, out))
        if runner.has_earlier and would_pass(plan, counted):
            runner.check_earlier(sealed=self.key is not None)
        self.ended = time.monotonic()
        _refuse_changed(self.instruments, runner)

    def keep_speed(self, runner: Runner) -> None:
        """Remember how quick this call was, for later plans."""
        calls = training_calls_by_arm(self.plan, self.instruments.all_probes)
        took = self.started - self.began, self.ended - self.started
        speed = speed_of(runner, call_cost(self.plan, self.opened), calls, *took)
        if speed is not None:
            keep_speed(self.cache, speed)


def _asked(policy: Policy | PolicyFile | Path | str, base: str | None) -> tuple[Policy, PolicyFile | None]:
    """The policy, over another base if one is given, and the file that it was read from."""
    given = read_policy(policy) if isinstance(policy, Path | str) else policy
    file = given if isinstance(given, PolicyFile) else None
    found = given.policy if isinstance(given, PolicyFile) else given
    return found if base is None else found.with_base(base), file


def _refuse_changed(instruments: Instruments, runner: Runner) -> None:
    """Raise :class:`UsageError` where a file that the plugins decide by changed under the run. A plugin that
    breaks when it is asked for them is an error in the report."""
    try:
        instruments.refuse_changed(runner.plan.contents)
    except PluginError as error:
        runner.record.write(ErrorLine(arm="erased", message=said(error)))


def _open(
    checkpoint: str, base: Base | Literal["none"], chosen: Mapping[str, str], *, offline: bool
) -> tuple[Checkpoint, Checkpoint | None]:
    """The audited checkpoint and its base, admitted. Raises :class:`RefusedError` where both have the same
    weights."""
    from auditor._checkpoint import open_checkpoint

    if base == "none":
        alone = open_checkpoint(checkpoint, offline=offline, chosen=chosen)
        refuse_true_size(checkpoint, alone.parameters)
        return alone, None
    source = base.address
    opened_base = open_checkpoint(source, offline=offline)
    opened = open_checkpoint(checkpoint, base=opened_base, offline=offline, chosen=chosen)
    refuse_true_size(checkpoint, opened.parameters)
    if _weights(opened.files) == _weights(opened_base.files):
        raise RefusedError(f"{checkpoint} has the same weights as its base {source}: nothing was erased.")
    return opened, opened_base


def _refuse_missing(checkpoint: str, base: Base | Literal["none"]) -> None:
    """Raise :class:`UsageError` where a place on this disk is not there, before either is read whole."""
    from auditor._checkpoint.located import refuse_missing

    for source in (checkpoint, *(() if base == "none" else (base.address,))):
        refuse_missing(source)


def _refuse_other(plan: Plan, digest: str, file: PolicyFile | None, *, other_base: bool) -> None:
    """Raise :class:`PolicyError` where the policy, with what its plugins decide by, is not the pinned
    one."""
    found = plan.policy_digest
    if digest.removeprefix("sha256:") != found:
        named = "The policy" if file is None else file.path
        other = " with another base" if other_base else ""
        raise PolicyError(
            f"{named}{other} is not the policy with the digest {digest}: it has sha256:{found}."
        )


def _shown(policy: Path | str) -> str:
    """The policy's file as a repository's viewer finds it; a bundled one by its name."""
    path = Path(policy)
    return path_in_repository(path) if path.exists() else f"{path.name}.yaml"


def _manifest(work: _Work, plugins: dict[str, str]) -> dict[str, Any]:
    """What a run is, before anything is drawn. Its ``identity`` may never change in a folder."""
    plan, opened, base, seeds = work.plan, work.opened, work.base, work.seeds
    return {
        "format": FORMAT,
        "identity": {
            "checkpoint": opened.digest,
            "base": base.digest if base else None,
            "policy": plan.policy.identity(plan.contents),
            "probes": [probe.model_dump(mode="json") for probe in plan.told],
            "contents": {name: dict(named) for name, named in plan.contents.items()},
            "plugins": plugins,
            "versions": versions(),
        },
        "device": device_kind(),
        "policy": plan.policy.model_dump(mode="json"),
        **({} if plan.asked is None else {"asked": own_budget(plan.asked)}),
        "policy_folder": None if plan.policy.folder is None else str(plan.policy.folder.resolve()),
        "weaker": list(weaker_than_default(plan.policy, work.instruments.probes, work.instruments.members)),
        "checkpoint": _facts(opened),
        "base": _facts(base) if base else None,
        "seeds": {"audit": seeds.audit, "shared": seeds.shared},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
        "prediction": opened.prediction,
        "chosen": opened.chosen,
        "content": opened.content,
        "parameters": opened.parameters,
        "files": opened.files,
    }


def _weights(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
