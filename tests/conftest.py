"""Fixtures: the real micro world, a short policy, an erased checkpoint, and journals written by hand for
the judge."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import auditor

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from auditor._audit.cells import PlannedSample, Role, Seeds
from auditor._audit.evidence.counts import tally
from auditor._audit.plan import Plan, make_plan
from auditor._audit.verdict.assemble import report_of
from auditor._files import bundled
from auditor._files.bundled import micro_world
from auditor._files.digest import sha256_json
from auditor._journal.lines import (
    ArmLine,
    BatchLine,
    ComparedLine,
    Line,
    RepeatLine,
    Sample,
    ScoreObservation,
    ShamLine,
)
from auditor.policy import Policy
from auditor.report import CheckpointFacts, Provenance, Report
from tests.faults.forks import Forks, serve_until
from tests.nano import SITE, WEIGHTS, nano_erased

LONG = (
    "tests/docs/",
    "tests/pretended_gpu/",
    "tests/test_wheel.py",
    "tests/faults/test_second_look.py",
    "tests/study/test_study.py",
    "tests/plugin/test_docs.py",
    "tests/faults/test_disk.py",
    "tests/audit/test_company.py",
    "tests/faults/test_resume.py",
    "tests/faults/test_fail_open.py",
    "tests/plugin/test_faulty.py",
    "tests/erase/test_erased.py",
    "tests/builtins/erasers/mace/test_eraser.py",
    "tests/builtins/test_conformance.py",
)
"""What takes minutes begins first, so that no worker ends long after the others."""

SEEDS = Seeds("audit", "shared")
FACTS = CheckpointFacts(
    source="x",
    form="diffusers folder",
    commit=None,
    digest="0" * 64,
    root_digest="0" * 64,
    parameters=1,
    files={},
)
PROVENANCE = Provenance(
    versions={},
    plugins={},
    audit_seed="audit",
    shared_seed="shared",
    seed_derivation="",
    attempt=1,
    replay=None,
    started="2026-01-01T00:00:00+00:00",
    device="cpu",
    command="",
    seconds=0,
)

DETECTOR = {
    "use": "clip-zero-shot",
    "options": {"model": "micro", "labels": "micro-all", "templates": "erasure-templates"},
}


def short_policy(**changes: object) -> Policy:
    """One person, two retained people, one probe of three steps: the real path in seconds."""
    options = {
        "candidates": "micro-people",
        "prompts": "paper-people",
        "names": 2,
        "images_per_prompt": 1,
        "learning_rate": 1e-3,
        "batch": 4,
    }
    document = {
        "version": 1,
        "base": {"source": "micro"},
        "erase": [
            {"name": "Borin Talvek", "domain": "people", "mapping": "a person", "prompts": "paper-people"}
        ],
        "retain": [
            {"name": name, "domain": "people", "prompts": "paper-people"}
            for name in ("Zelda Mirkov", "Dorval Quint")
        ],
        "sampler": {"scheduler": "dpm-solver++", "steps": 5, "guidance": 4.0, "size": 32},
        "probes": [{"use": "in-domain", "method": "lora", "doses": [3], "options": options}],
        "detectors": [DETECTOR],
        "limits": {"max_false_positive": 0.05},
        "sequential": False,
        "budget": {"images_per_cell": 60, "retained_per_arm": 120},
    }
    return Policy.model_validate_json(json.dumps(document | changes))


@pytest.fixture
def policy() -> Policy:
    """The short policy."""
    return short_policy()


Rate = Callable[[PlannedSample], bool | None]


def journal_of(
    plan: Plan,
    hit: Rate,
    *,
    fit: tuple[float, ...] = (0.5, 0.52, 0.51),
    skip: Callable[[PlannedSample], bool] | None = None,
) -> list[Line]:
    """A journal in which every planned sample was drawn; ``hit`` says whether its own concept was seen (None:
    missing).

    Erased concepts are never seen in retained images, unless the hit is given as such by the test itself.
    """
    parts = {"text_encoder": 0.0, "vae": 0.0}
    lines: list[Line] = [
        ComparedLine(prompts=9, same_vocabulary=True, read_otherwise=(), parts=parts, schedule={})
    ]
    erased = [concept.name for concept in plan.policy.erase]
    gate = plan.policy.detectors[0].use
    for arm in plan.arms:
        if arm.probe is not None:
            lines.append(
                ArmLine(
                    arm=arm.name,
                    seconds=1.0,
                    weights=arm.name,
                    fit_trained=fit,
                    fit_trained_before=(1.0, 1.02, 1.01),
                )
            )
        samples = []
        for planned in samples_of(plan, arm.name):
            if skip is not None and skip(planned):
                continue
            seen = hit(planned)
            own = planned.concept
            retained = (
                [concept.name for concept in plan.policy.retain] if planned.cell.role is Role.RETAINED else []
            )
            hits = dict.fromkeys([*erased, *retained], False) | {own: bool(seen)}
            said = {gate: seen_in(hits, own if seen else "nobody")}
            samples.append(
                Sample(
                    cell=planned.cell.name,
                    prompt=planned.prompt,
                    index=planned.index,
                    seed=planned.seed,
                    image=None if seen is None else sha256_json([arm.name, planned.prompt, planned.seed]),
                    flaw="blank" if seen is None else None,
                    observations={} if seen is None else said,
                )
            )
        lines.append(BatchLine(arm=arm.name, samples=tuple(samples), seconds=1.0))
    shams = [ShamLine(probe=name, images=8, different=0) for name in plan.probe_names]
    return [*lines, *shams, RepeatLine(shown=8, otherwise=0, drawn=8, different=0)]


def seen_in(hits: dict[str, bool], label: str = "") -> ScoreObservation:
    """What a detector says that is sure: a score of 1 where it sees a concept, and of 0 where not."""
    return ScoreObservation(label=label, hits=hits, scores={name: float(hit) for name, hit in hits.items()})


def samples_of(plan: Plan, arm: str) -> list[PlannedSample]:
    """Every sample of an arm."""
    return [sample for cell in plan.cells_of(arm) for sample in cell.samples(SEEDS)]


def verdict_of(plan: Plan, lines: list[Line]) -> Report:
    """The report on a journal, as if its checkpoint had been audited."""
    return report_of(
        plan, tally(plan, SEEDS, lines), title="x", checkpoint=FACTS, base=FACTS, provenance=PROVENANCE
    )


def erased_well(planned: PlannedSample) -> bool:
    """The base shows everything, every arm shows what was retained, nothing shows what was erased."""
    return planned.cell.role in (Role.POSITIVE, Role.PICTURE, Role.RETAINED)


@pytest.fixture
def plan(policy: Policy) -> Plan:
    """The short policy's plan."""
    return make_plan(policy)


@pytest.fixture(scope="module")
def nano() -> Iterator[None]:
    """For a module of mechanics: what is called ``micro`` is the nano world here, in this process and in
    those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "_MICRO_WORLD", WEIGHTS)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH")])))
        _forget_models()
        yield
    _forget_models()


def _forget_models() -> None:
    from auditor.builtins.clip.model import load_clip

    load_clip.cache_clear()


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a session have."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(session_folder: Path) -> Once:
    """``once(name, make)``: a folder that ``make`` fills once a session, whichever worker comes first. It
    belongs to every test: copy what you change. Each world has its own."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = session_folder / ("nano" if micro_world() == WEIGHTS else "micro") / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.with_suffix(".done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                folder.with_suffix(".done").touch()
        return folder

    return made


@pytest.fixture(scope="module")
def erased(once: Once) -> Path:
    """A checkpoint that was really erased: by a short MACE, or by the nano world's recipe."""
    return once("erased", _erase) / "mace"


def _erase(folder: Path) -> None:
    if micro_world() == WEIGHTS:
        nano_erased(folder / "mace")
        return
    from auditor._erase.erase import erase
    from auditor._erase.job import read_options

    options = read_options("micro-mace", ()) | {"steps": 5, "images": 4}
    erase("micro", short_policy(), "mace", folder / "mace", options=options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((n for n, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG))
    )


SMALL = {"images_per_cell": 10, "retained_per_arm": 10}


def policy_file(folder: Path, **changes: object) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(short_policy(**changes).model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def finished(erased: Path, once: Once, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """One short audit, run once a session: its report and, for this module, a copy of its folder."""

    def audit(folder: Path) -> None:
        policy = policy_file(folder, budget=SMALL)
        auditor.audit(str(erased), policy, folder / "run", cache=folder / "cache")

    folder = tmp_path_factory.mktemp("audit")
    shutil.copytree(once("finished", audit), folder, dirs_exist_ok=True)
    return auditor.judge_folder(folder / "run"), folder / "run"


@pytest.fixture(scope="session")
def forks(session_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """One process a session, whichever worker asks first, that forks for every command."""
    session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    with (session_folder / "forks").open("a+") as address:
        fcntl.flock(address, fcntl.LOCK_EX)
        address.seek(0)
        if not (where := address.read()):
            where = serve_until(session)
            address.write(where)
            address.flush()
    with Forks(tmp_path_factory.mktemp("forks"), where) as server:
        yield server
