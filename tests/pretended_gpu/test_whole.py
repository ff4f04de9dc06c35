"""Whole erasures and audits on a pretended GPU: nothing is on a wrong device, no plugin's call ends in an
error."""

from __future__ import annotations

import pytest

from tests.pretended_gpu.walking import Walked, needs_a_pretended_gpu

pytestmark = needs_a_pretended_gpu


@pytest.mark.science
@pytest.mark.parametrize("eraser", ["mace", "uce"])
def test_other_erasers_erase(walked: Walked, eraser: str) -> None:
    assert walked(eraser) == {"erased": True, "errors": []}


@pytest.mark.science
def test_an_audit_runs_and_its_replay_is_the_same(walked: Walked) -> None:
    found = walked("audited")
    assert found["errors"] == [] and found["device"] == found["expected device"]
    assert found["replayed"] == found["identical"] >= 20 and found["shams"] == [0, 0, 0]


@pytest.mark.science
def test_every_update_runs(walked: Walked) -> None:
    assert walked("updates")["errors"] == []


@pytest.mark.science
def test_an_audit_goes_on_where_only_four_rows_fit(walked: Walked) -> None:
    assert walked("scarce")["errors"] == []
