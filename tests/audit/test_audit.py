"""The whole path on real models: erase, audit, resume, judge again, and what must not pass."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import auditor
from auditor._audit.judge import judge_folder
from auditor._audit.run_folder.manifest import open_run
from auditor._journal.file import read_journal
from auditor._journal.lines import BatchLine
from auditor.errors import RefusedError, UsageError
from auditor.plugin import Detector, Metric, OptionsModel, Plugin, Probe
from auditor.report import Report
from tests.conftest import SMALL, policy_file

pytestmark = pytest.mark.usefixtures("nano")


def test_an_audit_draws_everything_it_planned(finished: tuple[Report, Path]) -> None:
    report, out = finished
    assert report.ledger.whole and report.ledger.planned == 65
    assert report.training[0].images == 10 and len(report.training[0].concepts) == 2
    assert not set(report.training[0].concepts) & {"Borin Talvek", "Zelda Mirkov", "Dorval Quint"}
    for picture in report.pictures:
        assert (out / "images" / f"{picture.image}.png").is_file()
    assert {path.name for path in out.iterdir()} == {
        "manifest.json",
        "journal.jsonl",
        "images",
        "arms",
        "report.json",
        "report.html",
    }


def test_the_report_reads_back_and_judging_again_gives_the_same_bytes(finished: tuple[Report, Path]) -> None:
    report, out = finished
    before = {name: (out / name).read_bytes() for name in ("report.json", "report.html")}
    assert Report.model_validate_json(before["report.json"]) == report == judge_folder(out)
    assert before == {name: (out / name).read_bytes() for name in before}


def test_the_same_call_again_draws_nothing(finished: tuple[Report, Path], erased: Path) -> None:
    report, out = finished

    def call() -> Report:
        return auditor.audit(str(erased), out.parent / "policy.yaml", out, cache=out.parent / "cache")

    again = call()  # the folder was copied: its manifest names another policy file
    lines = (out / "journal.jsonl").read_bytes()
    assert call() == again
    assert (out / "journal.jsonl").read_bytes() == lines
    assert (again.cells, again.controls, again.verdict) == (report.cells, report.controls, report.verdict)


def test_another_audit_of_the_same_base_takes_its_pictures_from_the_cache(
    finished: tuple[Report, Path], erased: Path, tmp_path: Path
) -> None:
    _, out = finished
    auditor.audit(str(erased), out.parent / "policy.yaml", tmp_path / "run", cache=out.parent / "cache")
    cached = [
        line.cached
        for line in read_journal(tmp_path / "run" / "journal.jsonl")
        if isinstance(line, BatchLine) and line.arm == "base"
    ]
    assert cached and all(cached)


def test_relative_paths_of_a_policy_lead_from_its_folder_in_a_replay_too(
    finished: tuple[Report, Path],
) -> None:
    _, out = finished
    assert open_run(out).plan.policy.folder == out.parent.resolve()


def test_the_base_itself_is_refused(tmp_path: Path, policy: object) -> None:
    with pytest.raises(RefusedError, match="nothing was erased"):
        auditor.audit("micro", policy_file(tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"candidates": ["Borin Talvek", "Imka Soren"]}, "needs 2 concepts and has 1"),
        (
            {"candidates": ["Imka Soren", "Yara Belmos"], "prompts": ["a portrait of {} with Borin Talvek"]},
            "names 'Borin Talvek'",
        ),
        ({"candidates": []}, "nothing to train on"),
    ],
)
def test_an_erased_concept_in_a_training_set_is_refused(
    erased: Path, tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    probes = [{"use": "in-domain", "doses": [1], "options": {"names": 2, "images_per_prompt": 1} | options}]
    with pytest.raises(UsageError, match=sentence):
        auditor.audit(
            str(erased), policy_file(tmp_path, probes=probes, budget=SMALL), tmp_path / "run", cache=tmp_path
        )


def test_a_base_given_on_the_command_line_replaces_none(erased: Path, tmp_path: Path) -> None:
    report = auditor.audit(
        str(erased),
        policy_file(tmp_path, base="none", budget=SMALL),
        tmp_path / "run",
        base="micro",
        cache=tmp_path,
    )
    assert report.base is not None and report.policy["base"]["source"] == "micro"
    assert report.ledger.whole


def test_each_plugin_is_made_once_an_audit(
    erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Counter[str]()
    begin = Plugin.__init__

    def counted(plugin: Plugin, options: OptionsModel) -> None:
        made[plugin.name] += isinstance(plugin, Probe | Detector | Metric)
        begin(plugin, options)

    monkeypatch.setattr(Plugin, "__init__", counted)
    probe = {
        "use": "in-domain",
        "doses": [1],
        "replicates": 2,
        "options": {"candidates": "micro-people", "names": 2, "images_per_prompt": 1},
    }
    metrics = [{"use": "clip-score", "options": {"model": "micro"}}]
    policy = policy_file(tmp_path, probes=[probe], metrics=metrics, budget=SMALL)
    report = auditor.audit(str(erased), policy, tmp_path / "run", cache=tmp_path / "cache")
    assert report.ledger.whole and report.metrics
    assert +made == {"in-domain": 1, "clip-zero-shot": 1, "clip-score": 1}
