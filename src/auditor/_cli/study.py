"""``auditor study``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from auditor._cli.console import Terminal, plain
from auditor._cli.options import device, offline, plugin_files
from auditor._cli.output import echo
from auditor._files.places import refuse_unwritable
from auditor._study.cards import environment_of
from auditor._study.store import ArmRecord, Store, StudyProgress, seen
from auditor.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from auditor._audit.speed import Speed
    from auditor._study.findings import Findings
    from auditor._study.run import Asked


@click.command("study")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for table, figures and page; the same command goes on in it.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Folder of what is measured; studies share it. Default: OUT/store.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the work and the cores.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would take; nothing is loaded or measured.")
@click.option("--write-only", is_flag=True, help="Write table, figures and page of what is there already.")
@device
@offline
@click.option("--worker", is_flag=True, hidden=True)
@plugin_files
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    out: Path | None,
    store: Path | None,
    jobs: int,
    dry_run: bool,
    write_only: bool,
    offline: bool,
    worker: bool,
) -> None:
    """Measure a grid of erasures, probes and replicates, and show it beside what the paper says.

    FILE is a study (YAML). It estimates and gives no verdict: 0 where everything was measured, 5 where an arm
    broke. Interrupted, the same command goes on; what a store holds is not measured again.
    """
    from auditor._study import run
    from auditor._study.figures import check_matplotlib

    if out is None and not (dry_run or (worker and store)):
        raise click.UsageError("Missing option '--out'; --dry-run goes without.")
    asked = run.ask(file)
    if not dry_run:
        for folder in filter(None, (out, store)):
            refuse_unwritable(folder)
    held = Store(store or (out or Path()) / "store")
    if dry_run:
        _show_cost(asked, held, offline)
        return
    check_matplotlib()
    if jobs > 1 and not (write_only or worker or held.has_locks()):
        raise UsageError(
            f"{held.folder} is on a file system without locks; use --jobs 1, or another --store."
        )
    if not write_only:
        threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
        progress = _Progress(Terminal(stderr=True), file.stem)
        with _workers(file, held, 1 if worker else jobs, offline=offline):
            failures = run.measure(asked, held, progress, offline=offline, threads=threads)
        if worker:
            ctx.exit(ExitCode.ERROR if failures else 0)
    assert out is not None
    parts = run.write(asked, held, out, offline=offline)
    broken = _show(parts, out)
    ctx.exit(ExitCode.ERROR if broken else 0)


@contextmanager
def _workers(file: Path, store: Store, jobs: int, *, offline: bool) -> Iterator[None]:
    """Further processes on the same store; they are waited for, and ended where this one is cut short, by
    a signal too."""
    from auditor.plugin._loader import named_files

    line = [
        sys.executable,
        "-m",
        "auditor",
        "study",
        str(file),
        "--store",
        str(store.folder),
        "--worker",
        "--jobs",
        str(jobs),
    ]
    line += ["--offline"] if offline else []
    line += [part for plugin in named_files() for part in ("--plugin", str(plugin))]
    # this process is the first, and takes the first card
    environments = [environment_of(number) for number in range(1, jobs)]
    workers, ended = [subprocess.Popen(line, env=each) for each in environments], False
    try:
        yield
        ended = True
    finally:
        for other in workers:
            if not ended:
                other.terminate()
            other.wait()


class _Progress(StudyProgress):
    """A line an event, with what is done of the whole."""

    def __init__(self, console: Terminal, name: str) -> None:
        self._console, self._name = console, name
        self._began = time.monotonic()
        self._status = console.status("") if console.moves_cursor else None

    def _line(self, text: str) -> None:
        self._console.print(
            f"{time.monotonic() - self._began:6.0f} s  {plain(text)}", highlight=False, soft_wrap=True
        )

    def unit(self, title: str, done: int, total: int) -> None:
        """What begins, and which of how many it is."""
        self._line(f"[{done + 1}/{total}] {title}")

    def waiting(self, units: int) -> None:
        """How many others have in hand."""
        self._line(f"waiting for {units} that other processes have in hand")

    def step(self, what: str, step: int, steps: int) -> None:
        """The step at hand, where a terminal can show it."""
        if self._status is not None:
            self._status.start()
            self._status.update(plain(f"{what} {step}/{steps}"))

    def arm(self, title: str, record: ArmRecord) -> None:
        """What was seen, and how long it took."""
        hits, asked = seen(record)
        self._line(
            f"{title}: {hits} of {asked} concepts' images show theirs; "
            f"{record.making + record.drawing + record.scoring:.0f} s"
        )

    def failed(self, title: str, message: str) -> None:
        """What broke, and why."""
        self._line(f"failed: {title}: {message}")


def _show_cost(asked: Asked, store: Store, offline: bool) -> None:
    from auditor._audit.cost import operations_of_a_call
    from auditor._audit.speed import kept_speed
    from auditor._process.device import device_kind
    from auditor._process.machine import default_cache
    from auditor._study import run
    from auditor._study.cost import Takes, cost_of

    opened = run.open_base(asked.study.base.address, offline)
    console = Terminal()
    for each in asked.whole:
        plan = run.expansion(each.study, opened)
        cost = cost_of(plan, run.choose(plan, store, partial=True), store)
        try:
            once: int | None = operations_of_a_call(opened, each.study.sampler.size)
        except ValueError:
            once = None
        speed = None if once is None else kept_speed(default_cache(), device_kind(), once)

        def spoken(takes: Takes, once: int | None = once, speed: Speed | None = speed) -> str:
            if once is None:
                return "?"
            minutes = "" if speed is None else f", {takes.calls * once / speed.flops / 60:.0f} min"
            return f"{takes.calls * once / 1e12:.1f} TFLOP{minutes}"

        table = Table(
            "", "erased", "trainings", "steps", "images", "drawing, training", title=each.study.title
        )
        for name, takes in (("to do", cost.to_do), ("whole", cost.whole), ("unshared", cost.alone)):
            table.add_row(
                name,
                *(str(n) for n in (takes.checkpoints, takes.trainings, takes.steps, takes.images)),
                spoken(takes),
            )
        console.print(table)
        console.print(
            f"{cost.measured} of {cost.arms} model states are measured. Unshared: every run with a base, an "
            "erasure and its model state of its own."
        )
        console.print("Training sets, and what erasers draw and train, come on top.\n")


def _show(parts: list[tuple[str, Findings]], out: Path) -> int:
    """The claims on the terminal; returns the number of arms that were not measured."""
    import json

    console = Terminal()
    claims = json.loads((out / "claims.json").read_text(encoding="utf-8"))
    if claims:
        table = Table("the paper says", "here", "measured")
        for claim in claims:
            table.add_row(plain(claim["says"]), claim["answer"], plain(claim["measured"]))
        console.print(table)
    broken = [finding for _, findings in parts for finding in findings.failures]
    if broken:
        echo(f"Not measured: {len(broken)} of the model states; the page says which and why.", err=True)
    echo(f"Wrote {out / 'study.html'}")
    return len(broken)
