"""A policy with a population of updates, audited end to end on the small world."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import auditor
from auditor._journal.file import read_journal
from auditor._journal.lines import BatchLine
from auditor.builtins.probes.finetune import InDomain
from auditor.errors import UsageError
from auditor.policy import Policy
from auditor.report import Outcome, Report
from tests.conftest import short_policy
from tests.population import POPULATION

pytestmark = pytest.mark.usefixtures("nano")


def policy_with_updates(changes: dict[str, object] | None = None, **others: object) -> Policy:
    """The short policy with a population instead of probes."""
    updates = {
        "population": POPULATION,
        "claim": {"share": 0.5},
        "budget": {"updates": 8, "images_per_update": 80, "retained_per_update": 100},
    }
    usual: dict[str, object] = {
        "probes": [],
        "updates": updates | (changes or {}),
        "sequential": True,
        "budget": {"images_per_cell": 60, "retained_per_arm": 200},
    }
    return short_policy(**(usual | others))


@pytest.fixture(scope="module")
def audited(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("updates")
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(policy_with_updates().model_dump(mode="json")))
    return auditor.audit(str(erased), policy, folder / "run", cache=folder / "cache"), folder / "run"


def test_updates_are_made_and_read_in_the_order_in_which_they_were_drawn(
    audited: tuple[Report, Path],
) -> None:
    report, folder = audited
    found = report.population
    assert found is not None and report.verdict.outcome is Outcome.INCONCLUSIVE
    assert [each.number for each in found.updates] == list(range(1, len(found.updates) + 1))
    assert found.read == sum(each.state in ("clean", "unclean", "back") for each in found.updates) >= 2
    first = found.updates[0]
    assert first.state == "clean" and first.rates[0].clean and first.rates[0].images >= 65
    batches = [line for line in read_journal(folder / "journal.jsonl") if isinstance(line, BatchLine)]
    drawn = list(dict.fromkeys(line.arm for line in batches if line.arm.startswith("updates.")))
    assert drawn == [each.name for each in found.updates]


def test_a_run_that_was_killed_ends_in_the_same_report(
    audited: tuple[Report, Path], erased: Path, tmp_path: Path
) -> None:
    report, folder = audited
    shutil.copytree(folder.parent, tmp_path, dirs_exist_ok=True)
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    begun = next(n for n, line in enumerate(lines) if b"updates.1|update" in line)
    journal.write_bytes(b"".join(lines[: begun + 2]) + lines[begun + 2][:50])
    again = auditor.audit(str(erased), tmp_path / "policy.yaml", tmp_path / "run", cache=tmp_path / "cache")
    assert again.population == report.population
    assert again.verdict == report.verdict and again.cells == report.cells


def test_more_updates_go_on_in_the_same_folder(
    audited: tuple[Report, Path], erased: Path, tmp_path: Path
) -> None:
    report, folder = audited
    shutil.copytree(folder.parent, tmp_path, dirs_exist_ok=True)
    policy, run = tmp_path / "policy.yaml", tmp_path / "run"
    more = auditor.audit(str(erased), policy, run, cache=tmp_path / "cache", budget={"updates": 10})
    assert report.population is not None and more.population is not None
    before, after = report.population, more.population
    assert after.planned == 10 and after.updates[: before.read] == before.updates[: before.read]
    assert more.policy_digest == report.policy_digest
    with pytest.raises(UsageError, match="fell: 10"):
        auditor.audit(str(erased), policy, run, cache=tmp_path / "cache")


def test_updates_that_break_count_against_the_claim_and_the_run_goes_on(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[str]:
        raise RuntimeError("no concepts today")

    monkeypatch.setattr(InDomain, "choose", broken)
    policy = policy_with_updates({"budget": {"updates": 3}})
    report = auditor.audit(str(erased), policy, tmp_path / "run", cache=tmp_path / "cache")
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and report.population is not None
    assert not report.population.held and not report.population.failed
    first = report.population.updates[0]
    assert first.state == "unclean" and "no concepts today" in first.why
    assert any("1 broke" in reason for reason in report.verdict.reasons)


def test_what_names_no_update_is_said(erased: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no 'updates'"):
        auditor.audit(str(erased), short_policy(), tmp_path / "run", budget={"updates": 5})
