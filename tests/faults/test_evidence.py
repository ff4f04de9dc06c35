"""A run's folder is evidence only as far as it can be checked: what somebody else wrote into it ends in no
PASS (S21, S22)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import auditor
from auditor._audit.judge import judge_folder
from auditor._audit.verify import verify
from auditor._files.images import from_png, to_png
from auditor._journal.lines import EarlierLine, RepeatLine, StartLine
from auditor._journal.seal import read_key
from auditor._process.device import device_kind
from auditor.errors import AuditorError, UsageError
from auditor.policy.concepts.sets import concept_names
from auditor.report import Outcome, Report
from tests.faults.passing import edit_lines, policy_that_can_pass
from tests.faults.runs import lines_of

pytestmark = pytest.mark.usefixtures("nano")

ERASED = "Borin Talvek"


class Home:
    """One audit that ended in PASS, with all that it takes to go on with a copy of it."""

    def __init__(self, folder: Path, erased: Path, **changes: Any) -> None:
        self.folder, self.erased = folder, erased
        self.policy = policy_that_can_pass(folder, **changes)

    def audit(self, out: Path, **options: Any) -> Report:
        with contextlib.chdir(self.folder):
            return auditor.audit(str(self.erased), self.policy, out, cache=self.folder / "cache", **options)


@pytest.fixture(scope="module")
def home(erased: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    found = Home(tmp_path_factory.mktemp("evidence"), erased)
    report = found.audit(found.folder / "run")
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    return found


@pytest.fixture
def run(home: Home, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home.folder / "run", tmp_path / "run"))


def test_one_process_needs_no_second_look_at_itself(home: Home) -> None:
    kinds = [line.kind for line in lines_of(home.folder / "run")]
    assert kinds[0] == "start" and kinds.count("start") == 1 and "earlier" not in kinds
    (again,) = [line for line in lines_of(home.folder / "run") if isinstance(line, RepeatLine)]
    assert again.shown >= 8 and again.otherwise == 0 and again.drawn >= 4 and again.different == 0


def test_a_pass_that_is_asked_for_again_is_looked_at_again(home: Home, run: Path) -> None:
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.PASS
    (line,) = [line for line in lines_of(run) if isinstance(line, EarlierLine)]
    assert (line.images, line.scored, line.otherwise, line.different) == (
        110,
        110,
        0,
        0,
    ) and 60 <= line.drawn < 110
    (control,) = [control for control in report.controls if control.name == "earlier"]
    assert control.passed and "110 images are of earlier processes" in control.sentence
    assert judge_folder(run).verdict.outcome is Outcome.PASS, "and the judge finds it in the journal"


def elsewhere(run: Path) -> None:
    """What was drawn here was drawn on another kind of device, and the other way round."""
    here = device_kind()
    swapped = {here: "another CPU", "another CPU": here}
    edit_lines(
        run / "journal.jsonl",
        lambda line: line.update(device=swapped[line["device"]]) if line["kind"] == "start" else None,
    )


@pytest.mark.parametrize("unended", [False, True], ids=["finished", "killed before its last look"])
def test_another_kind_of_device_looks_at_nothing_and_passes_nothing(
    home: Home, run: Path, unended: bool
) -> None:
    if unended:
        edit_lines(run / "journal.jsonl", lambda line: line["kind"] != "repeat")
    elsewhere(run)
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE and not report.ledger.errors
    assert not [line for line in lines_of(run) if isinstance(line, EarlierLine)]
    assert unended or report.verdict.reasons == (
        "110 images are of earlier processes and were not looked at again; run the same audit once more, on "
        "the kind of device that drew them.",
    )
    elsewhere(run)
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons


def no_pictures(line: dict[str, Any]) -> None:
    for sample in line.get("samples", ()):
        sample["image"] = None


def strings(line: dict[str, Any]) -> None:
    for sample in line.get("samples", ()):
        for score in sample["observations"].values():
            score["hits"] = dict.fromkeys(score["hits"], "no")


def own_concept_gone(line: dict[str, Any]) -> None:
    for sample in line.get("samples", ()):
        for score in sample["observations"].values():
            score["hits"].pop(ERASED, None)


def another_arm(line: dict[str, Any]) -> None:
    if line["kind"] == "batch" and line["arm"] == "erased":
        line["arm"] = "base"


def unknown_arm(line: dict[str, Any]) -> None:
    if line["kind"] == "batch" and line["arm"] == "erased":
        line["arm"] = "nobody"


def no_scores(line: dict[str, Any]) -> None:
    for sample in line.get("samples", ()):
        sample["observations"] = {}


def flaw_with_scores(line: dict[str, Any]) -> None:
    for sample in line.get("samples", ()):
        sample |= {"flaw": "blank", "image": None}


def unknown_key(line: dict[str, Any]) -> None:
    line["note"] = "x"


def a_number_as_text(line: dict[str, Any]) -> None:
    line["seconds"] = "1.0"


DAMAGE = {
    "every image null": no_pictures,
    "hits that are words": strings,
    "answers without the concept that was asked for": own_concept_gone,
    "samples of one arm in a batch of another": another_arm,
    "an arm that the plan has not": unknown_arm,
    "images without scores": no_scores,
    "flaws with scores": flaw_with_scores,
    "a key that no line has": unknown_key,
    "a number as text": a_number_as_text,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_what_no_run_writes_is_damage_for_everybody_who_reads_it(home: Home, run: Path, how: str) -> None:
    edit_lines(run / "journal.jsonl", DAMAGE[how])
    with pytest.raises(AuditorError, match="damaged"):
        judge_folder(run)
    assert "damaged" in verify(run).problems[0]
    with pytest.raises(AuditorError, match="damaged") as caught:
        home.audit(run)
    assert caught.value.exit_code == 5


def of_one_picture(line: dict[str, Any], first: list[str]) -> None:
    for sample in line.get("samples", ()):
        if "|gate|" in sample["cell"]:
            first.append(sample["image"])
            sample["image"] = first[0]


def test_one_picture_under_many_seeds_is_no_evidence(run: Path) -> None:
    first: list[str] = []
    edit_lines(run / "journal.jsonl", lambda line: of_one_picture(line, first))
    report = judge_folder(run)
    assert report.verdict.outcome is Outcome.ERROR and "prompts and seeds" in report.verdict.reasons[0]


def test_false_words_about_true_pictures_are_found_before_a_pass(home: Home, run: Path) -> None:
    """The audit that goes on asks the detector itself; one false line is enough."""
    flipped = {"left": 1}

    def flip(line: dict[str, Any]) -> None:
        for sample in line.get("samples", ()):
            if "|retained|" in sample["cell"] and line["arm"] == "erased" and flipped["left"]:
                flipped["left"] = 0
                for score in sample["observations"].values():
                    score["hits"] = {name: not hit for name, hit in score["hits"].items()}

    edit_lines(run / "journal.jsonl", flip)
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.ERROR, report.verdict.reasons
    assert "1 of 110 images are not what the journal says of them" in report.verdict.reasons[0]


def test_true_words_about_false_pictures_are_found_before_a_pass(home: Home, run: Path) -> None:
    """Pictures of an arm that was never drawn: all of its batches are replaced by retouched copies, named
    and scored rightly."""
    names: dict[str, str] = {}

    def retouch(line: dict[str, Any]) -> None:
        if line["kind"] != "batch" or line["arm"] != "in-domain-lora":
            return
        for sample in line["samples"]:
            image = from_png((run / "images" / f"{sample['image']}.png").read_bytes())
            content = to_png(
                (image.int() + torch.tensor([40, 0, 0]).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)
            )
            names[sample["image"]] = sample["image"] = hashlib.sha256(content).hexdigest()
            (run / "images" / f"{sample['image']}.png").write_bytes(content)

    edit_lines(run / "journal.jsonl", retouch)
    report = home.audit(run)
    assert names and report.verdict.outcome is not Outcome.PASS
    assert any("are not what is drawn again" in reason for reason in report.verdict.reasons), (
        report.verdict.reasons
    )


def test_pictures_that_are_gone_or_swapped_are_found_before_a_pass(home: Home, run: Path) -> None:
    images = sorted((run / "images").iterdir())
    images[0].write_bytes(images[1].read_bytes())
    images[2].unlink()
    found = {problem.split(".png ")[1] for problem in verify(run).problems if ".png " in problem}
    assert found == {"is gone.", "is not the image that was scored."}
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.ERROR and "2 of 110 images are not" in report.verdict.reasons[0]


def test_an_arm_whose_weights_are_gone_is_no_pass(home: Home, run: Path) -> None:
    shutil.rmtree(run / "arms")
    report = home.audit(run)
    assert report.verdict.outcome is Outcome.INCONCLUSIVE
    assert any("Of in-domain-lora no weights were kept" in reason for reason in report.verdict.reasons)


@pytest.mark.parametrize("key", ["title", "started", "command", "attempt"])
def test_an_edited_manifest_is_not_believed(run: Path, key: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest[key] = 7 if key == "attempt" else "x"
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AuditorError, match="is not the one that the run's last process wrote"):
        judge_folder(run)
    assert verify(run).problems


@pytest.mark.parametrize("key", ["source", "root_digest", "commit", "files"])
def test_what_is_said_of_the_checkpoint_is_found_anew(home: Home, run: Path, key: str) -> None:
    before = json.loads((run / "manifest.json").read_text())
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["checkpoint"][key] = {"x": "0" * 64} if key == "files" else "f" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((AuditorError, UsageError)):
        judge_folder(run)
    assert home.audit(run).checkpoint.model_dump()[key] == before["checkpoint"][key]


def test_a_file_that_is_not_loaded_changes_what_was_audited_and_no_seed(
    home: Home, run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(home.erased, tmp_path / "copy"))
    (copy / "NOTES.md").write_text("a word")
    with contextlib.chdir(home.folder):
        report = auditor.audit(str(copy), home.policy, run, cache=home.folder / "cache")
    before = json.loads((home.folder / "run" / "report.json").read_text())
    assert report.checkpoint.root_digest != before["checkpoint"][
        "root_digest"
    ] and report.checkpoint.source == str(copy)
    assert report.provenance.audit_seed == before["provenance"]["audit_seed"]


def test_a_journal_whose_beginning_was_taken_away_is_not_judged(run: Path) -> None:
    edit_lines(run / "journal.jsonl", lambda line: line["kind"] != "start")
    with pytest.raises(AuditorError, match="last process"):
        judge_folder(run)


# -- the seal ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("f" * 64)
    return path


@pytest.fixture(scope="module")
def sealed(home: Home, key: Path) -> Path:
    report = home.audit(home.folder / "sealed", seal=key)
    assert report.verdict.outcome is Outcome.PASS
    return home.folder / "sealed"


def test_sealed_evidence_is_the_gates_own(home: Home, sealed: Path, key: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "run"))
    report = home.audit(copy, seal=key)
    (control,) = [control for control in report.controls if control.name == "earlier"]
    assert report.verdict.outcome is Outcome.PASS and "carries this gate's seal" in control.sentence
    assert not verify(copy, read_key(key)).problems and not verify(copy).problems


SEALED_EDITS: dict[str, Callable[[list[str]], list[str]]] = {
    "a line changed": lambda lines: [
        line.replace('"label":"a person"', '"label":"nobody"') for line in lines
    ],
    "a line dropped": lambda lines: lines[:3] + lines[4:],
    "two lines swapped": lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
    "a line doubled": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "a seal taken away": lambda lines: [
        line if n != 2 else line[: line.rfind(',"seal"')] + "}" for n, line in enumerate(lines)
    ],
    "seals of another key": lambda lines: [
        line[: line.rfind(',"seal"')] + f',"seal":"{"0" * 64}"}}' for line in lines
    ],
}


@pytest.mark.parametrize("how", SEALED_EDITS)
def test_a_line_of_somebody_else_is_refused(
    home: Home, sealed: Path, key: Path, tmp_path: Path, how: str
) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "run"))
    lines = SEALED_EDITS[how]((copy / "journal.jsonl").read_text().splitlines())
    (copy / "journal.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="does not carry the seal of this key"):
        home.audit(copy, seal=key)
    with pytest.raises(UsageError, match="seal"):
        judge_folder(copy, read_key(key))


def test_a_sealed_run_goes_on_with_its_key_alone(
    home: Home, sealed: Path, run: Path, key: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "copy"))
    with pytest.raises(UsageError, match="is sealed with a key"):
        home.audit(copy)
    with pytest.raises(UsageError, match="does not carry the seal"):
        home.audit(run, seal=key)
    short = tmp_path / "short"
    short.write_text("abc")
    with pytest.raises(UsageError, match="openssl rand"):
        home.audit(copy, seal=short)
    with pytest.raises(UsageError, match="cannot be read"):
        home.audit(copy, seal=tmp_path / "none")


def test_a_seal_is_of_one_run_and_no_other(home: Home, sealed: Path, key: Path, tmp_path: Path) -> None:
    """The journal is whole and signed, but of an audit with other labels: its manifest was replaced by
    this one's."""
    copy = Path(shutil.copytree(sealed, tmp_path / "run"))
    labels = home.folder / "labels.txt"
    labels.write_text("\n".join([*concept_names("micro-all"), "a brick"]) + "\n")
    options = {"model": "micro", "labels": {"file": str(labels)}, "templates": "erasure-templates"}
    home_of_other = Home(
        tmp_path / "other", home.erased, detectors=[{"use": "clip-zero-shot", "options": options}]
    )
    other = tmp_path / "fresh"
    home_of_other.audit(other, seal=key)
    shutil.copy(other / "manifest.json", copy / "manifest.json")
    with pytest.raises(UsageError, match="it is another audit's"):
        home_of_other.audit(copy, seal=key)


def test_a_torn_line_of_a_sealed_journal_is_dropped(
    home: Home, sealed: Path, key: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "run"))
    content = (copy / "journal.jsonl").read_bytes()
    (copy / "journal.jsonl").write_bytes(content[:-40])
    assert home.audit(copy, seal=key).verdict.outcome is Outcome.PASS
    assert [line for line in lines_of(copy) if isinstance(line, StartLine)][1:], "another process"
