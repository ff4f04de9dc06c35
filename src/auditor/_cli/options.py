"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from auditor._cli.output import keep_others_out
from auditor._files.nearest import listed


class Commands(click.Group):
    """Commands; a wrong name gets the nearest right one and all that there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first of ``args`` names. Raises :class:`click.UsageError` where there is
        none."""
        name, known = str(args[0]), self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{name}'; {listed(name, known, 'commands')}")
        return super().resolve_command(ctx, args)


def _load(ctx: click.Context, parameter: click.Parameter, files: tuple[Path, ...]) -> None:
    from auditor.plugin._loader import add_file

    if files:
        keep_others_out()
    for file in files:
        add_file(file)


output_format = click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json", "quiet"]),
    default="human",
    show_default=True,
    help="human: a table and the verdict; json: report.json on standard output; quiet: the exit code alone.",
)

human_or_json = click.option(
    "--format",
    "form",
    type=click.Choice(["human", "json"]),
    default="human",
    show_default=True,
    help="json: for programs.",
)

exit_zero = click.option(
    "--exit-zero", is_flag=True, help="FAIL and INCONCLUSIVE end with 0 too; errors keep their codes."
)

plugin_files = click.option(
    "--plugin",
    type=click.Path(path_type=Path),
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load,
    help="A Python file with plugins in it; may be given again. Only what is named here is loaded, never "
    "what is audited.",
)

offline = click.option(
    "--offline",
    is_flag=True,
    help="Take repositories from the Hub's cache alone. HF_HUB_OFFLINE=1 in the environment does the same.",
)


def _device(ctx: click.Context, parameter: click.Parameter, name: str | None) -> None:
    import os

    from auditor._process.device import VARIABLE, asked_device

    asked = asked_device(name)
    if name is not None:
        before = os.environ.get(VARIABLE, "")
        ctx.call_on_close(lambda: os.environ.update({VARIABLE: before}))
        os.environ[VARIABLE] = asked


device = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    is_eager=True,
    expose_value=False,
    callback=_device,
    help="Where models run; auto: a GPU if there is one. AUDITOR_DEVICE in the environment does the same.",
)

seal = click.option(
    "--seal",
    type=click.Path(path_type=Path),
    help="A file with a secret key: every line of the journal must carry its seal, so that none was written "
    "by anybody else.",
)


def _choices(ctx: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        component, _, file = pair.partition("=")
        if not component or not file:
            raise click.BadParameter(f"{pair}: COMPONENT=FILE is right, for instance unet=model.safetensors.")
        found[component] = file
    return found


def choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--prediction`` and ``--component``: what is meant where a checkpoint's files do not say one thing."""
    component = click.option(
        "--component",
        "components",
        metavar="COMPONENT=FILE",
        multiple=True,
        callback=_choices,
        help="Which file of weights is meant where a folder holds several; may be given again.",
    )
    prediction = click.option(
        "--prediction",
        type=click.Choice(["epsilon", "v_prediction"]),
        help="What the denoiser predicts, where its file and the scheduler's configuration disagree.",
    )
    return prediction(component(command))


def chosen(prediction: str | None, components: dict[str, str]) -> dict[str, str]:
    """Both options as one, as :func:`~auditor._checkpoint.admit.open_checkpoint` takes them."""
    return components | ({} if prediction is None else {"prediction": prediction})


def more_budget(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--images-per-cell``, ``--retained-per-arm``, ``--minutes`` and ``--updates``: more than the policy's
    budget."""
    for name, kind, what in (
        ("--updates", click.IntRange(min=1), "updates of the population at most"),
        ("--minutes", click.FloatRange(min=0, min_open=True), "minutes of measuring in all"),
        ("--retained-per-arm", click.IntRange(min=1), "retained images of a model state at most"),
        ("--images-per-cell", click.IntRange(min=1), "images of a check at most"),
    ):
        key = name.removeprefix("--").replace("-", "_")
        key = f"updates.budget.{key}" if key == "updates" else f"budget.{key}"
        text = f"So many {what}, more than the policy's {key}: an undecided run goes on in its folder."
        command = click.option(name, type=kind, help=text)(command)
    return command
