"""The page: verdict first, nothing from outside, every string only data; looked at in a real browser where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from auditor.demo import render_comparison
from auditor.plan import Plan
from auditor.plugin.loader import make_plugin
from tests.conftest import erased_well, journal_of
from tests.test_judge import verdict_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def page_of(plan: Plan, folder: Path, **changes: object) -> str:
    report = verdict_of(plan, journal_of(plan, erased_well)).model_copy(update=changes)
    content: bytes = make_plugin("reporters", "html", {}).render(report, folder)
    return content.decode()


def test_the_verdict_comes_before_everything_else(plan: Plan, tmp_path: Path) -> None:
    page = page_of(plan, tmp_path)
    assert 0 < page.index("<strong>PASS</strong>") < page.index("Detection, arm by arm") < page.index("What a PASS does not mean")


def test_the_page_asks_for_nothing_from_outside(plan: Plan, tmp_path: Path) -> None:
    page = page_of(plan, tmp_path)
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://", "https://", "<script", "@import", "<link"))


def test_strings_of_a_checkpoint_are_only_data(plan: Plan, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    page = page_of(plan, tmp_path, title=evil)
    assert "<script" not in page and "&lt;script&gt;" in page and "<img src=x" not in page


def test_the_comparison_links_both_reports(plan: Plan, tmp_path: Path) -> None:
    report = verdict_of(plan, journal_of(plan, erased_well))
    page = render_comparison({"esd": report, "mace": report}, tmp_path).decode()
    assert 'href="audit-of-esd/report.html"' in page and 'href="audit-of-mace/report.html"' in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page_without_an_error(plan: Plan, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    page = tmp_path / "report.html"
    page.write_text(page_of(plan, tmp_path))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    flags += ["--disable-sync", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "<strong>PASS</strong>" in done.stdout
    assert "CONSOLE" not in done.stderr
