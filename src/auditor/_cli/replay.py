"""``auditor replay``."""

from __future__ import annotations

from pathlib import Path

import click

from auditor._cli.live import watch
from auditor._cli.options import device, offline, plugin_files, seal
from auditor._cli.output import echo
from auditor.errors import AuditorError


@click.command("replay")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="At least so many images, in whole batches.",
)
@click.option("--checkpoint", help="Where the audited checkpoint lies now, if it was moved.")
@click.option("--base", help="Where its base lies now.")
@click.option(
    "--tolerance",
    type=click.IntRange(0, 255),
    default=8,
    show_default=True,
    help="Largest difference of a pixel, of 255, that another stack may make.",
)
@device
@offline
@seal
@plugin_files
def command(
    folder: Path,
    samples: int,
    checkpoint: str | None,
    base: str | None,
    tolerance: int,
    offline: bool,
    seal: Path | None,
) -> None:
    """Draw some images of the run in FOLDER again and compare them, pixel by pixel and by what the detector
    says.

    Ends with 0 where they are the same, bit for bit or within the tolerance, and with 5 where they are not.
    """
    from auditor._audit.replay import replay

    with watch() as progress:
        report = replay(
            folder,
            samples,
            checkpoint=checkpoint,
            base=base,
            tolerance=tolerance,
            offline=offline,
            progress=progress,
            seal=seal,
        )
    found = report.provenance.replay
    assert found is not None
    echo(found.sentence)
    if not found.succeeded:
        raise AuditorError(f"The run does not replay within {tolerance} of 255 on this machine.")
