"""Every promise in ``docs/safety.md`` names tests, and they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISES = ROOT / "docs" / "safety.md"


def test_every_promise_names_tests_that_exist() -> None:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    rows = re.findall(r"^\| (S\d+) \|.*\|([^|]*)\|$", PROMISES.read_text(encoding="utf-8"), re.MULTILINE)
    assert {f"S{number}" for number in range(1, 38)} == {name for name, _ in rows}
    for name, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named and set(named) <= there, (name, set(named) - there)
