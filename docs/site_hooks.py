"""What the site has that no file in ``docs/`` holds: generated pages, the project's own pages from the top of
the repository, each page as Markdown beside its HTML, and ``llms.txt``.

``make docs`` calls mkdocs, which calls this (``mkdocs.yml``).
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from make_cli_reference import cli_reference
from make_record_reference import journal_reference, policy_reference, report_reference

_ROOT = Path(__file__).parents[1]
_GENERATED = {
    "reference/cli.md": cli_reference,
    "reference/policy-keys.md": policy_reference,
    "reference/report-keys.md": report_reference,
    "reference/journal.md": journal_reference,
}
_FROM_THE_TOP = {
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security.md": "SECURITY.md",
    "project/micro-world.md": "src/auditor/microworld/README.md",
}
"""Pages of the site that are files of the repository."""
_LINK = re.compile(r"(?<!`)(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")

_pages: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    _pages.clear()
    for name, make in _GENERATED.items():
        files.append(File.generated(config, name, content=make()))
    for name, source in _FROM_THE_TOP.items():
        files.append(File.generated(config, name, content=(_ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of the site go to the repository; the text is kept as it is published."""
    here = _FROM_THE_TOP.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    for at in range(0, len(parts), 2):
        parts[at] = _LINK.sub(lambda found: _led(found, here, page.file.src_uri, config, files), parts[at])
    _pages[page.file.src_uri] = "".join(parts)
    return _pages[page.file.src_uri]


def _led(found: re.Match[str], here: str, page: str, config: MkDocsConfig, files: Files) -> str:
    target, _, anchor = found[2].partition("#")
    if not target or ":" in target:
        return found[0]
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    taken = {source: name for name, source in _FROM_THE_TOP.items()}
    name = taken.get(wanted, wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
    if name is not None and files.get_file_from_path(name) is not None:
        link = posixpath.relpath(name, posixpath.dirname(page) or ".")
    elif (_ROOT / wanted).exists():
        kind = "tree" if (_ROOT / wanted).is_dir() else "blob"
        link = f"{str(config.repo_url).rstrip('/')}/{kind}/main/{wanted}"
    else:
        return found[0]  # mkdocs says that it leads nowhere
    return f"{found[1]}{link}{'#' if anchor else ''}{anchor}{found[3]}"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A name for the theme's search dialog, which screen readers ask for."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_build(config: MkDocsConfig) -> None:
    """Write the Markdown beside the HTML, and ``llms.txt``."""
    out = Path(config.site_dir)
    for name, text in _pages.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for entry in config.nav or ():
        ((section, below),) = entry.items()
        if isinstance(below, str):
            lines += [_listed(below)]
        else:
            lines += ["", f"## {section}", "", *(_listed(name) for name in _names(below))]
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _names(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [name for value in values for name in _names(value)]


def _listed(name: str) -> str:
    heading, sentence = summary_of(name, _pages[name])
    return f"- [{heading}]({name}): {sentence}"


def summary_of(name: str, text: str) -> tuple[str, str]:
    """The heading of a page and the sentence under it, which says what the page is for."""
    found = re.match(r"# (.+)\n\n(\S[^\n]*(?:\n[^\n]+)*)\n", text)
    sentence = "" if found is None else re.split(r"(?<=[.?])\s", " ".join(found[2].split()))[0]
    if found is None or sentence.startswith(("|", "-", "#", "`")) or not sentence.endswith((".", "?")):
        raise PluginError(f"{name} has to begin with a heading and a sentence that says what it is for")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence)
    return found[1].replace("`", ""), plain
