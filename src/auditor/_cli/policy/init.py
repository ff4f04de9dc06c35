"""``auditor policy init``: asks, reads the base's headers, and writes a policy that can PASS."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from auditor._cli.options import offline
from auditor._cli.output import echo
from auditor.errors import AuditorError, PolicyError, RefusedError, UsageError

if TYPE_CHECKING:
    from auditor.policy.presets import BaseFacts

Answer = TypeVar("Answer")
_TAU = 0.10


@dataclass
class _Answers:
    """What a new policy is made of, as far as it was said."""

    erase: tuple[str, ...] = ()
    retain: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    domain: str | None = None
    mapping: str | None = None
    base: str | None = None
    facts: BaseFacts | None = None

    def line(self, file: Path, *more: str) -> str:
        """The command that goes on from here, with ``more`` options that were given."""
        words = ["auditor", "policy", "init", str(file), *more]
        for name in ("domain", "base", "mapping"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", value]
        for name in ("erase", "retain", "train"):
            words += [word for value in getattr(self, name) for word in (f"--{name}", value)]
        return shlex.join(words)


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--erase", multiple=True, help="A concept that must be gone; may be given again.")
@click.option(
    "--retain",
    multiple=True,
    help="A concept that must still be drawn; may be given again. Made six by what is proposed.",
)
@click.option("--domain", help="people, objects, style, nudity, or a word of yours.")
@click.option("--mapping", help="What the eraser maps the concepts to ('a person').")
@click.option("--base", help="The checkpoint before erasure: a folder, hf://org/name, or micro.")
@click.option(
    "--train",
    multiple=True,
    help="A concept to fine-tune on, for domains that no set is known of; give at least eight.",
)
@click.option(
    "--replicates",
    type=click.IntRange(min=1),
    help="Name probes, each with so many training seeds, instead of a population of ordinary updates.",
)
@click.option(
    "--tau",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_TAU,
    show_default=True,
    help="The limit.",
)
@offline
def command(
    file: Path,
    erase: tuple[str, ...],
    retain: tuple[str, ...],
    domain: str | None,
    mapping: str | None,
    base: str | None,
    train: tuple[str, ...],
    replicates: int | None,
    tau: float,
    offline: bool,
) -> None:
    """Write a commented policy to FILE. In a terminal it asks for what no option gives.

    The base's headers say its family, prediction and size; no weight is read.
    """
    from auditor._files.places import refuse_unwritable
    from auditor._files.whole_files import write_whole
    from auditor.policy.presets import domain_called

    if file.exists():
        raise UsageError(f"{file} exists; give a new name.")
    refuse_unwritable(file.parent)
    said = _Answers(erase, retain, train, domain, mapping, base)
    given = said.line(file)
    try:
        _complete(said, offline=offline)
        text = _written(said, replicates, tau)
    except (click.Abort, AuditorError):
        if said.line(file) != given:
            more = [] if tau == _TAU else ["--tau", f"{tau:g}"]
            more += [] if replicates is None else ["--replicates", str(replicates)]
            more += ["--offline"] if offline else []
            echo(f"Nothing is lost; go on with:\n  {said.line(file, *more)}", err=True)
        raise
    write_whole(file, text.encode())
    assert said.domain is not None and said.base is not None
    known = domain_called(said.domain, said.base)
    if known is not None and known.note:
        echo(known.note)
    echo(f"Wrote {file}. Next: {shlex.join(('auditor', 'policy', 'check', str(file)))}")


def _complete(said: _Answers, *, offline: bool) -> None:
    """Ask for what is missing; an answer that cannot be used is asked for again."""
    from auditor.policy.presets import DOMAINS, FEWEST_TRAINED, domain_called, proposed_retained

    def names(text: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())

    def facts(base: str) -> str:
        said.facts = _facts(base, offline=offline)
        return base

    if said.base is None:
        question = "Which checkpoint was it before (a folder, hf://org/name, or micro)?"
        said.base = _ask(question, "--base", facts)
    else:
        facts(said.base)
    base = said.base

    def known_domain(word: str) -> str:
        domain_called(word, base)
        return word.strip()

    if said.domain is None:
        question = "What kind is it (people, objects, style, nudity, or a word of yours)?"
        said.domain = _ask(question, "--domain", known_domain)
    known = domain_called(said.domain, base)
    usual = known.erase if known else ""
    if not said.erase:
        said.erase = _ask("What was erased (names, separated by commas)?", "--erase", names, usual)
    if known is None and len(said.train) < FEWEST_TRAINED and sys.stdin.isatty():

        def enough(text: str) -> tuple[str, ...]:
            given = names(text)
            if len(given) < FEWEST_TRAINED:
                raise UsageError(f"These are {len(given)}; name at least {FEWEST_TRAINED}.")
            return given

        question = f"No set is known of that kind ({', '.join(DOMAINS)} have one). What may probes train on?"
        said.train = _ask(question, "--train", enough)
    if not said.retain and sys.stdin.isatty():
        proposed = ", ".join(proposed_retained(said.erase, known, base, ()))

        def kept(text: str) -> tuple[str, ...]:
            both = {name.casefold() for name in said.erase} & {name.casefold() for name in names(text)}
            if both:
                raise UsageError(f"{', '.join(sorted(both))}: erased and kept at once.")
            return names(text)

        question = "What must still be drawn (others are added until there are six)?"
        said.retain = _ask(question, "--retain", kept, proposed)


def _ask(question: str, option: str, read: Callable[[str], Answer], usual: str = "") -> Answer:
    """The answer as ``read`` makes it. Without a terminal ``usual``, or :class:`UsageError`."""
    if not sys.stdin.isatty():
        if usual:
            return read(usual)
        raise UsageError(f"{option} is needed; in a terminal 'auditor policy init' asks for it.")

    def understood(text: str) -> Answer:
        try:
            found = read(text)
        except AuditorError as error:
            raise click.BadParameter(str(error)) from error
        if not found:
            raise click.BadParameter("an answer is needed.")
        return found

    answer: Answer = click.prompt(question, default=usual or None, value_proc=understood)
    return answer


def _facts(base: str, *, offline: bool) -> BaseFacts:
    """What the base's headers say. Raises :class:`UsageError` where nothing is there and
    :class:`RefusedError` where an audit would refuse it; a repository that is out of reach is only said."""
    from auditor._checkpoint.inspection import inspect
    from auditor._checkpoint.located import on_hub, refuse_missing
    from auditor.policy.presets import BaseFacts

    refuse_missing(base)
    try:
        found = inspect(base, offline=offline)
    except AuditorError as error:
        if on_hub(base) is None:
            raise
        return BaseFacts(unread=str(error).rstrip("."))
    if found.refused is not None:
        raise RefusedError(found.refused)
    return BaseFacts(found.family, found.prediction, found.size)


def _written(said: _Answers, replicates: int | None, tau: float) -> str:
    """The policy's text, with a budget that a PASS can be reached with. Raises :class:`UsageError` where
    it would be none, or none that can PASS."""
    from auditor._audit.enough import enough_images, no_pass, what_would_do
    from auditor._audit.plan import make_plan
    from auditor.policy import load_policy
    from auditor.policy.presets import BUDGET, new_policy

    assert said.domain is not None and said.base is not None

    def text(budget: tuple[int, int]) -> str:
        return new_policy(
            said.erase,
            said.retain,
            said.domain or "",
            said.mapping,
            said.base or "",
            said.train,
            replicates,
            tau,
            facts=said.facts,
            budget=budget,
        )

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "policy.yaml"
        draft.write_text(text(BUDGET), encoding="utf-8")
        try:
            plan = make_plan(load_policy(draft))
        except PolicyError as error:
            raise UsageError(
                str(error).replace(f"{draft}:", "the policy would not be valid: line ")
            ) from error
    budget = enough_images(plan) if no_pass(plan) else BUDGET
    if budget is None:
        raise UsageError(f"No checkpoint could PASS such a policy. {what_would_do(plan)}")
    return text(budget)
