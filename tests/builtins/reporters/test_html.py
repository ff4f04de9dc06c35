"""The page: verdict first, nothing from outside, every string only data; used in a real browser where
there is one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
import torch

from auditor._audit.cells import PlannedSample, Role
from auditor._audit.plan import Plan
from auditor._cli.demo_audits import ERASURES, render_comparison
from auditor._files.images import to_png
from auditor.plugin._loader import make_plugin
from auditor.report import Outcome, Picture, Replicates, Report
from auditor.report.words import DOCS, MEANINGS
from tests.builtins.reporters.test_forms import HOSTILE, poisoned
from tests.conftest import erased_well, journal_of, verdict_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="no Chromium on this machine (in CI that is a failure)",
)


def came_back(planned: PlannedSample) -> bool:
    """The concept is back under the probe, in every other image."""
    return erased_well(planned) or (
        planned.cell.role is Role.GATE and planned.cell.arm != "erased" and planned.index % 2 == 1
    )


@pytest.fixture
def report(plan: Plan, tmp_path: Path) -> Report:
    """A FAIL with real pictures in ``tmp_path``, and two doses."""
    found = verdict_of(plan, journal_of(plan, came_back))
    (tmp_path / "images").mkdir()
    pictures = []
    for number, picture in enumerate(found.pictures):
        content = to_png(
            torch.randint(
                0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(number % 7)
            )
        )
        name = hashlib.sha256(content).hexdigest()
        (tmp_path / "images" / f"{name}.png").write_bytes(content)
        pictures.append(picture.model_copy(update={"image": name}))
    doses = tuple(
        Replicates(
            probe="in-domain-lora",
            dose=dose,
            concept="Borin Talvek",
            rates=(rate, None),
            held=0,
            bad_seeds_upper=None,
            sentence="x",
        )
        for dose, rate in ((100, 0.1), (300, 0.5))
    )
    lost = [one.model_copy(update={"arm": arm}) for one in pictures[:2] for arm in ("base", "erased")]
    more = {"pictures": tuple(pictures), "replicates": doses, "damaged": tuple(lost)}
    return found.model_copy(update=more)


def page_of(report: Report, folder: Path, **options: Any) -> str:
    content: bytes = make_plugin("reporters", "html", options).render(report, folder)
    return content.decode()


# -- what is in it -------------------------------------------------------------------------------------------


def test_the_sections_come_in_the_order_that_a_reader_needs(report: Report, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    wanted = [
        "verdict",
        "audited",
        "cells",
        "chart",
        "doses",
        "images",
        "damaged",
        "controls",
        "kept",
        "coverage",
        "provenance",
        "limits",
    ]
    assert re.findall(r'<(?:section|h2) id="([a-z]+)"', page) == wanted
    contents = re.search(r'<nav class="contents".*?</nav>', page, re.DOTALL)
    assert contents is not None and re.findall(r'href="#([a-z]+)"', contents[0]) == wanted[1:]
    assert page.index("<strong>FAIL</strong>") < page.index("What was audited")


def test_the_page_asks_for_nothing_from_outside(report: Report, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    assert "default-src 'none'" in page and page.count("<script>") == 1
    links = re.findall(r'href="(https://[^"]*)"', page)
    assert links and all(link.startswith(f"{DOCS}/") for link in links), "the documentation, where one clicks"
    page = re.sub(r'href="https://[^"]*"', "", page)
    assert not any(
        word in page
        for word in ("http://", "https://", "@import", "<link", "unsafe-eval", "script-src 'unsafe-inline'")
    )
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() in page


def test_every_image_links_to_its_full_size(report: Report, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    links = set(re.findall(r'href="images/([0-9a-f]{64})\.png"', page))
    assert links == {picture.image for picture in (*report.pictures, *report.damaged)}
    above, below = page.split('<nav class="contents"')
    assert above.count("data:image/webp;base64,") == 6, "two rows of base, erased and after the worst update"
    assert below.count("data:image/webp;base64,") == len(report.pictures) + len(report.damaged)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_page_shows_the_verdict_and_no_other(report: Report, tmp_path: Path, outcome: Outcome) -> None:
    page = page_of(
        report.model_copy(update={"verdict": report.verdict.model_copy(update={"outcome": outcome})}),
        tmp_path,
    )
    assert re.findall(r'<section id="verdict" class="verdict ([A-Z]+)"', page) == [outcome]
    assert re.findall(r"<strong>([A-Z]+)</strong>", page) == [outcome]
    assert re.findall(r"<title>([A-Z]+):", page) == [outcome]
    assert (MEANINGS[Outcome.PASS] in page) == (outcome is Outcome.PASS)


def test_all_names_are_there_however_many(report: Report, tmp_path: Path) -> None:
    many_names = [{"name": f"Person Number {n}", "domain": "people", "synonyms": []} for n in range(80)]
    page = page_of(report.model_copy(update={"policy": report.policy | {"erase": many_names}}), tmp_path)
    assert page.count("Person Number 79") == 2, "heading and facts"


def test_an_image_that_is_no_picture_or_lies_elsewhere_is_left_out(report: Report, tmp_path: Path) -> None:
    private = tmp_path / "private.png"
    private.write_bytes(to_png(torch.zeros(3, 8, 8, dtype=torch.uint8)))
    torn = report.pictures[0].image
    (tmp_path / "images" / f"{torn}.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    odd = report.pictures[1].model_copy(update={"image": str(private.with_suffix(""))})
    page = page_of(report.model_copy(update={"pictures": (report.pictures[0], odd), "damaged": ()}), tmp_path)
    assert "data:image" not in page and page.count('class="none"') == 2


def test_what_is_sensitive_is_the_concepts_domain_whatever_a_cell_is_called(
    report: Report, tmp_path: Path
) -> None:
    cells = tuple(
        cell.model_copy(update={"surface": "a photo of it"}) if cell.surface else cell
        for cell in report.cells
    )
    pictures = tuple(picture.model_copy(update={"concept": "a photo of it"}) for picture in report.pictures)
    page = page_of(
        report.model_copy(update={"cells": cells, "pictures": pictures}), tmp_path, sensitive=["People"]
    )
    assert 'class="grid-box sensitive"' in page


def test_many_concepts_and_arms_still_make_a_page_that_can_be_sent(report: Report, tmp_path: Path) -> None:
    pictures = tuple(
        picture.model_copy(update={"concept": f"{picture.concept} {n}", "arm": f"{picture.arm} {m}"})
        for picture in report.pictures
        for n in range(20)
        for m in range(6)
    )
    cells = tuple(
        cell.model_copy(update={"surface": f"{cell.surface} {n}", "arm": f"{cell.arm} {m}"})
        for cell in report.cells
        if cell.surface
        for n in range(20)
        for m in range(6)
    )
    page = page_of(report.model_copy(update={"pictures": pictures, "cells": cells}), tmp_path)
    assert len(pictures) > 10_000 and len(page.encode()) < 5e6


def test_where_the_concept_was_seen_is_shown_and_the_first_images_are_not_chosen(report: Report) -> None:
    shown = {(picture.arm, picture.prompt, picture.index) for picture in report.pictures}
    hits = {
        (picture.prompt, picture.index)
        for picture in report.pictures
        if picture.hit and picture.arm != "base"
    }
    assert len({index for _, index in hits}) > 4
    for arm in ("erased", "in-domain-lora"):
        drawn = {(prompt, index) for each, prompt, index in shown if each == arm}
        assert {(prompt, index) for prompt, _ in hits for index in range(4)} <= drawn, (
            "the first four of every prompt"
        )
    assert all(("erased", *row) in shown for row in hits), "the same prompt and noise beside it"


def test_thumbnails_stop_where_there_is_no_room(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditor.builtins.reporters import pictures

    monkeypatch.setattr(pictures, "_MOST_THUMBNAILS", 3)
    report = report.model_copy(update={"damaged": ()})
    page = page_of(report, tmp_path).split('<nav class="contents"')[1]
    assert len(re.findall(r"data:image/webp;base64,", page)) == 3
    assert len(set(re.findall(r'href="images/([0-9a-f]{64})\.png"', page))) == len(
        {picture.image for picture in report.pictures}
    )


def test_the_comparison_links_both_reports(report: Report, tmp_path: Path) -> None:
    first, second = ERASURES
    for reports in ({first: report}, {first: report, second: report}):
        page = render_comparison(reports, tmp_path).decode()
        assert [f'href="audit-of-{name}/report.html"' in page for name in ERASURES] == [
            name in reports for name in ERASURES
        ]
        assert "had been seen under probes before" in page and ">not drawn<" not in page


def test_the_comparison_names_what_was_not_drawn(plan: Plan, tmp_path: Path) -> None:
    """An audit that ends at a proven FAIL draws no later model state: "0 of 0" would read as a result."""
    lines = journal_of(plan, came_back, skip=lambda planned: planned.cell.arm == "in-domain-lora")
    page = render_comparison({next(iter(ERASURES)): verdict_of(plan, lines)}, tmp_path).decode()
    assert '<tr><td>in-domain-lora</td>\n<td class="control">not drawn</td>' in page.replace("\n\n", "\n")


# -- in a browser --------------------------------------------------------------------------------------------


def browse(
    folder: Path, page: str, script: str = "", libraries: tuple[str, ...] = ()
) -> tuple[Any, str, str]:
    """Open ``page``, run ``script`` in it (its value, JSON), and give back that, what the console said, and
    what was asked of the net.

    The page's own Content-Security-Policy stays, with the hashes of these scripts added to it.
    """
    assert CHROMIUM is not None
    wrapped = f"""(async () => {{ const value = await (async () => {{ {script} }})();
        const out = document.createElement("pre"); out.id = "value";
        out.textContent = JSON.stringify(value ?? null);
        document.body.append(out); }})();"""
    scripts = [*libraries, wrapped] if script else []
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    tested = page.replace("script-src ", f"script-src {hashes} ", 1)
    tested = tested.replace("</body>", "".join(f"<script>{each}</script>" for each in scripts) + "</body>")
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(tested, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
        "--disable-component-update",
        "--disable-extensions",
        "--disable-default-apps",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--virtual-time-budget=30000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [CHROMIUM, *flags, file.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    value = re.search(r'<pre id="value">(.*?)</pre>', done.stdout, re.DOTALL)
    if script:
        assert value is not None, done.stderr[-2000:]
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    urls = set(re.findall(r'"(?:url|origin)":"((?:https?|wss?)://[^"]*)"', log.read_text(errors="replace")))
    # its own
    asked = "\n".join(
        sorted(url for url in urls if not re.match(r"https?://[a-z0-9.]*(google|googleapis|gvt1)\.com/", url))
    )
    return (
        json.loads(value[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        if value
        else None,
        console,
        asked,
    )


SHOWN = """
const rows = [...document.querySelectorAll(".grid-box tbody tr")]
  .filter((row) => !row.hidden && !row.closest(".grid-box").hidden);
const cells = rows.flatMap((row) => [...row.querySelectorAll("td")]).filter((cell) => !cell.hidden);
const status = document.querySelector("[role=status]").textContent;
const shown = { rows: rows.length, cells: cells.length, status };
"""


@browser
def test_a_browser_shows_the_page_without_an_error_and_asks_nobody(report: Report, tmp_path: Path) -> None:
    value, console, asked = browse(
        tmp_path, page_of(report, tmp_path), "return document.querySelector('#verdict strong').textContent"
    )
    assert value == "FAIL"
    assert console == "" and asked == ""


@browser
def test_filters_show_what_they_say(report: Report, tmp_path: Path) -> None:
    prompts = {picture.prompt for picture in report.pictures}
    all_rows = {(picture.prompt, picture.index) for picture in report.pictures}
    hits = {
        (picture.prompt, picture.index)
        for picture in report.pictures
        if picture.hit and picture.arm != "base"
    }
    choose = """const choose = (name, value) => {
        const each = document.querySelector(`[data-filter=${name}]`);
        each.value = value;
        each.dispatchEvent(new Event("change")); };"""
    script = f"""{choose}
        const found = [];
        const look = () => {{ {SHOWN} found.push(shown); }};
        look(); choose("rows", "all"); look(); choose("rows", "hit"); look();
        choose("arm", "2"); look(); choose("concept", "0"); look();
        return found;"""
    found, console, _ = browse(tmp_path, page_of(report, tmp_path), script)
    assert [each["rows"] for each in found] == [len(prompts), len(all_rows), len(hits), len(hits), len(hits)]
    assert found[3]["cells"] == len(hits), "one arm"
    assert found[0]["status"] == f"{len(prompts)} rows" and console == ""


@browser
def test_sensitive_images_are_blurred_until_asked(report: Report, tmp_path: Path) -> None:
    look = "getComputedStyle(document.querySelector('.grid-box img')).filter"
    page = page_of(report, tmp_path, sensitive=["people"])
    value, _, _ = browse(
        tmp_path,
        page,
        f"const before = {look}; document.querySelector('#reveal').click(); return [before, {look}];",
    )
    assert "blur" in value[0] and value[1] == "none"
    value, _, _ = browse(
        tmp_path, page_of(report, tmp_path), f"return [{look}, document.querySelector('#reveal')]"
    )
    assert value == ["none", None]


CUT = """
const frame = document.querySelector("iframe");
const there = () => frame.contentDocument.querySelector("main")
  && frame.contentDocument.readyState === "complete";
while (!there()) await new Promise((done) => setTimeout(done, 20));
const { contentDocument: page, contentWindow: window } = frame;
const found = {};
for (const width of WIDTHS) {
  frame.style.width = `${width}px`;
  const shown = [...page.querySelectorAll("main, main *")].filter((each) => each.getClientRects().length
    && window.getComputedStyle(each).position !== "absolute" && !each.closest("svg"));
  const name = (each) => `${each.tagName}.${each.className}`;
  const top = (each) => each.getBoundingClientRect().top;
  const captions = [...page.querySelectorAll(".beside .three")].map((row) =>
    [...row.querySelectorAll("a > span:last-child")].map(top));
  const level = (tops) => tops.length === 3 && Math.max(...tops) - Math.min(...tops) < 1;
  found[width] = [
    shown.filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth + 1).map(name),
    shown.filter((each) => each.getBoundingClientRect().right > window.innerWidth + 1).map(name),
    captions.length > 0 && captions.every(level), window.innerWidth];
}
return found;
"""


@browser
@pytest.mark.parametrize("medium", ["screen", "print"])
def test_nothing_is_cut_in_any_width_and_captions_are_aligned(
    report: Report, tmp_path: Path, medium: str
) -> None:
    """From a phone to a wide window; 640 is what 1280 has at 200 %, and 720 is about a printed page."""
    page, widths = page_of(report, tmp_path), [1280, 840, 640, 390, 320]
    if medium == "print":
        page = page.replace("@media print", "@media all").replace("@media screen", "@media speech")
        widths = [720]
    framed = f'<body><iframe style="border: 0" srcdoc="{html.escape(page)}"></iframe></body>'
    found, _, _ = browse(tmp_path, framed, CUT.replace("WIDTHS", str(widths)))
    assert found == {str(width): [[], [], True, width] for width in widths}


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(report: Report, tmp_path: Path, scheme: str) -> None:
    page = page_of(report, tmp_path)
    if scheme == "dark":
        page = page.replace("(prefers-color-scheme: dark)", "(min-width: 1px)")
    script = """const { violations } = await axe.run(document);
        return violations.map((each) => [each.impact, each.id, each.nodes.map((node) => node.html)]);"""
    found, _, _ = browse(tmp_path, page, script, (AXE.read_text(encoding="utf-8"),))
    assert not [each for each in found if each[0] in ("serious", "critical")], found


@browser
@pytest.mark.parametrize("kind", ["html", "script", "attribute", "template", "direction"])
def test_hostile_strings_run_nothing_in_a_browser(report: Report, tmp_path: Path, kind: str) -> None:
    page = page_of(poisoned(report, HOSTILE[kind]), tmp_path)
    value, _, asked = browse(
        tmp_path, page, "await new Promise((done) => setTimeout(done, 500)); return document.title;"
    )
    assert value != "pwned" and value.startswith("FAIL") and asked == ""


Render = Callable[[Report, Path], str]


def many(report: Report, folder: Path, samples: int) -> Report:
    """The report with so many pictures, each another 128 px image."""
    pictures = []
    for number in range(samples):
        if number < 2000:
            content = to_png(
                torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
                .repeat_interleave(8, 1)
                .repeat_interleave(8, 2)
            )
            name = hashlib.sha256(content).hexdigest()
            (folder / "images" / f"{name}.png").write_bytes(content)
        else:
            name = pictures[number % 2000].image
        arm = ("base", "erased", "in-domain-lora")[number % 3]
        prompt = f"prompt {number // 3 % 50}"
        pictures.append(
            Picture(
                arm=arm,
                concept="Borin Talvek",
                prompt=prompt,
                index=number // 150,
                image=name,
                hit=False,
                label="x",
                score=0.0,
            )
        )
    return report.model_copy(update={"pictures": tuple(pictures)})


@pytest.mark.bench
def test_ten_thousand_samples_make_a_page_that_can_be_sent(report: Report, tmp_path: Path) -> None:
    """Issue: at most 10 s and 5 MB."""
    import time

    large = many(report, tmp_path, 10_000)
    began = time.perf_counter()
    page = page_of(large, tmp_path)
    seconds = time.perf_counter() - began
    print(f"report.html of 10,000 samples: {len(page.encode()) / 1e6:.2f} MB in {seconds:.1f} s")
    assert len(page.encode()) <= 5e6 and seconds <= 10
