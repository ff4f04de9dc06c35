"""Python imports this when it starts: what is called ``micro`` is the nano world."""

import contextlib
from pathlib import Path

with contextlib.suppress(ImportError):  # of a Python that has no auditor
    from auditor._files import bundled

    bundled._MICRO_WORLD = Path(__file__).parents[1] / "weights"
