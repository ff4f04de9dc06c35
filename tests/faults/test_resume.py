"""An audit may be killed at any moment: the same command goes on, draws nothing twice and ends with the
same report."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.forks import Fork, Forks
from tests.faults.runs import (
    QUICK,
    SMALL,
    batches,
    command,
    drawn_twice,
    lines_of,
    policy_file,
    timeless,
    torn_pictures,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("nano")

LEARN = {
    "candidates": "micro-people",
    "prompts": "paper-people",
    "names": 2,
    "images_per_prompt": 1,
    "batch": 4,
}
LOOSE = {"tau": 0.6, "min_sensitivity": 0.5, "max_false_positive": 0.3}
"""Limits at which 20 images can decide: with tighter ones a sequential cell is hopeless from the start and
never drawn."""
ROUND_BY_ROUND = {
    "sequential": True,
    "limits": LOOSE,
    "budget": {"images_per_cell": 20, "retained_per_arm": 20},
}
LORA, FULL = LEARN | {"learning_rate": 1e-3}, LEARN | {"learning_rate": 1e-4}

# dies at the n-th time that something is synced to the disk: before an image, a manifest or a trained arm
# gets its name, after a
# journal line was written, or before a folder is synced
AT_SYNC = """
import os, signal
left, sync = [{n}], os.fsync
def fsync(handle):
    left[0] -= 1
    if left[0] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync = fsync
"""

# dies when half of the n-th line of this call is in the journal
TORN = """
import os, signal
from auditor._journal.file import Journal
left, write = [{n}], Journal.write
def tear(journal, line):
    left[0] -= 1
    if left[0] <= 0:
        text = line.model_dump_json().encode()
        os.write(journal._file.fileno(), text[: len(text) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(journal, line)
Journal.write = tear
"""


def kill_until(
    deaths: int, forks: Forks, alone: Path, arguments: Callable[[Path], list[str]], seconds: float, seed: int
) -> int:
    """Kill audits ``deaths`` times, by turns at a random moment, at a random sync and in the middle of a
    line; each goes on until it ends, and then it must be ``alone``'s equal. Returns how many audits that
    took."""
    choice, folder, audits = random.Random(seed), alone.parent, 1
    while deaths:
        out = folder / f"killed{audits}"
        prelude = ("", AT_SYNC.format(n=choice.randrange(1, 60)), "", TORN.format(n=choice.randrange(1, 4)))[
            deaths % 4
        ]
        fork = forks.start(*arguments(out), prelude=prelude)
        if fork.wait(120 if prelude else choice.uniform(0, seconds / 3)) is None:
            fork.send(signal.SIGKILL)
        code = fork.wait()
        assert code in (-signal.SIGKILL, 0, 1, 3), fork.said
        deaths -= code == -signal.SIGKILL
        if code != -signal.SIGKILL:  # it was done before it could be killed: the next audit
            check_equal(out / "run", alone / "run")
            audits += 1
    done = forks.run(*arguments(folder / f"killed{audits}"))
    assert done.code in (0, 1, 3), done.said
    check_equal(folder / f"killed{audits}" / "run", alone / "run")
    return audits


def check_equal(survivor: Path, alone: Path) -> None:
    """Reports are equal but for times, batches and weights are the same, and nothing was drawn twice."""
    assert timeless(survivor) == timeless(alone)
    assert batches(survivor) == batches(alone)
    assert drawn_twice(survivor) == [] and torn_pictures(survivor) == []
    assert weights_of(survivor) == weights_of(alone)


def check_killed_audits_end_alike(
    forks: Forks, erased: Path, folder: Path, deaths: int, seed: int, **changes: object
) -> None:
    """One audit that is left alone, and others that are killed again and again."""
    policy = policy_file(folder, **changes)
    began = time.monotonic()
    alone = forks.run(*command(erased, policy, folder / "alone"))
    seconds = time.monotonic() - began
    assert alone.code in (0, 1, 3), alone.said
    audits = kill_until(
        deaths, forks, folder / "alone", lambda out: command(erased, policy, out), seconds, seed
    )
    print(
        f"{deaths} kills in {audits} audits survived, in {time.monotonic() - began:.0f} s; one undisturbed: "
        f"{seconds:.1f} s"
    )


def test_an_audit_that_was_killed_ends_with_the_report_of_one_that_was_not(
    forks: Forks, erased: Path, tmp_path: Path
) -> None:
    check_killed_audits_end_alike(
        forks, erased, tmp_path, 5, 20260, budget=SMALL, sampler=QUICK | {"batch": 8}
    )


@pytest.mark.science
@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (
            1,
            {
                "probes": [{"use": "in-domain", "method": "lora", "doses": [2, 4], "options": LORA}],
                "sampler": QUICK | {"batch": 4},
            },
        ),
        (
            2,
            {
                "probes": [
                    {"use": "in-domain", "method": "full", "replicates": 2, "doses": [3], "options": FULL}
                ]
            }
            | ROUND_BY_ROUND,
        ),
        (
            3,
            {
                "probes": [
                    {"use": "in-domain", "method": "lora", "replicates": 2, "doses": [1, 3], "options": LORA},
                    {"use": "in-domain", "method": "full", "doses": [2], "options": FULL},
                ],
            }
            | ROUND_BY_ROUND,
        ),
        (
            4,
            {
                "unit": "prompt",
                "budget": {"images_per_cell": 4, "retained_per_arm": 10},
                "sampler": QUICK | {"batch": 3},
            },
        ),
    ],
)
def test_audits_of_every_kind_survive_being_killed(
    forks: Forks, erased: Path, tmp_path: Path, seed: int, changes: dict[str, object]
) -> None:
    changes = {"budget": SMALL, "sampler": QUICK | {"batch": 6}} | changes
    check_killed_audits_end_alike(forks, erased, tmp_path, 10, seed, **changes)


def wait_for_lines(fork: Fork, out: Path, wanted: int) -> None:
    """Until the journal has so many lines."""
    journal, deadline = out / "journal.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= wanted):
        assert fork.wait(0.02) is None and time.monotonic() < deadline, fork.said


def test_a_trained_arm_is_restored_and_not_trained_again(forks: Forks, erased: Path, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, budget=SMALL, sampler=QUICK | {"batch": 2})
    out = tmp_path / "run"
    fork, deadline = forks.start(*command(erased, policy, tmp_path)), time.monotonic() + 60
    # two of its batches are drawn
    while not (out.exists() and [arm for arm, _ in batches(out)].count("in-domain-lora") >= 2):
        assert fork.wait(0.02) is None and time.monotonic() < deadline, fork.said
    fork.send(signal.SIGKILL)
    assert fork.wait() == -signal.SIGKILL
    assert not (out / "report.json").exists()
    before = (out / "journal.jsonl").read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    never = "import auditor._diffusion.finetune as f; f.finetune = None"  # training again would raise
    assert forks.run(*command(erased, policy, tmp_path), prelude=never).code == 3
    assert (out / "journal.jsonl").read_bytes().startswith(before)
    assert [line.arm for line in lines_of(out) if line.kind == "arm"] == ["base", "erased", "in-domain-lora"]
    assert drawn_twice(out) == []


def test_a_terminated_run_goes_on_and_draws_nothing_twice(forks: Forks, erased: Path, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, budget=SMALL, sampler=QUICK | {"batch": 2})
    out = tmp_path / "run"
    fork = forks.start(*command(erased, policy, tmp_path))
    wait_for_lines(fork, out, 5)
    fork.send(signal.SIGTERM)
    assert fork.wait(10) == 143
    assert "run the same command again" in fork.said and "Traceback" not in fork.said
    drawn = (out / "journal.jsonl").read_bytes().rsplit(b"\n", 1)[0]
    assert forks.run(*command(erased, policy, tmp_path)).code == 3
    assert (out / "journal.jsonl").read_bytes().startswith(drawn)
    assert drawn_twice(out) == [] and sum(len(samples) for _, samples in batches(out)) == 65


def test_an_interrupted_run_ends_with_130(forks: Forks, erased: Path, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, budget=SMALL, sampler=QUICK | {"batch": 2})
    fork = forks.start(*command(erased, policy, tmp_path))
    wait_for_lines(fork, tmp_path / "run", 2)
    fork.send(signal.SIGINT)
    assert fork.wait(10) == 130, fork.said


STUBBORN = """
import time
from auditor.builtins.detectors.clip_zero_shot import ClipZeroShot
def detect(self, images, concepts):
    for word in ("first", "second"):
        print(word, flush=True)
        try:
            time.sleep(60)
        except BaseException:
            pass
ClipZeroShot.detect = detect
"""


def test_a_second_signal_ends_what_will_not_stop_at_the_first(
    forks: Forks, erased: Path, tmp_path: Path
) -> None:
    fork, deadline = (
        forks.start(*command(erased, policy_file(tmp_path, budget=SMALL), tmp_path), prelude=STUBBORN),
        time.monotonic() + 60,
    )
    for word in ("first", "second"):
        while word not in fork.said:
            assert fork.wait(0.02) is None and time.monotonic() < deadline, fork.said
        fork.send(signal.SIGTERM)
    assert fork.wait(2) == -signal.SIGTERM
