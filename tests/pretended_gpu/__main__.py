"""``python -m tests.pretended_gpu SCRIPT …`` starts a script with what a pretended GPU needs; ``-m MODULE``
in its place a module."""

import os
import sys

from tests.pretended_gpu.driver import environment, missing

if reason := missing():
    raise SystemExit(reason)
os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment())
