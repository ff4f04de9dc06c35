"""What people see in a terminal: a live view while an audit runs, tables when it has ended; plain lines where none can be."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table

from auditor.errors import ExitCode
from auditor.plan import Plan, Role
from auditor.progress import Progress
from auditor.report import Outcome, Report, State

if TYPE_CHECKING:
    from auditor.plugin.loader import PluginRecord

_COLORS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow", Outcome.ERROR: "magenta"}
_EXITS = {
    Outcome.PASS: ExitCode.PASS,
    Outcome.FAIL: ExitCode.FAIL,
    Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Outcome.ERROR: ExitCode.ERROR,
}
_STATES = {State.HELD: "[green]held[/]", State.FAILED: "[red]failed[/]", State.UNDECIDED: "[yellow]undecided[/]"}


def exit_code_of(report: Report) -> int:
    """The exit code of a verdict."""
    return _EXITS[report.verdict.outcome]


def show_plan(plan: Plan) -> None:
    """Arms, images and cost."""
    console = _Terminal()
    table = Table("arm", "concept images", "retained images", "training steps", title="What would be drawn")
    for arm in plan.arms:
        cells = [cell for cell in plan.cells if cell.arm == arm.name]
        retained = sum(cell.images for cell in cells if cell.role is Role.RETAINED)
        concept = sum(cell.images for cell in cells) - retained
        steps = f"{arm.dose} ({plan.policy.probes[arm.probe].method})" if arm.probe is not None else ""
        table.add_row(escape(arm.name), str(concept), str(retained), steps)
    console.print(table)
    console.print(
        f"{len(plan.gate_cells)} cells decide · {plan.images} images · {plan.denoiser_calls} UNet evaluations · "
        f"{plan.training_steps} training steps"
    )


def show_plugins(records: Sequence[PluginRecord]) -> None:
    """One row a plugin."""
    table = Table("kind", "name", "from", "what it is for")
    for record in records:
        text = record.plugin.summary if record.plugin else f"did not load: {record.error}"
        table.add_row(record.kind, escape(record.name), f"{record.distribution} {record.version}", escape(text))
    _Terminal().print(table)


def show_report(report: Report, folder: Path) -> None:
    """The table concept x arm, the verdict with its reasons, and where the page is."""
    console = _Terminal(highlight=False)
    table = Table("concept", Column("arm", overflow="fold"), "detected", "rate", "upper bound", "state")
    for cell in report.cells:
        rate = "–" if cell.rate is None else f"{cell.rate:.0%}"
        state = _STATES[cell.state] if cell.role == Role.GATE else ""
        upper = "–" if cell.upper is None or cell.role != Role.GATE else f"{cell.upper:.1%}"
        table.add_row(escape(cell.surface), escape(cell.arm), f"{cell.hits} of {cell.n}", rate, upper, state)
    console.print(table)
    failed = [control for control in report.controls if not control.passed]
    console.print(f"controls: {len(report.controls) - len(failed)} of {len(report.controls)} passed")
    color = _COLORS[report.verdict.outcome]
    origin = f" ({report.verdict.origin})" if report.verdict.origin else ""
    console.print(f"[bold {color}]{report.verdict.outcome}{origin}[/]")
    for reason in report.verdict.reasons[:5]:
        console.print("  " + escape(reason))
    if len(report.verdict.reasons) > 5:
        console.print(f"  … and {len(report.verdict.reasons) - 5} more in the report")
    console.print(f"report: {escape(str(folder / 'report.html'))}")


class _Terminal(Console):
    """A console that a closed pipe makes silent: the exit code stays the verdict's."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process


class _Live(Progress):
    """Bars of the arm at hand and of the whole run."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._total: TaskID | None = None
        self._arm: TaskID | None = None
        self._counts = [0, 0]

    def planned(self, plan: Plan) -> None:
        self._total = self._bars.add_task("whole audit", total=plan.images)

    def stage(self, text: str) -> None:
        self._bars.console.print(f"[dim]{escape(text)}[/]")

    def arm_started(self, arm: str, images: int, already: int) -> None:
        if self._arm is not None:
            self._bars.remove_task(self._arm)
        self._arm = self._bars.add_task(escape(arm), total=images, completed=already)
        self._counts = [0, 0]
        if self._total is not None:
            self._bars.advance(self._total, already)

    def step(self, arm: str, step: int, steps: int) -> None:
        if step == 1:
            if self._arm is not None:
                self._bars.remove_task(self._arm)
            self._arm = self._bars.add_task(f"training {escape(arm)}", total=steps)
        if self._arm is not None:
            self._bars.update(self._arm, completed=step)

    def batch(self, arm: str, images: int, hits: int, judged: int) -> None:
        self._counts[0] += hits
        self._counts[1] += judged
        if self._arm is not None:
            rate = f" {self._counts[0]}/{self._counts[1]} detected" if self._counts[1] else ""
            self._bars.update(self._arm, advance=images, description=escape(arm + rate))
        if self._total is not None:
            self._bars.advance(self._total, images)

    def failed(self, where: str, message: str) -> None:
        self._bars.console.print(f"[red]failed[/] {escape(where)}: {escape(message)}")


class _Plain(Progress):
    """One line an event, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._counts: dict[str, list[int]] = {}

    def _line(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.0f} s  {text}", markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        self._line(f"plan: {len(plan.arms)} arms, {len(plan.gate_cells)} deciding cells, {plan.images} images")

    def stage(self, text: str) -> None:
        self._line(text)

    def arm_started(self, arm: str, images: int, already: int) -> None:
        self._line(f"{arm}: {images} images" + (f", {already} already drawn" if already else ""))

    def batch(self, arm: str, images: int, hits: int, judged: int) -> None:
        counts = self._counts.setdefault(arm, [0, 0, 0])
        counts[0] += hits
        counts[1] += judged
        counts[2] += images
        self._line(f"{arm}: {counts[2]} drawn" + (f", {counts[0]} of {counts[1]} detected" if counts[1] else ""))

    def failed(self, where: str, message: str) -> None:
        self._line(f"failed: {where}: {message}")


def _bars(console: Console) -> Bars:
    return Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def watch() -> Iterator[Progress]:
    """A view of an audit on standard error: live in a terminal, plain lines elsewhere."""
    console = _Terminal(stderr=True)
    if not console.is_terminal:
        yield _Plain(console)
        return
    with _bars(console) as bars:
        yield _Live(bars)


@contextmanager
def watch_steps(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A view of an eraser's stages on standard error."""
    console = _Terminal(stderr=True)
    if not console.is_terminal:
        console.print(title, highlight=False)
        yield lambda stage, step, steps: None
        return
    with _bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_step(stage: str, step: int, steps: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(escape(f"{title}: {stage}"), total=steps)
            bars.update(tasks[stage], completed=step)

        yield on_step
