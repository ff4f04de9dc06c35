"""From the folder of a run to its report: the journal judged, and the forms that are made of that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditor._audit.evidence.counts import Tally, tally
from auditor._audit.evidence.decisions import Decisions
from auditor._audit.run_folder.manifest import manifest_digest, open_run, seal_of
from auditor._audit.verdict.assemble import report_of
from auditor._files.whole_files import on_disk, write_whole
from auditor._journal.file import read_journal
from auditor.errors import AuditorError, PluginError
from auditor.plugin import _door as door
from auditor.plugin._loader import make_plugin
from auditor.plugin.contracts import Reporter
from auditor.policy import Gate
from auditor.report import PolicyPlace, Provenance, Replay, Report

REPORTERS = ("json", "html")
"""The forms that every audit writes."""
SEED_DERIVATION = (
    "audit seed = sha256(policy without budget, base and nonce; digest of the checkpoint; digest of the "
    "base; nonce); for base and retained images and training sets sha256(the same policy; digest of the "
    "base); image seed = sha256(seed, concept, prompt, index)"
)


def judge_folder(out: Path, key: bytes | None = None) -> Report:
    """Judge the journal in ``out``, without any model, and write the report's files. The same journal gives
    the same bytes.

    With ``key`` every line must carry its seal.
    """
    report = judged(out, key)
    with on_disk(out):
        for name in REPORTERS:
            write_form(report, out, name)
    return report


def judged(out: Path, key: bytes | None = None, gate: Gate | None = None) -> Report:
    """The report that the journal in ``out`` gives; nothing is written. With ``key`` every line must carry
    its seal.

    With ``gate`` the report says what another detector or decision than the policy's would have found: it is
    marked as exploratory and is never a PASS, for the decision was chosen after the images were seen.

    Raises :class:`AuditorError` where the manifest is not the one that the process which wrote last had.
    """
    run = open_run(out)
    lines = read_journal(out / "journal.jsonl", seal_of(run.manifest, key))
    manifest, counted = run.manifest, tally(run.plan, run.seeds, lines, gate)
    if lines and counted.manifest != manifest_digest(out):
        raise AuditorError(
            f"{out / 'manifest.json'} is not the one that the run's last process wrote; audit again in a new "
            "folder."
        )
    provenance = Provenance(
        versions=manifest["identity"]["versions"],
        plugins=manifest["identity"]["plugins"],
        audit_seed=run.seeds.audit,
        shared_seed=run.seeds.shared,
        seed_derivation=SEED_DERIVATION,
        attempt=manifest["attempt"],
        started=manifest["started"],
        device=_device(manifest, counted),
        command=manifest["command"],
        seconds=round(counted.seconds, 3),
        replay=_replay(counted),
        observers=manifest.get("observers", ()),
        warnings=(*manifest.get("warnings", ()), *counted.notes),
    )
    file = manifest.get("policy_file")
    return report_of(
        run.plan,
        counted,
        title=manifest["title"],
        checkpoint=run.checkpoint,
        base=run.base,
        provenance=provenance,
        policy_file=None if file is None else PolicyPlace.model_validate(file),
        weaker=tuple(manifest["weaker"]),
        exploratory=None if gate is None else exploratory(counted.decisions),
    )


def exploratory(decisions: Decisions) -> str:
    """What a report says of itself that was judged by another gate than the policy's."""
    return (
        f"Exploratory: judged by {decisions.sentence}, which is not the policy's decision. It was chosen "
        "after the images were drawn, so no PASS rests on it."
    )


def write_form(report: Report, out: Path, reporter_name: str, options: dict[str, Any] | None = None) -> Path:
    """Write ``report`` in the form of one reporter to the run folder ``out``."""
    filename, content = render(report, out, reporter_name, options)
    write_whole(out / filename, content)
    return out / filename


def write_forms(report: Report, out: Path, names: Sequence[str]) -> None:
    """Write ``report`` in the forms of several reporters, each whatever the others do; then raise what the
    first one raised that broke."""
    broken: list[AuditorError] = []
    for name in names:
        try:
            write_form(report, out, name)
        except AuditorError as error:
            broken.append(error)
    if broken:
        raise broken[0]


def render(
    report: Report, out: Path, reporter_name: str, options: dict[str, Any] | None = None
) -> tuple[str, bytes]:
    """``report`` in the form of one reporter: the file's name and its content. ``out`` holds the images."""
    reporter: Reporter = make_plugin("reporters", reporter_name, options or {})
    content = door.call(reporter, reporter.render, report, out)
    if not isinstance(content, bytes):
        raise PluginError(f"{door.title(reporter)} returned {type(content).__name__}; bytes are right.")
    return reporter.filename, content


def _device(manifest: dict[str, Any], counted: Tally) -> str:
    """The kinds of device that drew and, on a CPU, how many threads computed."""
    kinds = dict.fromkeys(device for device, _ in counted.devices) or [str(manifest["device"])]
    threads = manifest.get("threads")
    return "; ".join(
        f"{kind}, {threads} threads" if type(threads) is int and kind.endswith("CPU") else kind
        for kind in kinds
    )


def _replay(counted: Tally) -> Replay | None:
    line = counted.replay
    if line is None:
        return None
    how = f"{line.identical} were the same bit for bit"
    if line.identical < line.images:
        how += (
            f", the others differ by up to {line.largest_difference} of 255 in a pixel ({line.tolerance} "
            "allowed)"
        )
    same = f"the detector said the same of {line.same_hits}"
    sentence = f"Of {line.images} images drawn again, {how}; {same}."
    succeeded = (
        line.images > 0 and line.largest_difference <= line.tolerance and line.same_hits == line.images
    )
    return Replay(**line.model_dump(exclude={"kind"}), succeeded=succeeded, sentence=sentence)
