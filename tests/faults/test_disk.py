"""A disk that runs full ends the run with one sentence; what was written is intact, and with room again
the run goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.forks import Fork, Forks
from tests.faults.runs import (
    QUICK,
    SMALL,
    batches,
    command,
    drawn_twice,
    policy_file,
    timeless,
    torn_pictures,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("nano")

CHANGES = {"sequential": True, "sampler": QUICK | {"batch": 8}}
LARGER = {"images_per_cell": 20, "retained_per_arm": 20}
SIZE = 16 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill ``disk`` until so many bytes are free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    there = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, there.f_bavail * there.f_bsize - free))


def check_it_is_said(fork: Fork, disk: Path) -> None:
    """Exit code 5 and one sentence that names the full disk and the next step."""
    assert fork.code == 5, fork.said
    said = [line for line in fork.said.splitlines() if line.startswith("auditor: ")]
    assert len(said) == 1 and "Traceback" not in fork.said, fork.said
    assert (
        said[0].startswith(f"auditor: The disk under {disk}")
        and "is full. Make room and run the same command again" in said[0]
    )


@pytest.fixture(scope="module")
def alone(forks: Forks, erased: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with audits that had all the room in the world: ``run``, and ``grown/run``, which had a
    small budget first."""
    folder = tmp_path_factory.mktemp("alone")
    small, larger = (
        policy_file(folder / "small", budget=SMALL, **CHANGES),
        policy_file(folder, budget=LARGER, **CHANGES),
    )
    for policy, where in ((larger, folder), (small, folder / "grown"), (larger, folder / "grown")):
        fork = forks.run(*command(erased, policy, where))
        assert fork.code == 3, fork.said
    return folder


def test_a_disk_that_runs_full_again_and_again_changes_nothing_but_the_time(
    forks: Forks, erased: Path, disk: Path, alone: Path, tmp_path: Path
) -> None:
    where = ["--out", str(disk / "run"), "--cache", str(tmp_path / "cache")]
    assert forks.run("audit", str(erased), "--policy", str(alone / "small" / "policy.yaml"), *where).code == 3
    reports = {name: (disk / "run" / name).read_bytes() for name in ("report.json", "report.html")}
    larger = ["audit", str(erased), "--policy", str(alone / "policy.yaml"), *where]
    choice, full = random.Random(7), 0
    for most in (0, 4096, 30_000, 60_000, 120_000):
        leave(disk, choice.randrange(most // 2, most + 1))
        fork = forks.run(*larger)
        if fork.code == 3:
            break  # there was room enough after all
        check_it_is_said(fork, disk)
        full += 1
        assert reports == {name: (disk / "run" / name).read_bytes() for name in reports}
        json.loads((disk / "run" / "manifest.json").read_bytes())
        assert not list((disk / "run").rglob(".*")), "parts of files were left behind"
    assert full >= 3
    (disk / "filler").unlink()
    assert forks.run(*larger).code == 3
    assert timeless(disk / "run") == timeless(alone / "grown" / "run")
    assert (
        batches(disk / "run") == batches(alone / "grown" / "run")
        and drawn_twice(disk / "run") == []
        and torn_pictures(disk / "run") == []
    )
    assert weights_of(disk / "run") == weights_of(alone / "grown" / "run")


def auditing(erased: Path, alone: Path, out: Path, cache: Path) -> list[str]:
    """The command line of the audit that ``alone`` holds undisturbed."""
    return [
        "audit",
        str(erased),
        "--policy",
        str(alone / "policy.yaml"),
        "--out",
        str(out),
        "--cache",
        str(cache),
    ]


def test_a_disk_that_is_full_from_the_start_is_said_so(
    forks: Forks, erased: Path, disk: Path, alone: Path, tmp_path: Path
) -> None:
    leave(disk, 0)
    arguments = auditing(erased, alone, disk / "run", tmp_path / "cache")
    check_it_is_said(forks.run(*arguments), disk)
    (disk / "filler").unlink()
    assert forks.run(*arguments).code == 3
    assert timeless(disk / "run") == timeless(alone / "run")


def test_a_full_disk_under_the_cache_is_named_and_the_audit_goes_on_without(
    forks: Forks, erased: Path, disk: Path, alone: Path, tmp_path: Path
) -> None:
    leave(disk, 40_000)
    assert forks.run(*auditing(erased, alone, tmp_path / "run", disk / "cache")).code == 3
    reports = [json.loads((folder / "run" / "report.json").read_bytes()) for folder in (tmp_path, alone)]
    warnings = reports[0]["provenance"]["warnings"]
    assert [text for text in warnings if f"The disk under {disk / 'cache'} is full" in text] == warnings[-1:]
    drawn, drawn_alone = (
        [(cell["arm"], cell["concept"], cell["images"], cell["hits"]) for cell in report["cells"]]
        for report in reports
    )
    assert drawn == drawn_alone and reports[0]["verdict"] == reports[1]["verdict"]


def test_judging_on_a_full_disk_leaves_the_report_as_it_was(
    forks: Forks, erased: Path, disk: Path, alone: Path
) -> None:
    run = disk / "run"
    subprocess.run(["cp", "-r", str(alone / "run"), str(run)], check=True)
    before = {name: (run / name).read_bytes() for name in ("report.json", "report.html")}
    leave(disk, 0)
    check_it_is_said(forks.run("judge", str(run)), disk)
    assert before == {name: (run / name).read_bytes() for name in before}
    (disk / "filler").unlink()
    assert forks.run("judge", str(run)).code == 3
    assert before == {name: (run / name).read_bytes() for name in before}


def test_erasing_onto_a_full_disk_leaves_no_checkpoint(forks: Forks, disk: Path, alone: Path) -> None:
    out = disk / "erased"
    options = [
        "--options",
        "micro-mace",
        "-o",
        "steps=1",
        "-o",
        "images=1",
        "-o",
        "sampling_steps=1",
        "-o",
        "preserve=[Imka Soren]",
    ]
    for free in (0, 1 << 20):
        leave(disk, free)
        fork = forks.run(
            "erase",
            "micro",
            "--eraser",
            "mace",
            "--policy",
            str(alone / "policy.yaml"),
            "--out",
            str(out),
            *options,
        )
        check_it_is_said(fork, disk)
        assert not out.exists()


def test_what_is_written_can_be_read_by_whom_the_users_mask_allows(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from auditor._files.whole_files import write_whole; "
        "write_whole(Path(sys.argv[1]), b'x')"
    )
    for mask, mode in (("022", 0o644), ("077", 0o600)):
        file = tmp_path / mask
        subprocess.run(
            ["sh", "-c", f'umask {mask}; exec "$0" -c "$1" "$2"', sys.executable, script, str(file)],
            check=True,
        )
        assert file.stat().st_mode & 0o777 == mode
