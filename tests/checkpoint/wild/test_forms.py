"""Files from the wild are read to the weights that the loader which defines their form makes of them, or
refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.inspection import inspect
from auditor.errors import RefusedError
from tests.checkpoint.wild.forms import ROWS, Row, table
from tests.checkpoint.wild.world import World, difference, world_of_micro

pytestmark = pytest.mark.usefixtures("nano")

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def world() -> World:
    return world_of_micro()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.make.__name__)
def test_a_form_is_read_right_or_refused_with_the_reason(world: World, tmp_path: Path, row: Row) -> None:
    path, wanted = row.make(world, tmp_path)
    assert (wanted is None) == bool(row.refused)
    if wanted is not None:
        assert difference(world, path, wanted) < TOLERANCE
        return
    with pytest.raises(RefusedError, match=row.refused) as caught:
        open_checkpoint(str(path), base=world.opened)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.make.__name__)
def test_an_inspection_says_what_an_audit_would(world: World, tmp_path: Path, row: Row) -> None:
    path, wanted = row.make(world, tmp_path)
    found = inspect(str(path), full=True, base="micro")
    if wanted is None:
        with pytest.raises(RefusedError) as caught:
            open_checkpoint(str(path), base=world.opened)
        assert found.refused == str(caught.value)
    else:
        opened = open_checkpoint(str(path), base=world.opened)
        assert found.refused is None and found.digest == opened.digest and found.content == opened.content


def test_the_documentations_table_is_made_of_these_rows() -> None:
    forms = Path(__file__).parents[3] / "docs" / "forms.md"
    assert forms.read_text(encoding="utf-8") == table()
