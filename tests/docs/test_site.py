"""The site is built strictly: links, anchors, Markdown copies, llms.txt, and a reference that leaves nothing
out."""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

import auditor.plugin
from auditor._cli import cli
from auditor._journal import lines
from auditor.policy import Policy
from auditor.report import Report
from auditor.report.voice import RULES
from auditor.report.words import _CONTROLS, control_title
from tests.conftest import Once

ROOT = Path(__file__).parents[2]
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


@pytest.fixture(scope="module")
def site(once: Once) -> Path:
    """The site, built once a session."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return once("site", build)


def pages(nav: object = NAV) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages(each)


def text_of(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def anchors(site: Path, name: str) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', text_of(site, name)))


def test_each_page_is_there_as_html_and_as_markdown(site: Path) -> None:
    names = list(pages())
    assert len(names) == len(set(names)) > 40
    for name in names:
        markdown = text_of(site, name)
        heading = markdown.splitlines()[0].removeprefix("# ").replace("`", "")
        assert heading in re.sub("<[^>]+>", "", text_of(site, name.replace(".md", ".html"))), name
    written = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert written - {"404.html"} == {name.replace(".md", ".html") for name in names}


def test_llms_txt_lists_each_page_with_a_sentence(site: Path) -> None:
    listed = dict(re.findall(r"^- \[[^\]]+\]\((\S+)\): (.+[.?])$", text_of(site, "llms.txt"), re.MULTILINE))
    assert list(listed) == list(pages())
    assert all(15 < len(sentence) < 200 for sentence in listed.values())


def test_links_between_markdown_copies_hold(site: Path) -> None:
    for name in pages():
        prose = re.sub(r"```.*?```|`[^`\n]+`", "", text_of(site, name), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            link = urlsplit(unquote(target))
            if link.scheme or not link.path:
                continue
            there = (site / name).parent / link.path
            assert there.is_file(), f"{name}: {target}"
            if link.fragment:
                page = there.resolve().relative_to(site.resolve()).as_posix().replace(".md", ".html")
                assert link.fragment in anchors(site, page), f"{name}: {target}"


def test_links_out_of_the_site_lead_to_files_of_the_repository(site: Path) -> None:
    source = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["repo_url"]
    found = {
        target
        for name in pages()
        for target in re.findall(rf"\]\({re.escape(source)}/(?:blob|tree)/main/([^)#]+)", text_of(site, name))
    }
    assert len(found) > 5
    assert not [target for target in found if not (ROOT / target).exists()]


def test_nothing_is_asked_of_other_hosts(site: Path) -> None:
    for name in pages():
        html = text_of(site, name.replace(".md", ".html"))
        loaded = re.findall(r'<(?:script|img|iframe|link)[^>]* (?:src|href)="(https?:[^"]+)"', html)
        assert not [url for url in loaded if "auditor.example" not in url], name


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = text_of(site, "reference/cli.md")

    def walk(context: click.Context) -> Iterator[click.Context]:
        yield context
        if isinstance(context.command, click.Group):
            for name in context.command.list_commands(context):
                command = context.command.get_command(context, name)
                assert command is not None
                yield from walk(click.Context(command, info_name=name, parent=context))

    found = list(walk(click.Context(cli, info_name="auditor")))
    assert len(found) > 20
    for context in found:
        own = text.split(f"\n## {context.command_path}\n")
        assert len(own) == 2, context.command_path
        for parameter in context.command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert f"`{parameter.opts[0]}" in own[1].split("\n## ")[0], parameter.opts


@pytest.mark.parametrize(
    ("page", "models"),
    [
        ("reference/policy-keys.md", [Policy]),
        ("reference/report-keys.md", [Report]),
        ("reference/journal.md", [lines.BatchLine, lines.StartLine, lines.ArmLine, lines.StopLine]),
    ],
)
def test_every_key_is_in_the_reference(site: Path, page: str, models: list[type]) -> None:
    text = text_of(site, page)
    for model in models:
        schema = model.model_json_schema()  # type: ignore[attr-defined]
        parts = {"": schema} | schema.get("$defs", {})
        keys = {key for part in parts.values() for key in part.get("properties", {})}
        assert keys and not [key for key in keys if f"| `{key}` |" not in text]


def test_every_key_of_a_policy_says_type_default_and_meaning(site: Path) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", text_of(site, "reference/policy-keys.md"), re.MULTILINE
    )
    assert len(rows) > 50
    assert not [row for row in rows if not all(part.strip() for part in row)]
    (tau,) = [row for row in rows if row[0] == "tau"]
    assert tau[1:3] == ("number > 0, < 1", "`0.1`")


def test_what_reports_lead_to_has_its_anchor(site: Path) -> None:
    """Forms of a report name these places; they may not move."""
    assert set(RULES) <= anchors(site, "errors.html")
    titles = {control_title(name).replace(" ", "-") for name in _CONTROLS}
    assert titles <= anchors(site, "controls.html")
    causes = {"too-few-images", "control", "budget", "blind", "not-one-evidence"}
    assert causes <= anchors(site, "inconclusive.html")
    assert text_of(site, "inconclusive.md").count("**Way out.**") == len(causes)
    assert {"what-is-claimed", "verdict", "going-on"} <= anchors(site, "verdict.html")


def test_every_control_says_what_to_mend(site: Path) -> None:
    parts = text_of(site, "controls.md").split("\n## ")[1:]
    assert len(parts) == len(_CONTROLS)
    for part, name in zip(sorted(parts), sorted(_CONTROLS, key=control_title), strict=True):
        assert part.lower().startswith(control_title(name)) and f"`{name}`" in part
        assert "**If it does not pass:**" in part


def test_the_plugin_reference_explains_every_type_that_it_names(site: Path) -> None:
    text = text_of(site, "plugin-reference.md")
    explained = set(re.findall(r"^### (\w+)$|^- `(\w+)[(`]", text, re.MULTILINE))
    explained = {name for pair in explained for name in pair}
    assert not [name for name in auditor.plugin.__all__ if name not in explained]
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    named = set(re.findall(r"(?<![\w.'\"])([A-Z][a-zA-Z]+[a-z])\b", code))
    usual = set(vars(typing)) | set(vars(builtins)) | {"ExitCode", "Field", "Path", "Options"}
    assert not named - explained - usual
