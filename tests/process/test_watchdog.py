"""A plugin that is silent for too long ends its process with 5; signs of life keep it going."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, time
from auditor._process.watchdog import Watchdog

dog = Watchdog()
with dog.waiting(0.4, lambda sentence: print("last:", sentence, flush=True)), dog.watch("The plugin 'x'"):
    for _ in range(int(sys.argv[1])):
        time.sleep(0.1)
        dog.alive()
    time.sleep(float(sys.argv[2]))
print("done")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_silence_ends_the_process_with_5_and_a_sentence() -> None:
    done = run("0", "30")
    assert done.returncode == 5
    assert "last: The plugin 'x' gave no sign of life for 0.4 seconds" in done.stdout
    assert "the same command goes on" in done.stderr


def test_signs_of_life_keep_it_going_for_longer_than_its_patience() -> None:
    done = run("10", "0")
    assert (done.returncode, done.stdout) == (0, "done\n")
