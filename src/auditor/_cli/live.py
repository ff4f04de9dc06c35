"""What people see while something runs: live bars in a terminal, plain lines where none can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from auditor._audit.plan import Plan
from auditor._audit.progress import Progress
from auditor._cli.console import Terminal, plain
from auditor.report.words import harmless, line


class _Live(Progress):
    """Bars of the arm at hand and of the whole run, which is counted in arms: nobody knows how many images
    it will take."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._arms: set[str] = set()
        self._whole: TaskID | None = None
        self._arm: TaskID | None = None

    def planned(self, plan: Plan) -> None:
        """Remember how many images each arm can take, and begin the bar of the whole."""
        self._most = {arm.name: sum(cell.images for cell in plan.cells_of(arm.name)) for arm in plan.arms}
        self._whole = self._bars.add_task("model states", total=len(plan.arms))

    def stage(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(f"[dim]{plain(text)}[/]")

    def arm_started(self, arm: str, already: int) -> None:
        """The arm's bar, from what is drawn already."""
        self._replace(arm, self._most[arm], already)

    def step(self, arm: str, step: int, steps: int) -> None:
        """A bar of training steps in the place of the arm's."""
        if step == 1:
            self._replace(f"training {arm}", steps, 0)
        if self._arm is not None:
            self._bars.update(self._arm, completed=step)

    def batch(self, arm: str, drawn: int, hits: int, judged: int, undecided: int) -> None:
        """How far the arm is, and how often it was detected."""
        if self._arm is not None:
            self._bars.update(self._arm, completed=drawn, description=plain(f"{arm} {_counts(hits, judged)}"))

    def arm_ended(self, arm: str) -> None:
        """One arm more of the whole."""
        if self._whole is not None:
            self._arms.add(arm)
            self._bars.update(self._whole, completed=len(self._arms))

    def failed(self, arm: str, message: str) -> None:
        """A line in red above the bars."""
        self._bars.console.print(f"[red]failed[/] {plain(arm)}: {plain(message)}")

    def stopped(self, reason: str) -> None:
        """A line in yellow above the bars."""
        self._bars.console.print(f"[yellow]stopped[/] {plain(reason)}")

    def _replace(self, text: str, total: int, completed: int) -> None:
        if self._arm is not None:
            self._bars.remove_task(self._arm)
        self._arm = self._bars.add_task(plain(text), total=total, completed=completed)


class _Plain(Progress):
    """One line an event, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def _line(self, text: str, style: str | None = None) -> None:
        said = f"{time.monotonic() - self._began:6.0f} s  {harmless(line(text))}"
        self._console.print(said, style=style, markup=False, highlight=False, soft_wrap=True)

    def planned(self, plan: Plan) -> None:
        """How much there is to do."""
        self._line(f"plan: {plan.size}, at most {plan.images} images")

    def stage(self, text: str) -> None:
        """What begins."""
        self._line(text, "dim")

    def arm_started(self, arm: str, already: int) -> None:
        """Its name, and what is drawn already."""
        self._line(arm + (f": {already} images already drawn" if already else ""))

    def batch(self, arm: str, drawn: int, hits: int, judged: int, undecided: int) -> None:
        """How far the arm is, and how often it was detected."""
        open_cells = f", {undecided} checks open" if undecided else ""
        self._line(f"{arm}: {drawn} drawn{', ' if judged else ''}{_counts(hits, judged)}{open_cells}")

    def failed(self, arm: str, message: str) -> None:
        """What broke, and why."""
        self._line(f"failed: {arm}: {message}", "red")

    def stopped(self, reason: str) -> None:
        """Why nothing more is drawn."""
        self._line(f"stopped: {reason}", "yellow")


def _counts(hits: int, judged: int) -> str:
    return f"{hits} of {judged} detected" if judged else ""


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextmanager
def watch(form: str = "human") -> Iterator[Progress]:
    """A view of an audit on standard error: live in a terminal, plain lines elsewhere, nothing where the
    user wants quiet."""
    console = Terminal(stderr=True)
    if form == "quiet":
        yield Progress()
        return
    if not console.moves_cursor:
        yield _Plain(console)
        return
    with _bars(console) as bars:
        yield _Live(bars)


@contextmanager
def watch_steps(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A view of an eraser's stages on standard error."""
    console = Terminal(stderr=True)
    if not console.moves_cursor:
        began, seen = time.monotonic(), set[str]()

        def say(stage: str, step: int, steps: int) -> None:
            if stage not in seen or step == steps:
                seen.add(stage)
                console.print(
                    f"{time.monotonic() - began:6.0f} s  {title}: {stage} {step}/{steps}",
                    markup=False,
                    highlight=False,
                )

        yield say
        return
    with _bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_step(stage: str, step: int, steps: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(plain(f"{title}: {stage}"), total=steps)
            bars.update(tasks[stage], completed=step)

        yield on_step
