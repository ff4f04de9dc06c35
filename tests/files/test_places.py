"""Places that cannot be used, or not in the usual way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from auditor._files.places import (
    expanded,
    lock,
    problem_at,
    refuse_unwritable,
    set_mode,
    sync,
    sync_folder,
)
from auditor._files.whole_files import on_disk, write_whole
from auditor.errors import AuditorError, UsageError

SHARE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
static int lacks(const char *what) { const char *all = getenv("LACKS"); return all && strstr(all, what); }
int fchmod(int file, mode_t mode) { (void)file; (void)mode; errno = EPERM; return -1; }
int fsync(int file) {
  struct stat found;
  int folder = !fstat(file, &found) && S_ISDIR(found.st_mode);
  errno = lacks("disk") ? EIO : EINVAL;
  return folder || lacks("files") || lacks("disk") ? -1 : 0;
}
int flock(int file, int how) {
  (void)file; (void)how;
  errno = lacks("support") ? EOPNOTSUPP : ENOLCK;
  return -1;
}
"""
WRITES = """
import sys
from pathlib import Path
from auditor._files.whole_files import write_whole
from auditor._journal.file import Journal
from auditor._journal.lines import NoteLine
from auditor._study.store import Store
folder = Path(sys.argv[1])
write_whole(folder / "whole", b"content")
with Journal(folder / "journal.jsonl") as journal:
    journal.write(NoteLine(text="a line"))
    with Store(folder / "store").claim("key") as mine:
        print(journal.locked, mine, Store(folder / "store").has_locks())
"""


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [
        (errno.ENOSPC, 5, "Make room"),
        (errno.EDQUOT, 5, "Make room"),
        (errno.EIO, 5, "Look at the disk"),
        (errno.EROFS, 2, "read-only; give another place"),
        (errno.EACCES, 2, "change its rights"),
        (errno.EPERM, 2, "change its rights"),
        (errno.ENOTDIR, 2, "a part of this path is a file"),
        (errno.ENAMETOOLONG, 2, "give a shorter one"),
        (errno.ELOOP, 2, "circle"),
        (errno.ENOENT, 5, "put it back"),
    ],
)
def test_what_the_file_system_says_has_a_path_an_exit_code_and_a_next_step(
    tmp_path: Path, number: int, code: int, step: str
) -> None:
    with pytest.raises(AuditorError) as said, on_disk(tmp_path):
        raise OSError(number, os.strerror(number))
    assert said.value.exit_code == code and str(tmp_path) in str(said.value) and step in str(said.value)
    with pytest.raises(AuditorError, match="/named"), on_disk(tmp_path):
        raise OSError(number, os.strerror(number), "/named")


def test_what_no_file_system_says_is_not_explained_away(tmp_path: Path) -> None:
    assert problem_at(OSError("a Hub's answer"), tmp_path) is None
    assert problem_at(OSError(errno.ECHILD, "no child"), tmp_path) is None
    with pytest.raises(SafetensorError), on_disk(tmp_path):
        raise SafetensorError("a header is not JSON")
    with pytest.raises(AuditorError, match="full"), on_disk(tmp_path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "where", ["file/run", "file", "dangling/run", "circle/run", "n" * 300, "deep/" + "n" * 300]
)
def test_a_folder_that_cannot_be_is_refused_with_its_path_and_nothing_is_left(
    tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "there")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=str(tmp_path / where)):
        refuse_unwritable(tmp_path / where)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_can_be_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "new", "new/and/deep", "there/new"):
        refuse_unwritable(tmp_path / name, go_on=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["there"]


def test_a_folder_of_the_kernels_is_refused() -> None:
    """Nobody makes a folder there, whoever they are."""
    with pytest.raises(UsageError, match="/proc/run"):
        refuse_unwritable(Path("/proc/run"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs to become somebody else")
@pytest.mark.parametrize("what", ["folder", "journal", "images"])
def test_a_run_of_another_user_is_refused(tmp_path: Path, what: str) -> None:
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "journal.jsonl").write_text("")
    for path in (run, run / "journal.jsonl", run / "images"):
        os.chown(path, 12345, 12345)
    theirs = {"folder": run, "journal": run / "journal.jsonl", "images": run / "images"}[what]
    os.chown(theirs, 0, 0)
    theirs.chmod(0o444 if theirs.is_file() else 0o555)
    done = subprocess.run(
        ["setpriv", "--reuid", "12345", "--clear-groups", "--inh-caps", "+dac_read_search", "--ambient-caps",
         "+dac_read_search", sys.executable, "-c",
         "import sys; from pathlib import Path; from auditor._files import places\n"
         "places.refuse_unwritable(Path(sys.argv[1]), go_on=True)", str(run)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"UsageError: {theirs} is not this user's" in done.stderr


def test_what_has_no_disk_under_it_needs_no_sync_and_no_mode(tmp_path: Path) -> None:
    read, write = os.pipe()
    sync(write)  # EINVAL
    os.close(read)
    os.close(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync(write)
    with Path("/proc/version").open("rb") as file:
        set_mode(file.fileno(), 0o600)  # EPERM
    sync_folder(tmp_path)


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    with (tmp_path / "file").open("a") as mine, (tmp_path / "file").open("a") as other:
        assert lock(mine) is True
        assert lock(other) is False
    with (tmp_path / "file").open("a") as again:
        assert lock(again) is True


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_share_without_modes_syncs_and_locks_takes_files_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "share.c").write_text(SHARE)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "share.so"), str(tmp_path / "share.c"), "-ldl"],
        check=True,
    )
    for lacks in ("", "files", "files support"):
        folder = tmp_path / f"lacks {lacks}"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", WRITES, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"LD_PRELOAD": str(tmp_path / "share.so"), "LACKS": lacks},
        )
        assert done.stdout.split() == ["None", "True", "False"], done.stderr
        assert (folder / "whole").read_bytes() == b"content"
    (tmp_path / "broken").mkdir()
    broken = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path / "broken")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LD_PRELOAD": str(tmp_path / "share.so"), "LACKS": "disk"},
    )
    assert "Input/output error" in broken.stderr, "a disk that has an error is never believed"


def test_a_home_that_nobody_has_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/model") == tmp_path / "model"
    assert expanded("~nobody-has-this-name/model") == Path("~nobody-has-this-name/model")


def test_a_file_below_a_file_names_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="in the way and no folder"), on_disk(tmp_path):
        write_whole(tmp_path / "file" / "report.json", b"")
    with pytest.raises(UsageError, match="a part of this path is a file"), on_disk(tmp_path):
        write_whole(tmp_path / "file" / "run" / "report.json", b"")
