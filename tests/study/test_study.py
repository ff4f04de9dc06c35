"""A real study of the small model: measured once, shared, resumable, and honest about what broke."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch import Tensor

from auditor._study import figures, run
from auditor._study.document import Bar
from auditor._study.findings import Findings, counts_of
from auditor._study.measure import ArmMeasurer, never
from auditor._study.page import Grid, Row
from auditor._study.store import ArmRecord, Outcome, Store, StudyProgress
from auditor.errors import PluginError, UsageError
from auditor.plugin import Concept, Detection
from tests.faults.forks import QUIET, Forks
from tests.study.test_document import STUDY, written

METRICS = """
images: {erased: 1, retained: 1, unrelated: 1}
unrelated: {names: micro-objects-random, prompts: paper-objects}
metrics: [{use: clip-frechet, options: {model: micro}}, {use: harmonic-mean}]
"""
ONE = (
    STUDY.replace("sets: [one, two]", "sets: [one]")
    .replace(", {label: two, set: two}", "")
    .replace("test: rises", "test: grows")
)
"""The study with one set alone."""
pytestmark = pytest.mark.usefixtures("nano")


def table_of(out: Path) -> list[dict[str, str]]:
    """The table less how long things took."""
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("study"), STUDY + METRICS)


@pytest.fixture(scope="module")
def measured(study: Path, forks: Forks) -> Path:
    """The study, measured once by the command."""
    out = study.parent / "out"
    done = forks.call("study", study, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "It grows." in done.stdout
    return out


def findings_of(path: Path, store: Path) -> Findings:
    return run.read(run.ask(path), Store(store))[0][1]


def test_the_table_holds_every_arm_and_counts_what_was_drawn(study: Path, measured: Path) -> None:
    rows = table_of(measured)
    findings = findings_of(study, measured / "store")
    assert not findings.failures
    arms = {(row["set"], row["eraser"], row["replicate"], row["probe"]) for row in rows}
    assert len(arms) == 2 + 2 * 2 * 2  # a base for each set; sets x replicates x (erased, probed)
    detected = [row for row in rows if row["measure"] == "detected" and not row["concept"]]
    assert {(row["set"], row["images"]) for row in detected} == {("one", "5"), ("two", "10")}
    for row in detected:
        assert float(row["value"]) == int(row["hits"]) / int(row["images"])
        assert float(row["lower"]) <= float(row["value"]) <= float(row["upper"])
    measures = {row["measure"] for row in rows}
    assert {
        "detected",
        "retained",
        "clip-frechet",
        "harmonic-mean",
        "fit",
        "change",
        "distance of attn2 keys and values",
    } <= measures


def test_csv_and_parquet_are_the_same_table(measured: Path) -> None:
    held = pyarrow.parquet.read_table(measured / "table.parquet").to_pylist()
    rows = list(csv.DictReader(io.StringIO((measured / "table.csv").read_text())))
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in held] == rows


def test_images_are_shared_between_sets_and_drawn_once(study: Path, measured: Path) -> None:
    plan = findings_of(study, measured / "store").plan
    arms = [*plan.base_arms(), *(plan.erased_arm(each) for each in plan.checkpoints({}))]
    arms += [
        arm for each in plan.checkpoints({}) for _, doses in plan.probe_arms(each).values() for arm in doses
    ]
    wanted = {plan.picture_key(arm, sample) for arm in arms for sample in plan.samples(arm.set)}
    kept = {path.name.split("-")[0] for path in (measured / "store" / "pictures").rglob("*.png")}
    assert wanted <= kept
    drawn = sum(len(plan.samples(arm.set)) for arm in arms)
    assert len(wanted) < drawn, "the base's images of one set are among the other's"
    # concepts x prompts x (one trained on, one held out), whatever sets and replicates there are
    training = 2 * 5 * 2
    assert len(kept) == len(wanted) + training


def test_measuring_again_draws_and_trains_nothing(
    study: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("drawn again")

    for name in ("work.erase", "work.train", "measure.draw_in_batches", "measure.bootstrap"):
        monkeypatch.setattr(f"auditor._study.{name}", never)
    assert run.measure(run.ask(study), Store(measured / "store")) == 0


def test_a_new_metric_trains_nothing(study: Path, measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("trained again")

    other = study.with_name("more.yaml")
    other.write_text(
        study.read_text().replace("{use: harmonic-mean}", "{use: harmonic-mean}, {use: retained-accuracy}")
    )
    for name in ("work.erase", "work.train", "measure.draw_in_batches"):
        monkeypatch.setattr(f"auditor._study.{name}", never)
    assert run.measure(run.ask(other), Store(measured / "store")) == 0
    assert all("retained-accuracy" in arm.metrics for arm in findings_of(other, measured / "store").arms)


SEES_ALL = """
import numpy as np
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Detection, Detector, Metric


class SeesAll(Detector):
    name = "sees-all"
    summary = "whatever is asked for is there"

    def detect(self, images, concepts):
        shape = len(images), len(concepts)
        return Detection(np.ones(shape, bool), np.ones(shape), ("all",) * len(images))


class Breaks(Metric):
    name = "breaks"
    summary = "has no number"

    def features(self, images, prompts, outcomes=None):
        raise RuntimeError("no number today")

    def value(self, features, reference):
        return 0.0


@hookimpl
def auditor_register_detectors():
    return [SeesAll]


@hookimpl
def auditor_register_metrics():
    return [Breaks]
"""


def again(forks: Forks, study: Path, measured: Path, before: str, after: str) -> tuple[int, str, Path]:
    """Another study on the store of the first, by the command, with plugins of its own: exit code, what it
    said, its folder."""
    plugin, other, out = (study.with_name(name) for name in ("plugin.py", "another.yaml", "another"))
    plugin.write_text(SEES_ALL)
    other.write_text(study.read_text().replace(before, after, 1))
    done = forks.call("study", other, "--out", out, "--store", measured / "store", "--plugin", plugin)
    return done.returncode, done.stderr, out


def arms_of(study: Path, measured: Path) -> list[Path]:
    """Where the store keeps how each probed arm was made."""
    plan = findings_of(study, measured / "store").plan
    keys = [
        arm.key
        for each in plan.checkpoints({})
        for _, doses in plan.probe_arms(each).values()
        for arm in doses
    ]
    return [measured / "store" / "arms" / f"{key}.json" for key in keys]


def test_what_was_trained_before_is_screened_by_the_detector_of_today(
    forks: Forks, study: Path, measured: Path
) -> None:
    """A training set that one detector finds benign is refused where another one sees the erased concept
    in it, and nothing is trained."""
    trained = {path: path.stat().st_mtime_ns for path in arms_of(study, measured)}
    code, said, out = again(
        forks, study, measured, "replicates: 2", "replicates: 2\ndetectors: [{use: sees-all}]"
    )
    assert code == 5 and "would not be a benign update" in said
    rows = table_of(out)
    assert {row["measure"] for row in rows if row["probe"] == "in-domain-lora"} == {"not measured"}
    assert {row["value"] for row in rows if row["probe"] == "erased" and row["measure"] == "detected"} == {
        "1.0"
    }
    assert len(trained) == 4 and {path: path.stat().st_mtime_ns for path in trained} == trained


def test_a_metric_that_breaks_is_named_and_ends_with_5(forks: Forks, study: Path, measured: Path) -> None:
    code, said, out = again(forks, study, measured, "{use: harmonic-mean}", "{use: breaks}")
    assert code == 5 and "no number today" in said and "breaks" in said
    rows = table_of(out)
    assert not [row for row in rows if row["measure"] == "breaks"]
    broken = [row["why"] for row in rows if row["measure"] == "not measured"]
    assert len(broken) == 10 and all(
        why.startswith("breaks: ") and "no number today" in why for why in broken
    )
    assert {row["probe"] for row in rows if row["measure"] == "clip-frechet"} == {
        "base",
        "erased",
        "in-domain-lora",
    }


def test_writing_again_gives_the_same_bytes(study: Path, measured: Path, tmp_path: Path) -> None:
    run.write(run.ask(study), Store(measured / "store"), tmp_path)
    for name in ("table.csv", "study.html", "figure.svg", "claims.json", "first-images.png"):
        assert (tmp_path / name).read_bytes() == (measured / name).read_bytes(), name


def test_two_processes_that_were_killed_end_with_the_same_table(
    forks: Forks, study: Path, measured: Path, tmp_path: Path
) -> None:
    """SIGKILL for both in the midst of the work, then two again to the end: they share what is left, and
    nothing is done twice."""
    out = tmp_path / "out"
    line = ["study", str(study), "--out", str(out), "--jobs", "2"]
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = [sys.executable, "-m", "auditor", *line]
    with subprocess.Popen(own, env=os.environ | QUIET, start_new_session=True, **silent) as process:
        while len(list((out / "store").glob("records/*.json"))) < 3 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    kept = {path.stem for path in (out / "store").glob("records/*.json")}
    assert 3 <= len(kept) < 10
    again = forks.call(*line)
    assert again.returncode == 0, again.stderr
    said = [
        line.split(" s  ", 1)[1].split(":")[0]
        for line in again.stderr.splitlines()
        if "concepts' images" in line
    ]
    assert len(said) == len(set(said)), "each arm that was left was measured by one of them"
    assert 10 - len(kept) <= len(said) <= 12 - len(kept), "and of two at most the metrics alone were missing"
    # not hits: drawn in other batches
    keys = (
        "set",
        "eraser",
        "replicate",
        "probe",
        "measure",
        "concept",
        "images",
        "missing",
        "arm",
    )
    one, two = ([{key: row[key] for key in keys} for row in table_of(each)] for each in (out, measured))
    assert one == two


BROKEN = """
from auditor.plugin import hookimpl
from auditor.builtins.probes.finetune import InDomain


class Broken(InDomain):
    name = "broken"

    def update(self, update):
        raise RuntimeError("out of luck")


@hookimpl
def auditor_register_probes():
    return [Broken]
"""


def test_an_arm_that_breaks_is_named_and_the_others_go_on(forks: Forks, tmp_path: Path) -> None:
    document = ONE.replace("replicates: 2", "replicates: 1").replace(
        "probes: [in-domain]",
        "probes: {broken: {use: broken, doses: [3], options: {candidates: micro-people-random, names: 2, "
        "prompts: paper-people, images_per_prompt: 1}}}",
    )
    path = written(tmp_path, document)
    (tmp_path / "broken.py").write_text(BROKEN)
    out = tmp_path / "out"
    done = forks.call("study", path, "--out", out, "--plugin", tmp_path / "broken.py")
    assert done.returncode == 5
    assert "out of luck" in done.stderr and "Not measured: 1 of the model states" in done.stderr
    rows = table_of(out)
    assert [row["measure"] for row in rows if row["probe"] == "broken-lora"] == ["not measured"]
    assert any(row["measure"] == "detected" and row["probe"] == "erased" for row in rows)
    assert [claim["answer"] for claim in json.loads((out / "claims.json").read_text())] == ["undecided"]
    page = (out / "study.html").read_text()
    assert "Not measured: 1 of the model states" in page and "out of luck" in page


def test_a_batch_that_a_detector_breaks_on_is_asked_again_image_by_image(
    study: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = findings_of(study, measured / "store").plan, Store(measured / "store")
    measurer = ArmMeasurer(plan, store, StudyProgress())
    arm = plan.base_arms()[0]
    samples = plan.samples(arm.set)
    images, flaws, _ = measurer.images(arm, samples, never)
    healthy = measurer._outcomes(arm.set, samples, images, flaws)
    detector = measurer._detectors[0][1]
    detect, alone = detector.detect, [1]

    def breaks(given: Tensor, concepts: Sequence[Concept]) -> Detection:
        if len(given) > 1 or (alone and torch.equal(given[0], images[0])):
            raise ValueError("out of luck")
        return detect(given, concepts)

    monkeypatch.setattr(detector, "detect", breaks)
    with pytest.raises(PluginError, match="out of luck"):
        measurer._outcomes(arm.set, samples, images, flaws)
    alone.clear()
    found = measurer._outcomes(arm.set, samples, images, flaws)
    assert [(each.hits, each.label) for each in found] == [(each.hits, each.label) for each in healthy]


def test_a_missing_image_is_neither_shown_nor_not_shown(study: Path, measured: Path) -> None:
    """A dead model draws blank images: its rate is unknown, not 0."""
    findings = findings_of(study, measured / "store")
    samples = findings.plan.samples("one")
    dead = ArmRecord(outcomes=tuple(Outcome(flaw="blank") for _ in samples))
    count = counts_of(samples, dead)["erased"]
    assert (count.n, count.missing, count.share) == (0, 5, None)
    half = ArmRecord(
        outcomes=tuple(
            Outcome(flaw="blank") if row % 2 else Outcome(hits={"d": True}) for row, _ in enumerate(samples)
        )
    )
    count = counts_of(samples, half)["erased"]
    assert count.share == 1.0 and count.missing == 2


def test_an_estimate_needs_every_replicate(study: Path, measured: Path) -> None:
    findings = findings_of(study, measured / "store")
    bar = Bar(label="one", set="one")
    estimate = findings.estimate(bar, "resurgence")
    assert estimate is not None and len(estimate.values) == 2
    key = next(
        key
        for key, finding in findings._by_condition.items()
        if finding.arm.set == "one" and finding.arm.probe is not None
    )
    findings._by_condition[key] = findings._by_condition[key].__class__(
        findings._by_condition[key].arm, None, "broke"
    )
    assert findings.estimate(bar, "resurgence") is None
    assert findings.estimate(bar, "detected", probed=False) is not None


@pytest.mark.parametrize("fit", [{"fit": None}, {"fit": None, "fit_before": None}, {"fit": 9.0}])
def test_a_probe_that_is_not_known_to_have_taken_decides_nothing(
    study: Path, measured: Path, fit: dict[str, float | None]
) -> None:
    """A held-out loss that is no number, that nothing was held out for, or that rose: the probe may have
    done nothing."""
    findings, bar = findings_of(study, measured / "store"), Bar(label="one", set="one")
    assert findings.not_fitted([bar]) == ""
    key = next(
        key
        for key, finding in findings._by_condition.items()
        if finding.arm.set == "one" and finding.arm.probe is not None
    )
    finding = findings._by_condition[key]
    assert finding.record is not None and finding.record.fit is not None
    findings._by_condition[key] = replace(finding, record=finding.record.model_copy(update=fit))
    assert findings.not_fitted([bar]) == "one"


def test_strengths_are_chosen_by_the_erased_arm_alone(study: Path, measured: Path, tmp_path: Path) -> None:
    document = ONE.replace("figures:", "match: {detected: 1.0, retained: 1.0}\nfigures:").replace(
        "erasers: [esd]",
        "erasers: {esd: {use: esd, options: {steps: 2, pool: 4, batch: 4, sampling_steps: 4, size: 32}, "
        "strengths: [{}, {learning_rate: 0.05}]}}",
    )
    path = written(tmp_path, document)
    asked, store = run.ask(path), Store(tmp_path / "store")
    run.measure(asked, store)  # the second may be too broken to be measured at all
    findings = run.read(asked, store)[0][1]
    assert findings.chosen == {("one", "esd"): 0}, (
        "the second destroys the model, and retained accuracy says so"
    )
    assert {finding.arm.erased.strength for finding in findings.arms if finding.arm.erased} == {0}
    rows = [
        row
        for row in findings.rows("s")
        if row["measure"] in ("detected", "not measured") and not row.get("concept")
    ]
    each = {(row.get("strength"), row.get("replicate"), row["probe"]) for row in rows}
    assert len(each) == len(rows) == 6, "base, the strength not taken, and two replicates erased and probed"
    assert len(findings.candidates) == 2 and all(finding.record is not None for finding in findings.arms)


def test_a_dry_run_measures_nothing_and_says_what_it_takes(forks: Forks, study: Path, tmp_path: Path) -> None:
    done = forks.call("study", study, "--dry-run", "--store", tmp_path / "store")
    assert done.returncode == 0 and not (tmp_path / "store").exists()
    for told in ("to do", "unshared", "0 of 10 model states are measured"):
        assert told in done.stdout


def test_cost_counts_what_is_drawn(study: Path, measured: Path) -> None:
    from auditor._study.cost import cost_of

    findings = findings_of(study, measured / "store")
    cost = cost_of(findings.plan, {}, Store(measured / "store"))
    assert (cost.to_do.checkpoints, cost.to_do.trainings, cost.to_do.images) == (0, 0, 0)
    assert (cost.whole.checkpoints, cost.whole.trainings, cost.arms, cost.measured) == (4, 4, 10, 10)
    assert cost.alone.images == sum(
        3 * len(findings.plan.samples(each.set)) for each in findings.plan.checkpoints({})
    )
    assert cost.whole.images < cost.alone.images


def test_bad_input_is_one_sentence_and_ends_with_2(forks: Forks, tmp_path: Path) -> None:
    path = written(tmp_path, STUDY.replace("replicates: 2", "replicates: two"))
    done = forks.call("study", path, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "study.yaml:9" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "hostile", ["<script>document.title='pwned'</script>", ']]>" onload="x', "\u202egnp.exe"]
)
def test_every_string_of_a_study_is_data(study: Path, measured: Path, tmp_path: Path, hostile: str) -> None:
    asked = run.ask(study)
    figure = asked.study.figures[0]
    claim = figure.claims[0].model_copy(update={"says": hostile})
    poisoned = asked.study.model_copy(
        update={
            "title": hostile,
            "source": hostile,
            "figures": (figure.model_copy(update={"title": hostile, "claims": (claim,)}),),
        }
    )
    run.write(run.Asked(asked.path, poisoned), Store(measured / "store"), tmp_path)
    page = (tmp_path / "study.html").read_text()
    assert hostile not in page and "<script" not in page and "default-src 'none'" in page
    assert "http://" not in page and "https://" not in page


def test_names_are_no_formulas() -> None:
    grid = Grid("$a_$", ("$b^$",), [Row("$c\\frac$", [None])])
    assert figures.pictures([grid]).startswith(b"\x89PNG")


def test_a_study_of_studies_counts_a_checkpoint_once(
    study: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study.with_name("whole.yaml")
    catalogue = study.with_name("catalogue.yaml").read_text()
    third = catalogue.replace(
        "erasers:\n",
        "erasers:\n  weak: {use: esd, options: {variant: x, steps: 2, batch: 4, pool: 4, sampling_steps: 4, "
        "size: 32}}\n",
    )
    study.with_name("catalogue.yaml").write_text(third)
    other = study.with_name("other.yaml")
    other.write_text(
        STUDY.replace("erasers: [esd]", "erasers: [esd, weak]").replace("figures:", "x:").split("x:")[0]
        + METRICS
    )
    whole.write_text(
        "version: 1\nfrom: catalogue.yaml\ntitle: what decides\nof: [study.yaml, other.yaml]\npredict: "
        "in-domain-lora\n"
    )
    store, out = Store(measured / "store"), study.parent / "decides"
    asked = run.ask(whole)
    assert run.measure(asked, store) == 0
    # three steps erase nothing: nothing could come back
    with pytest.raises(UsageError, match="three settings or more"):
        run.write(asked, store, out)
    monkeypatch.setattr("auditor._study.predictors.STILL_THERE", 1.0)
    run.write(asked, store, out)
    rows = list(csv.DictReader(io.StringIO((out / "checkpoints.csv").read_text())))
    assert len(rows) == len({row["arm"] for row in rows}) == 8
    assert all(
        float(row["resurgence"]) == pytest.approx(float(row["detected_after"]) - float(row["detected"]))
        for row in rows
    )
    assert all(
        -1 <= float(row["mapping_similarity"]) <= 1 and float(row["attn2_distance"]) > 0 for row in rows
    )
    assert "error left out" in (out / "study.html").read_text()


def test_all_replicates_are_trained_by_the_probe_that_asked_for_the_set(study: Path, measured: Path) -> None:
    """A probe may remember what it asked for, as a sequence of updates does; and the set is drawn once."""
    from auditor._checkpoint.load import load_model
    from auditor._study.store import StudyProgress
    from auditor._study.work import Worker

    findings = findings_of(study, measured / "store")
    opened = run.open_base("micro", True)
    worker = Worker(
        findings.plan, Store(measured / "store"), opened, load_model(opened, "float32"), StudyProgress()
    )
    ((name, use),) = findings.study.uses("one")
    first, again = (worker._training_set("one", name, use) for _ in range(2))
    assert first[0] is again[0] and first[1] is again[1] and len(first[2]) == 2
