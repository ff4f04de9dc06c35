"""Fixtures of the fault tests: forks to kill, and policy files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.forks import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """One process that forks for every command."""
    with Forks(tmp_path_factory.mktemp("forks")) as server:
        yield server
