"""More than thirty faulty plugins: none stops the others, none leads to PASS, each is named."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

import auditor
from auditor._files import entry_points as entries
from auditor._journal.file import read_journal
from auditor.errors import PluginError, PolicyError
from auditor.plugin import _loader as loader
from auditor.plugin._loader import add_file, find_plugin, load_plugins
from auditor.report import Outcome, Report
from tests.conftest import DETECTOR, short_policy
from tests.faults.forks import Forks
from tests.faults.test_fail_open import HEALTHY, shared  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("nano")

FAULTY = Path(__file__).with_name("faulty.py")
NAMES = [name for name in FAULTY.read_text().split('"') if name.startswith(("probe-", "detector-"))]
AT_RUN = [
    name
    for name in NAMES
    if name.startswith("probe-") and name not in ("probe-cannot-be-made", "probe-hangs")
]
WRONG = {
    "import-raises": "raise RuntimeError('no luck')",
    "import-exits": "raise SystemExit(0)",
    "import-panics": "class Panic(BaseException): pass\nraise Panic('called unwrap on None')",
    "registration-is-cancelled": "import asyncio\n@hookimpl\ndef auditor_register_probes():\n    raise "
    "asyncio.CancelledError",
    "package-is-missing": "import no_such_package",
    "syntax": "def (",
    "registration-raises": "@hookimpl\ndef auditor_register_probes():\n    raise RuntimeError('not today')",
    "no-list": "@hookimpl\ndef auditor_register_probes():\n    return Mine",
    "no-class": "@hookimpl\ndef auditor_register_probes():\n    return ['mine']",
    "no-probe": "@hookimpl\ndef auditor_register_probes():\n    return [dict]",
    "no-method": "@hookimpl\ndef auditor_register_probes():\n    return [type('Half', (Probe,), {'name': "
    "'half', 'summary': 'x'})]",
    "no-summary": "@hookimpl\ndef auditor_register_probes():\n    return [type('Dumb', (Mine,), {'name': "
    "'dumb', 'summary': ''})]",
    "bad-name": "@hookimpl\ndef auditor_register_probes():\n    return [type('Bad', (Mine,), {'name': 'Bad "
    "Name'})]",
    "anothers-name": "@hookimpl\ndef auditor_register_probes():\n    return [type('Thief', (Mine,), {'name': "
    "'in-domain'})]",
    "unknown-hook": "@hookimpl\ndef auditor_register_probe():\n    return [Mine]",
    "nothing-registered": "x = 1",
    "bad-arguments": "@hookimpl\ndef auditor_register_probes(magic):\n    return [Mine]",
}
"""What is wrong when it is loaded, by name."""
HEAD = """
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Probe
class Mine(Probe):
    name, summary = "mine", "a probe"
    def training_set(self, setting): return []
    def update(self, update): return iter(())
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Files, entry points and the working folder of one test are none of the next one's."""
    with contextlib.chdir(Path.cwd()):
        yield
    loader._files.clear()
    load_plugins.cache_clear()


def audit(folder: Path, home: Path, **changes: object) -> Report:
    """The healthy audit of the fail-open tests, which passes, with ``changes``."""
    os.chdir(home)
    healthy = {
        "use": "in-domain",
        "method": "lora",
        "doses": [8],
        "options": {"folder": "examples", "learning_rate": 1e-3},
    }
    policy = short_policy(**HEALTHY | {"detectors": [DETECTOR], "probes": [healthy]} | changes)
    return auditor.audit(str(home / "erased"), policy, folder / "run", cache=home / "cache")


def entries_of(folder: Path, monkeypatch: pytest.MonkeyPatch, faults: dict[str, str]) -> None:
    """Install every fault as an entry point of a distribution of its own."""
    monkeypatch.syspath_prepend(str(folder))
    found = []
    for name, code in faults.items():
        module = f"faulty_{name.replace('-', '_')}"
        (folder / f"{module}.py").write_text(f"{HEAD}\n{code}\n")
        entry = EntryPoint(name=name, value=module, group=entries.ENTRY_POINT_GROUP)
        found.append(entries.Installed(f"dist-{name}", "1.2", (entry,)))
    other = EntryPoint(name="tomorrow", value="tomorrow", group="auditor.v99")
    found.append(entries.Installed("dist-tomorrow", "9", (other,)))
    monkeypatch.setattr(entries, "installed", lambda: found)
    load_plugins.cache_clear()


def test_what_does_not_load_is_named_and_stops_nobody(
    tmp_path: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries_of(tmp_path, monkeypatch, WRONG)
    monkeypatch.chdir(shared)
    report = audit(tmp_path, shared)
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    for name in (*WRONG, "tomorrow"):
        assert any(f"(dist-{name} " in warning for warning in report.provenance.warnings), name
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_asks_for_it_stops_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    entries_of(tmp_path, monkeypatch, {name: WRONG[name]})
    with pytest.raises(PolicyError, match=f"dist-{name} 1.2"):
        find_plugin("probes", "mine")


def test_twenty_and_more_faulty_probes_beside_a_sound_one(
    tmp_path: Path,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_file(FAULTY)
    monkeypatch.chdir(shared)
    probes = [{"use": name, "doses": [1]} for name in (*AT_RUN, "idle-adapter", "sound-noise")]
    report = audit(tmp_path, shared, probes=probes, budget={"images_per_cell": 5, "retained_per_arm": 20})
    assert len(AT_RUN) >= 20
    assert report.verdict.outcome is Outcome.ERROR
    version = find_plugin("probes", "sound-noise").version
    for name in AT_RUN:
        assert any(error.startswith(f"{name}: ") for error in report.ledger.errors), name
        own = next(error for error in report.ledger.errors if error.startswith(f"{name}: "))
        assert f"'{name}' (faulty.py {version})" in own, own
    cells = {cell.arm: cell for cell in report.cells if cell.role == "gate"}
    assert cells["erased"].n == cells["sound-noise"].n == cells["idle-adapter"].n == 5, (
        "the others were measured all the same"
    )
    idle = next(
        control for control in report.controls if control.name == "potent" and control.arm == "idle-adapter"
    )
    assert idle.passed is False and "All 5 images are the erased model's, bit for bit" in idle.sentence
    sound = next(
        control for control in report.controls if control.name == "potent" and control.arm == "sound-noise"
    )
    assert sound.passed
    assert any("an observer that raises" in warning for warning in report.provenance.warnings)
    assert capsys.readouterr().out == "", "what a plugin prints is not the command's output"


def test_a_probe_that_cannot_be_made_stops_before_anything_is_drawn(tmp_path: Path, shared: Path) -> None:
    add_file(FAULTY)
    with pytest.raises(
        PluginError, match=r"'probe-cannot-be-made' \(faulty.py sha256:[0-9a-f]+\) raised RuntimeError"
    ):
        audit(tmp_path, shared, probes=[{"use": "probe-cannot-be-made"}])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith("detector-") and "hangs" not in name]
)
def test_a_faulty_detector_never_passes(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    add_file(FAULTY)
    monkeypatch.chdir(shared)
    small = (
        {"budget": {"images_per_cell": 5, "retained_per_arm": 10}} if name != "detector-sees-nothing" else {}
    )
    report = audit(tmp_path, shared, detectors=[DETECTOR | {"use": name}], **small)
    if name == "detector-sees-nothing":
        assert report.verdict.outcome is Outcome.INCONCLUSIVE
        assert any("'sensitivity' on base did not pass" in reason for reason in report.verdict.reasons)
    else:
        assert report.verdict.outcome is Outcome.ERROR
        assert any(f"'{name}'" in error for error in report.ledger.errors), report.ledger.errors


def test_faulty_metrics_and_observers_are_warnings(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_file(FAULTY)
    monkeypatch.chdir(shared)
    faults = ["metric-raises", "metric-panics", "metric-misuses", "metric-says-words", "metric-says-nan"]
    metrics = [{"use": name, "options": {"model": "micro"}} for name in (*faults, "clip-score")]
    report = audit(tmp_path, shared, metrics=metrics)
    assert report.verdict.outcome is Outcome.PASS, report.verdict.reasons
    for name in (*faults, "an observer that raises"):
        assert any(name in warning for warning in report.provenance.warnings), name
    scores = {result.arm: result for result in report.metrics}
    assert set(scores) == {"base", "erased", "in-domain-lora"}
    assert all(result.lower <= result.value <= result.upper for result in scores.values())


@pytest.mark.parametrize(
    "kind", ["probe", *(pytest.param(each, marks=pytest.mark.science) for each in ("detector", "metric"))]
)
def test_a_hang_ends_the_process_and_the_same_command_goes_on_without_it(
    forks: Forks, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The first call ends with 5 and its journal is whole; calls after it give a report that names the
    plugin."""
    changes: dict[str, object] = {
        "budget": {"images_per_cell": 5, "retained_per_arm": 10, "plugin_minutes": 0.1}
    }
    sound = {"use": "sound-noise", "doses": [1]}
    changes["probes"] = [{"use": "probe-hangs", "doses": [1]}, sound] if kind == "probe" else [sound]
    changes["detectors"] = [DETECTOR | {"use": "detector-hangs"} if kind == "detector" else DETECTOR]
    changes["metrics"] = [{"use": "metric-hangs", "options": {"model": "micro"}}] if kind == "metric" else []
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(short_policy(**HEALTHY | changes).model_dump(mode="json")))
    command = [
        "audit",
        str(shared / "erased"),
        "--policy",
        str(policy),
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(shared / "cache"),
    ]
    whole = [*command, "--plugin", str(FAULTY)]
    monkeypatch.chdir(shared)
    ended = forks.call(*whole)
    assert ended.returncode == 5
    assert (
        f"The plugin '{kind}-hangs' (faulty.py sha256:" in ended.stderr
        and "gave no sign of life for 6 seconds" in ended.stderr
    )
    assert not (tmp_path / "run" / "report.json").exists()
    assert read_journal(tmp_path / "run" / "journal.jsonl")
    for _ in range(4):  # a detector that hangs is met once in every arm
        ended = forks.call(*whole)
        assert ended.returncode == (3 if kind == "metric" else 5)
        if (tmp_path / "run" / "report.json").exists():
            break
    report = Report.model_validate(json.loads((tmp_path / "run" / "report.json").read_text()))
    assert report.verdict.outcome is (Outcome.INCONCLUSIVE if kind == "metric" else Outcome.ERROR)
    told = report.provenance.warnings if kind == "metric" else report.ledger.errors
    assert any(f"'{kind}-hangs'" in sentence and "no sign of life" in sentence for sentence in told)
    if kind != "detector":
        assert next(cell for cell in report.cells if cell.arm == "sound-noise" and cell.role == "gate").n == 5
