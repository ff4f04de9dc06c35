"""What people see in a terminal when something has ended: tables and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from auditor._audit.cells import Role
from auditor._audit.plan import Plan
from auditor._audit.power import powers
from auditor._cli.console import Terminal, plain, printable
from auditor._cli.output import print_document
from auditor.errors import ExitCode
from auditor.report import Control, Outcome, Report, State
from auditor.report.voice import folded, headline, kinds, next_box, notes, numbers_of
from auditor.report.words import (
    bounds,
    control_title,
    count,
    percent,
    seconds,
    state_of,
    thresholds,
    was_come_to,
)

if TYPE_CHECKING:
    from auditor._audit.cost import CellForecast, Cost
    from auditor._audit.runs import RunSummary
    from auditor._audit.speed import Speed
    from auditor._checkpoint.inspection import Inspection
    from auditor.plugin._loader import PluginRecord
    from auditor.report.compare import Change

_COLORS = {
    Outcome.PASS: "green",
    Outcome.FAIL: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.ERROR: "magenta",
}
_EXITS = {
    Outcome.PASS: ExitCode.PASS,
    Outcome.FAIL: ExitCode.FAIL,
    Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    Outcome.ERROR: ExitCode.ERROR,
}
_STATES = {
    State.HELD: "[green]held[/]",
    State.FAILED: "[red]failed[/]",
    State.UNDECIDED: "[yellow]undecided[/]",
}
_NAMED = 3  # controls that did not pass, on the line that counts them
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def exit_code_of(report: Report, *, exit_zero: bool = False) -> int:
    """The exit code of a verdict; with ``exit_zero`` 0 for FAIL and INCONCLUSIVE as well, never for ERROR."""
    outcome = report.verdict.outcome
    return 0 if exit_zero and outcome is not Outcome.ERROR else _EXITS[outcome]


def show_plan(plan: Plan, cost: Cost | None, speed: Speed | None) -> None:
    """What would be drawn, what becomes of the deciding checks, and what it costs."""
    from auditor._audit import cost as forecast
    from auditor._audit.explain import memory_of, minutes_of

    console = Terminal(highlight=False)
    table = Table("model state", "concept images", "retained images", "training steps", title="At most")
    for arm in (arm for arm in plan.arms if arm.update is None):
        cells = plan.cells_of(arm.name)
        retained = sum(cell.images for cell in cells if cell.role is Role.RETAINED)
        concept = sum(cell.images for cell in cells) - retained
        steps = str(arm.dose) if arm.dose else ""
        table.add_row(plain(arm.name), str(concept), str(retained), steps)
    if plan.updates:
        own = [cell for cell in plan.cells if cell.update is not None]
        kept = sum(cell.images for cell in own if cell.role is Role.RETAINED)
        trained = sum(update.use.doses[-1] for update in plan.updates)
        name, drawn = f"{len(plan.updates)} updates", sum(cell.images for cell in own) - kept
        table.add_row(name, str(drawn), str(kept), str(trained))
    console.print(table)
    for group in forecast.forecast_cells(plan):
        _show_cells(console, group)
    for reason in forecast.out_of_reach(plan)[:5]:
        console.print(f"[yellow]out of reach: {plain(reason)}; raise the budget or add retained concepts[/]")
    least = forecast.images_if_well(plan)
    well = len(forecast.updates_if_well(plan))
    over = f" and the share of updates ({well} if all are clean)" if plan.updates else ""
    calls = [forecast.denoiser_calls(plan, each) for each in (least, forecast.most_images(plan))]
    console.print(
        f"{len(plan.gate_cells)} checks decide{over} · {sum(least.values())} images if all is well, "
        f"{plan.images} at most · {calls[0]} to {calls[1]} UNet evaluations · {plan.training_steps} training "
        "steps"
    )
    for sentence in powers(plan):
        console.say(sentence)
    if cost is not None:
        console.print(
            f"{(cost.least + cost.training) / 1e12:.3g} to {(cost.most + cost.training) / 1e12:.3g} TFLOP of "
            f"the denoiser, {cost.training / 1e12:.3g} of them training"
        )
        console.print(memory_of(cost))
        if speed is None:
            console.print(
                "minutes: not known before the first audit of such a model on this machine; --calibrate "
                "measures it"
            )
        else:
            console.print(minutes_of(cost, speed))


def _show_cells(console: Terminal, cells: CellForecast) -> None:
    """Chances of the deciding cells at some rates, and where futility closes them."""
    console.print(
        f"{cells.cells} checks with {cells.round_size} prompts each, {cells.planned} images each at most"
    )
    if cells.suffices is not None and cells.suffices > cells.planned:
        console.print(
            f"[yellow]budget.images_per_cell is below the {cells.suffices} images that suffice at a rate of "
            "tau/4[/]"
        )
    table = Table("true detection rate", "held", "failed", "undecided", "mean images", "all checks held")
    for outlook in cells.outlooks:
        chances = [f"{chance:.3f}" for chance in (outlook.held, outlook.failed, outlook.undecided)]
        table.add_row(
            f"{outlook.rate:.3f}", *chances, f"{outlook.images:.0f}", f"{cells.p_all_held(outlook):.3f}"
        )
    console.print(table)
    closed = [
        f"{low} to {high} hits after {images}"
        for images, low, high in cells.futility[:: max(1, len(cells.futility) // 5)]
    ]
    if closed:
        console.print(f"closed as undecided, for instance: {', '.join(closed)} images")


def show_erasure_plan(found: Mapping[str, Any]) -> None:
    """What an eraser says that it would do, key by key."""
    console = Terminal(highlight=False)
    if not found:
        console.print("this eraser does not say what it would do")

    def show(value: Mapping[str, Any], indent: str) -> None:
        for key, part in value.items():
            name = str(key).replace("_", " ")
            if isinstance(part, Mapping):
                console.print(f"{indent}{plain(name)}")
                show(part, indent + "  ")
            else:
                console.print(f"{indent}{plain(name)}: {plain(str(part))}")

    show(found, "")


def show_inspection(found: Inspection) -> None:
    """What a checkpoint is, line by line."""
    console = Terminal(highlight=False)
    rows = {
        "form": found.form,
        "family": found.family,
        "holds": found.content or None,
        "predicts": found.prediction,
        "commit": found.commit,
        "licence in its card": found.licence,
        "base in its card": found.base_model,
        "digest": found.digest,
        "root digest": found.root_digest,
    }
    for name, value in rows.items():
        if value is not None:
            console.print(f"{name}: {printable(value)}", markup=False, soft_wrap=True)
    for part in found.components:
        kinds = ", ".join(part.dtypes)
        console.print(
            f"{part.name}: {part.parameters / 1e6:.1f} M values, {part.bytes / 2**20:.0f} MiB, {kinds}",
            markup=False,
        )
    if found.never_read:
        console.print(
            f"not loaded: {printable(', '.join(found.never_read[:10]))}", markup=False, soft_wrap=True
        )
    verdict = "admitted" if found.digest else "admitted so far (names and headers; --full reads every byte)"
    console.print(
        verdict if found.refused is None else f"REFUSED: {printable(found.refused)}",
        markup=False,
        soft_wrap=True,
    )


def show_plugins(records: Sequence[PluginRecord]) -> None:
    """One row a plugin."""
    table = Table("kind", "name", "from", "what it is for")
    for record in records:
        text = record.plugin.summary if record.plugin else f"did not load: {record.error}"
        table.add_row(record.kind, plain(record.name), f"{record.distribution} {record.version}", plain(text))
    Terminal().print(table)


def show_plugin(record: PluginRecord) -> None:
    """What a plugin is, and one row an option."""
    from auditor.plugin._loader import SINGULAR

    console = Terminal(highlight=False)
    console.print(
        f"[bold]{plain(record.name)}[/] ({SINGULAR.get(record.kind, 'plugin')}, {plain(record.origin)})"
    )
    if record.plugin is None:
        console.print(f"[red]did not load: {plain(record.error or '')}[/]")
        return
    plugin = record.plugin
    source = f" ({plugin.source})" if plugin.source else ""
    console.print(plain(f"{plugin.summary}{source}{', needs a GPU' if plugin.needs_gpu else ''}"))
    table = Table("option", "type", "default", "what it does", title="Options")
    for name, field in plugin.Options.model_fields.items():
        default = "needed" if field.is_required() else str(field.get_default(call_default_factory=True))
        limits = [
            f"{sign} {getattr(limit, key)}"
            for limit in field.metadata
            for key, sign in _SIGNS.items()
            if hasattr(limit, key)
        ]
        kind = getattr(field.annotation, "__name__", str(field.annotation).replace("typing.", ""))
        table.add_row(
            plain(name),
            plain(" ".join([kind, *limits])),
            plain(default),
            plain(" ".join((field.description or "").split())),
        )
    console.print(table if plugin.Options.model_fields else "It takes no options.")


def show_report(report: Report, folder: Path) -> None:
    """The table concept x model state; then the verdict: the strongest finding, why, what to do next, and
    where the page is."""
    console = Terminal(highlight=False)
    table = Table("concept", "model state", "detected", "rate", "bounds", "state")
    for cell in report.cells:
        rate = "–" if cell.rate is None else f"{cell.rate:.0%}"
        word = state_of(cell)
        state = _STATES[cell.state] if cell.state and word == cell.state else word
        low, high = bounds(cell) if cell.role == Role.GATE else (None, None)
        within = "–" if high is None else f"{percent(low, 1)} to {percent(high, 1)}"
        table.add_row(plain(cell.surface), plain(cell.arm), count(cell), rate, within, state)
    console.print(table)
    if report.population is not None:
        for kind in kinds(report.population):
            console.say(kind.said)
        console.say(f"over ordinary updates: {numbers_of(report, report.population)}")
    controls = [control for control in report.controls if control.passed is not None]
    below, above = (percent(limit, 1) for limit in thresholds(report))
    console.say(f"limits: PASS needs every rate below {below}, FAIL one above {above}")
    console.say(_controls_said(controls))
    console.say(f"measured: {report.ledger.measured} images in {seconds(report.provenance.seconds)}")
    color = _COLORS[report.verdict.outcome]
    origin = f" ({report.verdict.origin})" if report.verdict.origin else ""
    console.print()
    console.print(f"[bold {color}]{report.verdict.outcome}{origin}[/]")
    console.say(headline(report), "bold")
    shown, more = folded(report)
    console.print("Why")
    for reason in shown:
        console.say(f"- {reason.whole}", indent=2)
    if more:
        console.say(f"- and {more} more in the report", indent=2)
    for remark in notes(report):
        console.say(remark, "yellow", indent=2)
    there = folder.is_dir()
    step = next_box(report, folder if there else None)
    console.print("What to do next")
    for sentence in step.sentences:
        console.say(sentence, indent=2)
    if step.command is not None:
        console.print("  " + escape(printable(step.command)), style="bold", soft_wrap=True)
    console.print(f"  explained: {escape(step.link)}", soft_wrap=True)
    if there and report.exploratory is None:
        console.print(f"report: {plain(str(folder / 'report.html'))}", soft_wrap=True)


def _controls_said(controls: Sequence[Control]) -> str:
    """How many controls passed, the names of some that did not, and how many were not come to."""
    open_ones = [control for control in controls if not was_come_to(control)]
    missing = [control for control in controls if not control.passed and was_come_to(control)]
    passed = len(controls) - len(missing) - len(open_ones)
    said = [f"controls: {passed} of {len(controls)} passed"]
    if missing:
        named = [f"'{control_title(control.name)}' on {control.arm}" for control in missing[:_NAMED]]
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        said.append(f"not {', '.join(named)}{more}")
    if open_ones:
        said.append(f"{len(open_ones)} were not come to")
    return "; ".join(said)


def show_runs(runs: Sequence[RunSummary]) -> None:
    """One row a run; below them what is wrong with folders that have no verdict."""
    console = Terminal(highlight=False)
    table = Table("run", "verdict", "worst rate", "checkpoint", "policy", "date")
    for run in runs:
        color = _COLORS.get(Outcome(run.verdict), "") if run.verdict else "magenta"
        word = f"[{color}]{run.verdict or run.state}[/]"
        if run.so_far is not None:
            word += f" ({run.so_far} so far)" if run.state == "unfinished" else f" ({run.so_far})"
        table.add_row(
            plain(run.name),
            word,
            percent(run.worst_rate),
            plain(run.checkpoint or "–"),
            plain((run.policy_digest or "–")[:12]),
            plain((run.date or "–")[:10]),
        )
    console.print(table)
    for run in runs:
        if run.updates is not None:
            console.say(f"{run.name}: over ordinary updates: {run.updates}")
        if run.state != "finished":
            console.say(f"{run.name}: {run.sentence}")


def present(report: Report, folder: Path, form: str) -> None:
    """A report on standard output, as the user asked for it."""
    if form == "json":
        print_document(report.model_dump_json(indent=2))
    elif form == "human":
        show_report(report, folder)


def show_changes(changes: Sequence[Change]) -> None:
    """What differs between two reports, what is worse in red."""
    console = Terminal(highlight=False)
    if not changes:
        console.print("nothing changed")
        return
    table = Table("", "before", "after")
    for change in changes:
        color = "[red]" if change.worse else ""
        table.add_row(plain(change.what), plain(change.before), f"{color}{plain(change.after)}")
    console.print(table)
    worse = sum(change.worse for change in changes)
    console.print(f"{worse} of {len(changes)} are worse" if worse else "nothing is worse")
