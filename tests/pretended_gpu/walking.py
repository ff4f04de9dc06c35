"""What tests say of a pretended GPU: where it is skipped, and what is expected and not so yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.pretended_gpu.driver import missing

Walked = Callable[..., dict[str, Any]]
"""``walked("shapes", "sd21")``: what a case of :mod:`tests.pretended_gpu.cases` found."""

needs_a_pretended_gpu = pytest.mark.skipif(missing() is not None, reason=str(missing()))
