"""Whatever a plugin raises, at whichever door, is an error with its name: never a verdict's exit code."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor._audit.judge import write_forms
from auditor._audit.run.measuring import bootstrap, features_of
from auditor._audit.run.probing import allowed_changes, check_training
from auditor._audit.run.scoring import ask
from auditor._audit.run.training_set import TrainingSet
from auditor._audit.weaker import weaker_than_default
from auditor._cli import main
from auditor.errors import AuditorError, Ending, InterruptedRunError, PluginError
from auditor.plugin import _door as door
from auditor.plugin import _loader as loader
from auditor.plugin._loader import add_file, load_plugins, make_plugin
from auditor.plugin._observers import Observers
from auditor.plugin.instruments import fingerprint_of, identity_of, parts_of, training_calls_of
from auditor.policy import ProbeUse
from auditor.report.compare import read_report
from tests.conftest import short_policy

PLUGINS = '''
import stray
from pydantic import field_validator
from auditor.plugin import hookimpl
from auditor.plugin.contracts import Detector, Eraser, MaskSource, Metric, OptionsModel, Probe, Reporter

stray.at("import")

class Options(OptionsModel):
    """Options of a stray."""
    x: int = 0
    """Anything."""
    @field_validator("x")
    @classmethod
    def check(cls, value):
        stray.at("validator")
        return value

def says(place, value=None):
    def method(self, *_, **__):
        stray.at(place)
        return value
    return method

class P(Probe):
    name, summary, Options, methods = "stray", "raises", Options, ("lora",)
    title = property(says("title", "stray"))
    has_sham = property(says("has_sham", True))
    usual, changes, least_change = says("usual", {}), says("changes", ("unet.*",)), says("least_change", 0.1)
    training_set, training_calls = says("training_set", []), says("training_calls", 1)
    files = says("files", ())
    def update(self, update):
        stray.at("update")
        yield 1
        stray.at("step")

class D(Detector):
    name, summary, Options = "stray", "raises", Options
    detect, fingerprint, parts = says("detect"), says("fingerprint", ""), says("parts", ())

class M(Metric):
    name, summary, Options = "stray", "raises", Options
    features, value = says("features"), says("value", 0.0)

class R(Reporter):
    name, summary, Options, filename, media_type = "stray", "raises", Options, "stray.txt", "text/plain"
    render = says("render", b"")

class E(Eraser):
    name, summary, Options = "stray", "raises", Options
    erase, plan, changes = says("erase", {}), says("plan", {}), says("changes", ())

class K(MaskSource):
    name, summary, Options = "stray", "raises", Options
    masks, check, fingerprint = says("masks"), says("check"), says("fingerprint", "")

@hookimpl
def auditor_register_probes():
    stray.at("hook")
    return [P]
@hookimpl
def auditor_register_detectors(): return [D]
@hookimpl
def auditor_register_metrics(): return [M]
@hookimpl
def auditor_register_reporters(): return [R]
@hookimpl
def auditor_register_erasers(): return [E]
@hookimpl
def auditor_register_masks(): return [K]
@hookimpl
def auditor_report_written(record): stray.at("observer")
'''


class Panic(BaseException):
    """What PyO3 raises where Rust panics."""


class Mute(BaseException):
    """What it says cannot be asked."""

    def __str__(self) -> str:
        raise Panic


class DisguisedError(AuditorError):
    """An error that would end as PASS."""

    exit_code = 0


STRAYS: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("called unwrap on None"),
    "cancelled": asyncio.CancelledError,
    "generator": GeneratorExit,
    "exit-0": lambda: SystemExit(0),
    "exit-1": lambda: SystemExit(1),
    "group": lambda: BaseExceptionGroup("two", [Panic("one"), ValueError("two")]),
    "mute": Mute,
    "no-text": lambda: ValueError("\ud800" * 10_000_000),
    "disguised": lambda: DisguisedError("all is well"),
    "stop-iteration": StopIteration,
}
IMAGES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
ROWS = np.zeros((2, 1))
NOTHING = TrainingSet(IMAGES, ("a", "b"), IMAGES[:0], ())


class Stray:
    """The module that the plugins ask at every door whether to raise there."""

    place: str = ""
    make: Callable[[], BaseException] = Panic

    def at(self, place: str) -> None:
        """Raise where this is the place."""
        if place == self.place:
            raise self.make()


@pytest.fixture
def stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stray]:
    """Plugins of every kind in a file, loaded as the command line does."""
    found = Stray()
    monkeypatch.setitem(sys.modules, "stray", found)  # type: ignore[arg-type]
    (tmp_path / "plugins.py").write_text(PLUGINS)
    add_file(tmp_path / "plugins.py")
    yield found
    loader._files.clear()
    load_plugins.cache_clear()


def made(kind: str) -> Any:
    return make_plugin(kind, "stray", {"x": 1})


def probe() -> Any:
    return made("probes")


def steps() -> object:
    return list(door.iterate(probe(), probe().update(None)))


def loaded() -> object:
    load_plugins.cache_clear()
    (file,) = loader._files
    return add_file(file)


POLICY = short_policy(probes=[{"use": "in-domain"}])
LORA = ProbeUse(use="stray", method="lora")
DOORS: dict[str, Callable[[], object]] = {
    "import": loaded,
    "hook": loaded,
    "validator": probe,
    "title": lambda: weaker_than_default(POLICY.model_copy(update={"probes": (LORA,)}), (probe(),)),
    "usual": lambda: weaker_than_default(POLICY.model_copy(update={"probes": (LORA,)}), (probe(),)),
    "has_sham": lambda: check_training(probe(), NOTHING),
    "changes": lambda: allowed_changes(probe(), LORA),
    "training_calls": lambda: training_calls_of(probe(), 1),
    "files": lambda: identity_of(probe()),
    "update": steps,
    "step": steps,
    "detect": lambda: ask(made("detectors"), IMAGES, POLICY.erase),
    "fingerprint": lambda: fingerprint_of(made("detectors")),
    "parts": lambda: parts_of(made("detectors")),
    "features": lambda: features_of(made("metrics"), IMAGES, ["a", "b"]),
    "value": lambda: bootstrap(made("metrics"), ROWS, ROWS, ["a", "b"]),
    "plan": lambda: door.call(made("erasers"), made("erasers").plan, None),
    "erase": lambda: door.call(made("erasers"), made("erasers").erase, None),
    "masks": lambda: door.call(made("masks"), made("masks").masks, None),
}


@pytest.mark.parametrize("kind", STRAYS)
@pytest.mark.parametrize("place", DOORS)
def test_whatever_is_raised_at_a_door_is_an_error_with_the_plugins_name(
    stray: Stray, place: str, kind: str
) -> None:
    stray.place, stray.make = place, STRAYS[kind]
    with pytest.raises(PluginError, match=r"'stray' \(plugins.py|plugin file .*plugins.py") as error:
        DOORS[place]()
    assert type(error.value) is PluginError and error.value.exit_code == 5
    assert str(error.value).encode() and len(str(error.value)) < 10_000


@pytest.mark.parametrize("kind", STRAYS)
def test_an_observer_that_raises_is_a_sentence(stray: Stray, kind: str) -> None:
    stray.place, stray.make = "observer", STRAYS[kind]
    (sentence,) = Observers().tell("auditor_report_written", None)
    assert "auditor_report_written (plugins.py" in sentence


@pytest.mark.parametrize("kind", STRAYS)
def test_a_reporter_that_raises_leaves_the_other_forms(stray: Stray, tmp_path: Path, kind: str) -> None:
    kept = next((Path(__file__).parents[1] / "builtins" / "reporters" / "kept").glob("*.json"))
    stray.place, stray.make = "render", STRAYS[kind]
    with pytest.raises(PluginError, match="'stray'"):
        write_forms(read_report(kept), tmp_path, ["stray", "junit"])
    assert (tmp_path / "junit.xml").is_file()


@pytest.mark.parametrize(
    "ending", [KeyboardInterrupt(), InterruptedRunError(15), Ending("the time is spent")]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_ends_a_run_passes_through_also_in_a_group(
    stray: Stray, ending: BaseException, wrapped: bool
) -> None:
    stray.place = "detect"
    stray.make = lambda: (
        BaseExceptionGroup("tasks", [Panic(), BaseExceptionGroup("more", [ending])]) if wrapped else ending
    )
    with pytest.raises(type(ending)) as error:
        DOORS["detect"]()
    assert error.value is ending


def test_what_is_raised_when_a_generator_is_closed_does_not_hide_why() -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise Panic

    with pytest.raises(InterruptedRunError):
        for _ in (steps := door.iterate(make_plugin("probes", "in-domain", {}), stubborn())):
            try:
                raise InterruptedRunError(15)
            finally:
                steps.close()


@pytest.mark.parametrize("kind", STRAYS)
@pytest.mark.parametrize("place", ["import", "hook", "validator"])
def test_the_command_ends_with_5(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stray: Stray,
    place: str,
    kind: str,
) -> None:
    stray.place, stray.make = place, STRAYS[kind]
    load_plugins.cache_clear()
    policy = short_policy(detectors=[{"use": "stray", "options": {"x": 1}}]).model_dump_json()
    (tmp_path / "policy.yaml").write_text(policy)
    line = ["auditor", "policy", "check", str(tmp_path / "policy.yaml")]
    monkeypatch.setattr(sys, "argv", [*line, "--plugin", str(tmp_path / "plugins.py")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 5
    said = capsys.readouterr().err
    assert ("Traceback" not in said and "stray" in said) or "plugins.py" in said


def test_a_process_that_gets_past_the_last_handler_ends_with_5() -> None:
    code = """
import sys
from auditor._cli import main
class Panic(BaseException): pass
class Closed:
    def write(self, text): raise Panic
    def flush(self): raise Panic
sys.stderr = Closed()
sys.argv = ["auditor", "show", "nowhere"]
main()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 5
