"""The folder of a run: its manifest says what is audited, and nothing else may go on in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor._audit.cells import Seeds
from auditor._audit.plan import Plan, derive_seeds, lay_out
from auditor._checkpoint.admit import digest_of_folder
from auditor._files.digest import sha256_file, sha256_json
from auditor._files.nearest import beside
from auditor._files.places import sentence_at
from auditor._files.whole_files import write_whole
from auditor._journal.seal import Seal
from auditor._process.machine import threads_now
from auditor.errors import UsageError
from auditor.plugin.planned import PlannedProbe
from auditor.policy import Policy, as_read
from auditor.policy.budget import SYNONYM_IMAGES, beside_identity
from auditor.report import CheckpointFacts

FORMAT = 2
"""Of run folders: what a manifest and a journal's lines are called and mean."""
_MOST_THREADS = 1024


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
        raise UsageError(f"{out} is not the folder of an audit: it holds no manifest.json.{_near_run(out)}")
    try:
        identity = manifest["identity"]
        folder = Path(manifest.get("policy_folder") or "")
        policy = Policy.model_validate_json(json.dumps(manifest["policy"])).found_in(
            folder if folder.is_absolute() and folder.is_dir() else None
        )
        plan = lay_out(
            policy,
            tuple(PlannedProbe.model_validate(probe) for probe in identity["probes"]),
            identity["contents"],
            _asked(policy, manifest),
            str(manifest["seeds"]["audit"]),
        )
        base = CheckpointFacts.model_validate(manifest["base"]) if manifest["base"] else None
        checkpoint = CheckpointFacts.model_validate(manifest["checkpoint"])
        seeds = Seeds(**manifest["seeds"])
        missing = {"title", "started", "command", "attempt", "weaker", "device"} - manifest.keys()
        missing |= {"versions", "plugins"} - identity.keys()
        if missing:
            raise KeyError(min(missing))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{out / 'manifest.json'} is damaged or of another version; audit again in a new folder."
        ) from error
    derived = derive_seeds(plan.policy, checkpoint.drawn_digest, base.drawn_digest if base else None)
    digests = (plan.policy.identity(plan.contents), checkpoint.digest, base.digest if base else None)
    if seeds != derived or digests != (
        identity.get("policy"),
        identity.get("checkpoint"),
        identity.get("base"),
    ):
        raise UsageError(
            f"{out / 'manifest.json'} contradicts itself: seeds or digests are not those of its policy and "
            "checkpoint."
        )
    for facts in (checkpoint, base):
        if (
            facts is not None
            and facts.form == "diffusers folder"
            and digest_of_folder(facts.files, facts.chosen) != facts.digest
        ):
            raise UsageError(
                f"{out / 'manifest.json'} contradicts itself: the digest of {facts.source} is not that of "
                "the files it names."
            )
    return Run(manifest, plan, seeds, checkpoint, base)


def _near_run(out: Path) -> str:
    """Where a run is instead: in a folder of ``out``, or beside it where there is none."""
    inside = sorted(out.glob("*/manifest.json")) if out.is_dir() else []
    return f" Did you mean '{inside[0].parent}'?" if inside else "" if out.exists() else beside(out)


def own_budget(policy: Policy) -> dict[str, Any]:
    """What a manifest notes of a policy beside which a larger budget was given."""
    found = policy.model_dump(mode="json", include={"budget", "on_undecided"})
    over = {} if policy.updates is None else {"updates": policy.updates.model_dump(mode="json")}
    return found | over


def _asked(policy: Policy, manifest: dict[str, Any]) -> Policy | None:
    """The policy as it was written; None where no larger budget was given beside it."""
    if "asked" not in manifest:
        return None
    document = policy.model_dump(mode="json") | manifest["asked"]
    asked = Policy.model_validate_json(json.dumps(document)).found_in(policy.folder)
    beside = beside_identity(sequential=True)
    if asked.model_dump(exclude=beside) != policy.model_dump(exclude=beside):
        raise ValueError("what was asked differs in more than its budget")
    return asked


def seal_of(manifest: dict[str, Any], key: bytes | None) -> Seal | None:
    """What signs the lines of the run that ``manifest`` names; None where there is no key."""
    return None if key is None else Seal(key, sha256_json(manifest["identity"]))


def threads_of(manifest: dict[str, Any] | None) -> int:
    """How many threads a run computes with: as many as its first call did, wherever it goes on."""
    threads = None if manifest is None else manifest.get("threads")
    return threads if type(threads) is int and 0 < threads <= _MOST_THREADS else threads_now()


def manifest_digest(out: Path) -> str:
    """sha256 of the manifest, as the process that writes to the journal notes it."""
    return sha256_file(out / "manifest.json")


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
    if (found := manifest.get("format", 1)) != FORMAT:
        raise UsageError(
            f"{out} is a run folder of format {found}, and this version reads {FORMAT}: its report can still "
            "be read; to judge it or go on with it, audit again in a new folder."
        )
    return manifest


def check_folder(out: Path, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the run that ``out`` holds, or None.

    Refuses a folder that holds something else, or a run of another identity; its budget may only have grown.
    """
    earlier = _read_manifest(out)
    if earlier is None:
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file; give a folder with --out.")
        if out.exists() and any(
            not path.name.startswith(".") and path.stat().st_size for path in out.iterdir()
        ):
            raise UsageError(f"{out} is not empty and holds no audit; give an empty folder with --out.")
        return None
    before, now = earlier["identity"], manifest["identity"]
    changed = [
        _difference(key, before.get(key), now[key])
        for key in now
        if before.get(key) != now[key] and key != "policy"
    ]
    if before.get("policy") != now["policy"] and earlier.get("policy") != manifest["policy"]:
        changed.append(_difference("policy", earlier.get("policy"), manifest["policy"]))
    usual = {"images_per_synonym": SYNONYM_IMAGES}  # left out of a policy's dump where it is usual
    asked = usual | manifest["policy"]["budget"]
    for key, value in asked.items():
        drawn = (usual | earlier["policy"]["budget"]).get(key)
        if value is not None and (drawn is None or value < drawn):
            changed.append(f"budget.{key} fell: {drawn} → {value}")
    before, now = (
        (found["policy"].get("updates") or {}).get("budget", {}).get("updates", 0)
        for found in (earlier, manifest)
    )
    if now < before:
        changed.append(f"updates.budget.updates fell: {before} → {now}")
    if changed:
        raise UsageError(f"{out} holds another audit ({'; '.join(changed)}); give a new folder with --out.")
    return earlier


def _difference(key: str, before: Any, now: Any) -> str:
    """Where two values of the manifest differ, down to the first keys that do."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = [
            name
            for name in (*before, *(name for name in now if name not in before))
            if before.get(name) != now.get(name)
        ]
        return "; ".join(_difference(f"{key}.{name}", before.get(name), now.get(name)) for name in inner[:3])
    return f"{key}: {str(before)[:80]} → {str(now)[:80]}"


_UNCOUNTED = "Attempts could not be counted"
_FROM_THE_FIRST = ("started", "attempt")
"""What a run keeps of its first call; everything else is as the latest call found it."""


def write_manifest(out: Path, manifest: dict[str, Any], cache: Path | None) -> str:
    """Write the manifest of a run, and return its sha256; called with the journal's lock held.

    What is said of the checkpoint is found anew in each call. Of an earlier call the start and the attempt's
    number stay, with the warning that it could not be counted.
    """
    earlier = _read_manifest(out)
    if earlier is None:
        attempt, uncounted = _attempt(manifest, cache)
        first: dict[str, Any] = {"attempt": attempt}
    else:
        uncounted = [text for text in earlier.get("warnings", ()) if text.startswith(_UNCOUNTED)]
        first = {key: earlier[key] for key in _FROM_THE_FIRST if key in earlier}
    manifest = manifest | first | {"warnings": [*manifest.get("warnings", ()), *uncounted]}
    if manifest != earlier:
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        # a path may hold bytes that are no text
        write_whole(out / "manifest.json", text.encode("utf-8", "replace"))
    return manifest_digest(out)


def _attempt(manifest: dict[str, Any], cache: Path | None) -> tuple[int, list[str]]:
    """Which audit seed this is, in order, of those that this machine's cache saw for the same erased concepts
    over the same base; with a warning where the cache could not say, or be told.

    Whoever changes a byte of a weight has another checkpoint and another seed; it is one more attempt all the
    same.
    """
    concepts, base = (
        sorted(as_read(concept["name"]) for concept in manifest["policy"]["erase"]),
        manifest["base"],
    )
    if cache is None:
        return 1, [f"{_UNCOUNTED}: this user has no home folder; give --cache or set AUDITOR_CACHE."]
    path = cache / "attempts" / f"{sha256_json([concepts, base['drawn_digest'] if base else None])}.txt"
    seeds, problem = list[str](), list[str]()
    try:
        seeds = path.read_text(encoding="utf-8", errors="replace").split() if path.is_file() else []
        if manifest["seeds"]["audit"] not in seeds:
            write_whole(path, ("\n".join([*seeds, manifest["seeds"]["audit"]]) + "\n").encode())
    except OSError as error:
        problem = [f"{_UNCOUNTED}: {sentence_at(error, cache)}"]
    return [*seeds, manifest["seeds"]["audit"]].index(manifest["seeds"]["audit"]) + 1, problem
