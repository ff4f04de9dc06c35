"""What the README says is executed, in its limits of length, and as the package index shows it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import torch
import yaml

from auditor._cli import cli
from auditor.errors import ExitCode
from auditor.plugin.contracts import Labels
from auditor.policy import load_policy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_it_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 110 and max(map(len, lines)) <= 100 and len(README.split()) <= 950


def test_the_plugin_example_runs_and_keeps_its_contract() -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    (detector,) = names["auditor_register_detectors"]()  # type: ignore[operator]
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[1, 0] = 255
    said = detector(detector.Options()).detect(images, load_policy("micro-person").erase)
    assert isinstance(said, Labels)
    assert said.labels == ("other", "red")


def test_every_command_line_of_the_readme_parses() -> None:
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("auditor ")]
    lines = [line for line in lines if line.split()[1] in cli.list_commands(click.Context(cli))]
    assert len(lines) >= 4
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_what_make_does_is_a_target() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    asked = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert asked == ["demo", "test"] and set(asked) <= set(targets)


def test_the_workflow_step_asks_what_the_action_takes_and_gives() -> None:
    (text,) = blocks("yaml")
    step, refusal = yaml.safe_load(text)
    action = yaml.safe_load(
        (ROOT / "examples/github-action/audit-checkpoint/action.yml").read_text(encoding="utf-8")
    )
    assert set(step["with"]) <= set(action["inputs"])
    assert {name for name, put in action["inputs"].items() if put.get("required")} <= set(step["with"])
    (output,) = re.findall(rf"steps\.{step['id']}\.outputs\.(\S+) != 'PASS'", refusal["if"])
    assert output in action["outputs"] and refusal["run"] == "exit 1"


def test_the_exit_codes_are_those_of_the_program() -> None:
    said = dict(re.findall(r"(\d) (PASS|FAIL|INCONCLUSIVE|refused)", " ".join(README.split())))
    assert {code: word.upper() for code, word in said.items()} == {
        "0": ExitCode(0).name,
        "1": ExitCode(1).name,
        "3": ExitCode(3).name,
        "4": ExitCode(4).name,
    }


@pytest.mark.parametrize(
    ("page", "figures"),
    [
        ("docs/start/demo.md", ["15 of 38", "18 %", "4 min 32 s", "3 to 48 of 50", "0 of 46"]),
        ("docs/micro-audits.md", ["18.1 %", "14.5 %", "7.9 %", "8.0 %"]),
        ("docs/studies.md", ["0 %", "5 to 19 %"]),
        ("docs/statistics.md", ["3.5 %"]),
        ("docs/safety.md", ["446"]),
        ("docs/measured.md", ["3,719 passed, 4 skipped"]),
    ],
)
def test_every_figure_stands_in_the_docs_with_its_command(page: str, figures: list[str]) -> None:
    text, told = ((ROOT / page).read_text(encoding="utf-8"), README)
    for figure in figures:
        assert figure in " ".join(text.split())
        assert figure.replace(" %", "") in " ".join(told.split())


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        if anchor:
            heading = f"## {anchor.replace('-', ' ')}"
            assert heading in (ROOT / path).read_text(encoding="utf-8").lower(), target


def test_at_the_package_index_every_link_is_absolute() -> None:
    command = [sys.executable, "-m", "hatch_fancy_pypi_readme"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    links = re.findall(r"\]\(([^)]+)\)", shown)
    homes = PROJECT["project"]["urls"]
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", README)) > 20
    for link in links:
        if not link.startswith(homes["Source"]):
            page = link.removeprefix(homes["Documentation"]).partition(".html")[0].strip("/")
            assert link.startswith(homes["Documentation"]) and (ROOT / "docs" / f"{page}.md").exists(), link


def test_the_site_has_the_projects_addresses() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    homes = PROJECT["project"]["urls"]
    assert f"site_url: {homes['Documentation']}/\n" in site and f"repo_url: {homes['Source']}\n" in site
