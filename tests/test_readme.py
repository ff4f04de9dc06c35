"""What the README says is executed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import torch

from auditor._cli import cli
from auditor.plugin.contracts import Detection
from auditor.policy import load_policy

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_plugin_example_runs_and_keeps_its_contract() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    (detector,) = names["auditor_register_detectors"]()  # type: ignore[operator]
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[1, 0] = 255
    detection = detector(detector.Options()).detect(images, load_policy("micro-person").erase)
    assert isinstance(detection, Detection)
    assert detection.hits.tolist() == [[False], [True]] and detection.labels == ("other", "red")


def test_every_command_line_of_the_readme_parses() -> None:
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("auditor ")]
    assert len(lines) >= 4
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_links_and_pictures_exist() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / target).exists(), target
