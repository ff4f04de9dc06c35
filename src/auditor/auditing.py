"""The audit from end to end: policy and checkpoint in, run folder and report out."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import platformdirs

from auditor.digest import sha256_json
from auditor.errors import InterruptedRunError, PolicyError, RefusedError, UsageError
from auditor.files import room_on_disk, write_whole
from auditor.forecast import call_cost, denoiser_calls, keep_rate, out_of_reach
from auditor.journal import Journal, read_journal
from auditor.judge import judge
from auditor.plan import Plan, Seeds, derive_seeds, make_plan
from auditor.plugin import door
from auditor.plugin.loader import find_plugin, make_plugin
from auditor.policy import Base, Policy, load_policy
from auditor.progress import Progress
from auditor.report import CheckpointFacts, Provenance, Replay, Report
from auditor.tally import Tally, tally

if TYPE_CHECKING:
    from auditor.checkpoint import Checkpoint

STACK = ("torch", "diffusers", "transformers", "peft", "open_clip_torch", "safetensors")
REPORTERS = ("json", "html")
"""The forms that every audit writes."""
SEED_DERIVATION = (
    "audit seed = sha256(policy without budget, base and nonce; digest of the checkpoint; digest of the base; nonce); for base and "
    "retained images and training sets sha256(the same policy; digest of the base); image seed = sha256(seed, concept, prompt, index)"
)


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
) -> Report:
    """Audit ``checkpoint`` against ``policy`` and write everything to the folder ``out``.

    ``base`` overrides the policy's. With ``offline`` repositories on the Hub are taken from its cache alone. The same call goes
    on where an interrupted one stopped; ``out`` with another audit in it is refused. Raises the errors of
    :mod:`auditor.errors`; a FAIL is no error.
    """
    from auditor.checkpoint import open_checkpoint
    from auditor.checkpoint.load import load_model
    from auditor.run import Runner

    named = "POLICY" if isinstance(policy, Policy) else policy
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    progress = progress or Progress()
    if base is not None:
        policy = policy.model_copy(update={"base": Base(source=base)})
    source = None if policy.base == "none" else _base_source(policy.base)
    plan = make_plan(policy)
    _check_plugins(policy)
    progress.planned(plan)
    for reason in out_of_reach(plan)[:1]:
        progress.stage(f"out of reach: {reason} ('auditor plan' says more)")
    progress.stage("admitting checkpoints")
    opened_base = None if source is None else open_checkpoint(source, offline=offline)
    opened = open_checkpoint(checkpoint, base=opened_base, offline=offline)
    if opened_base is not None and _weights(opened.files) == _weights(opened_base.files):
        raise RefusedError(f"{checkpoint} has the same weights as its base {source}: nothing was erased.")
    seeds = derive_seeds(policy, opened.digest, opened_base.digest if opened_base else None)
    manifest = {
        "identity": {
            "checkpoint": opened.digest,
            "base": opened_base.digest if opened_base else None,
            "policy": policy.identity(),
            "plugins": _plugins_of(policy),
            "device": device_name(),
            "versions": {name: version(name) for name in ("auditor", *STACK)},
        },
        "title": title or f"{Path(checkpoint).name}",
        "policy": policy.model_dump(mode="json"),
        "checkpoint": _facts(opened),
        "base": _facts(opened_base) if opened_base else None,
        "seeds": {"audit": seeds.audit, "shared": seeds.shared},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"auditor audit {checkpoint} --policy {named}{f' --base {base}' if base else ''} --out {out.name}",
    }
    cache = cache or default_cache()
    with room_on_disk(out), _stoppable():
        _check_folder(out, manifest)
        out.mkdir(parents=True, exist_ok=True)
        with Journal(out / "journal.jsonl") as journal:
            _write_manifest(out, manifest, cache)
            progress.stage("loading models")
            erased = load_model(opened, policy.sampler.dtype)
            loaded_base = load_model(opened_base, policy.sampler.dtype) if opened_base else None
            runner = Runner(plan, seeds, erased, loaded_base, out, cache, progress)
            runner.run(journal, read_journal(out / "journal.jsonl"))
        report = judge_folder(out)
    with suppress(OSError, ValueError):  # a forecast's convenience is no reason to lose a report
        keep_rate(cache, device_name(), denoiser_calls(plan, runner.drawn) * call_cost(plan, opened), runner.drawing)
    return report


def judge_folder(out: Path) -> Report:
    """Judge the journal in ``out``, without any model, and write the report's files. The same journal gives the same bytes."""
    run = open_run(out)
    manifest, counted = run.manifest, tally(run.plan, run.seeds, read_journal(out / "journal.jsonl"))
    provenance = Provenance(
        versions=manifest["identity"]["versions"],
        plugins=manifest["identity"]["plugins"],
        audit_seed=run.seeds.audit,
        shared_seed=run.seeds.shared,
        seed_derivation=SEED_DERIVATION,
        attempt=manifest["attempt"],
        started=manifest["started"],
        device=manifest["identity"]["device"],
        command=manifest["command"],
        seconds=round(counted.seconds, 3),
        replay=_replay(counted),
    )
    report = judge(run.plan, counted, title=manifest["title"], checkpoint=run.checkpoint, base=run.base, provenance=provenance)
    with room_on_disk(out):
        for name in REPORTERS:
            reporter = make_plugin("reporters", name, {})
            write_whole(out / reporter.filename, reporter.render(report, out))
    return report


@dataclass(frozen=True)
class Run:
    """What the manifest of a run folder says."""

    manifest: dict[str, Any]
    plan: Plan
    seeds: Seeds
    checkpoint: CheckpointFacts
    base: CheckpointFacts | None


def open_run(out: Path) -> Run:
    """Read the manifest in ``out``. Raises :class:`UsageError` where there is none or it is damaged."""
    manifest = _read_manifest(out)
    if manifest is None:
        raise UsageError(f"{out} is not the folder of an audit: it holds no manifest.json.")
    try:
        plan = make_plan(Policy.model_validate_json(json.dumps(manifest["policy"])))
        base = CheckpointFacts.model_validate(manifest["base"]) if manifest["base"] else None
        checkpoint = CheckpointFacts.model_validate(manifest["checkpoint"])
        identity, seeds = manifest["identity"], Seeds(**manifest["seeds"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{out / 'manifest.json'} is damaged or of another version; audit again in a new folder.") from error
    derived = derive_seeds(plan.policy, checkpoint.digest, base.digest if base else None)
    digests = (plan.policy.identity(), checkpoint.digest, base.digest if base else None)
    if seeds != derived or digests != (identity.get("policy"), identity.get("checkpoint"), identity.get("base")):
        raise UsageError(f"{out / 'manifest.json'} contradicts itself: seeds or digests are not those of its policy and checkpoint.")
    return Run(manifest, plan, seeds, checkpoint, base)


def _replay(counted: Tally) -> Replay | None:
    line = counted.replay
    if line is None:
        return None
    how = f"{line.identical} were the same bit for bit"
    if line.identical < line.images:
        how += f", the others differ by up to {line.largest_difference} of 255 in a pixel ({line.tolerance} allowed)"
    same = f"the detector said the same of {line.same_hits}"
    sentence = f"Of {line.images} images drawn again, {how}; {same}."
    succeeded = line.images > 0 and line.largest_difference <= line.tolerance and line.same_hits == line.images
    return Replay(**line.model_dump(exclude={"kind"}), succeeded=succeeded, sentence=sentence)


def default_cache() -> Path:
    """Where pictures of bases are kept between audits: ``AUDITOR_CACHE`` or the user's cache folder."""
    given = os.environ.get("AUDITOR_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("auditor")) / "pictures"


def _base_source(base: Base) -> str:
    return base.source if base.revision is None else f"{base.source}@{base.revision}"


def _facts(opened: Checkpoint) -> dict[str, Any]:
    return {
        "source": opened.source,
        "form": opened.form,
        "commit": opened.commit,
        "digest": opened.digest,
        "root_digest": opened.root_digest,
        "parameters": opened.parameters,
        "files": opened.files,
    }


def _weights(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def _plugins_of(policy: Policy) -> dict[str, str]:
    uses = [("probes", use.use) for use in policy.probes] + [("detectors", use.use) for use in policy.detectors]
    records = [find_plugin(kind, name) for kind, name in sorted(set(uses))]
    named = {f"{record.kind}/{record.name}": f"{record.distribution} {record.version}" for record in records}
    for use in policy.detectors:
        detector = make_plugin("detectors", use.use, use.options)
        fingerprint = door.call(detector, detector.fingerprint)
        if fingerprint:
            named[f"detectors/{use.use}"] += f", weights {fingerprint}"
    return named


def _check_plugins(policy: Policy) -> None:
    """Fail before anything is drawn where a detector is unknown or its options are wrong (the plan checks probes)."""
    for use in policy.detectors:
        make_plugin("detectors", use.use, use.options)
    names = [use.use for use in policy.detectors]
    if len(set(names)) != len(names):
        raise PolicyError("A detector stands twice in the policy.")


def device_name() -> str:
    """What images are drawn on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _read_manifest(out: Path) -> dict[str, Any] | None:
    path = out / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("identity"), dict):
        raise UsageError(f"{path} is no manifest of an audit.")
    return manifest


def _check_folder(out: Path, manifest: dict[str, Any]) -> None:
    """Refuse a folder that holds something else, or a run of another identity; its budget may only have grown."""
    earlier = _read_manifest(out)
    if earlier is None:
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file; give a folder with --out.")
        if out.exists() and any(not path.name.startswith(".") and path.stat().st_size for path in out.iterdir()):
            raise UsageError(f"{out} is not empty and holds no audit; give an empty folder with --out.")
        return
    before, now = earlier["identity"], manifest["identity"]
    changed = [_difference(key, before.get(key), now[key]) for key in now if before.get(key) != now[key] and key != "policy"]
    if before.get("policy") != now["policy"]:
        changed.append(_difference("policy", earlier.get("policy"), manifest["policy"]))
    for key, value in manifest["policy"]["budget"].items():
        drawn = earlier["policy"]["budget"].get(key)
        if value is not None and (drawn is None or value < drawn):
            changed.append(f"budget.{key} fell: {drawn} → {value}")
    if changed:
        raise UsageError(f"{out} holds another audit ({'; '.join(changed)}); give a new folder with --out.")


def _difference(key: str, before: Any, now: Any) -> str:
    """Where two values of the manifest differ, down to the first keys that do."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = [name for name in (*before, *(name for name in now if name not in before)) if before.get(name) != now.get(name)]
        return "; ".join(_difference(f"{key}.{name}", before.get(name), now.get(name)) for name in inner[:3])
    return f"{key}: {str(before)[:80]} → {str(now)[:80]}"


def _write_manifest(out: Path, manifest: dict[str, Any], cache: Path) -> None:
    """Write the manifest of a new run, or note that the budget of an earlier one has grown. Called with the journal's lock held."""
    earlier = _read_manifest(out)
    manifest = manifest | {"attempt": _attempt(manifest, cache)} if earlier is None else earlier | {"policy": manifest["policy"]}
    if manifest != earlier:
        write_whole(out / "manifest.json", (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())


def _attempt(manifest: dict[str, Any], cache: Path) -> int:
    """Which audit seed this is, in order, of those that this machine's cache saw for the same checkpoint and erased concepts."""
    concepts = sorted(concept["name"] for concept in manifest["policy"]["erase"])
    path = cache / "attempts" / f"{sha256_json([concepts, manifest['identity']['checkpoint']])}.txt"
    seeds = path.read_text(encoding="utf-8").split() if path.is_file() else []
    if manifest["seeds"]["audit"] not in seeds:
        seeds.append(manifest["seeds"]["audit"])
        write_whole(path, ("\n".join(seeds) + "\n").encode())
    return seeds.index(manifest["seeds"]["audit"]) + 1


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the run as :class:`InterruptedRunError`; a second signal at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each, old in earlier.items():
            signal.signal(each, old)
        raise InterruptedRunError(number)

    try:
        earlier = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are its own
        yield
        return
    try:
        yield
    finally:
        for each, old in earlier.items():
            signal.signal(each, old)


def elapsed(began: float) -> str:
    """Seconds since ``began`` (``time.monotonic``) for people: ``73 s`` or ``4 min 10 s``."""
    seconds = round(time.monotonic() - began)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"
