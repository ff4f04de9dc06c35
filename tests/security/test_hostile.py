"""Every hostile checkpoint ends with exit code 4 and one sentence; nothing is unpickled, nothing is
written outside, memory stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.conversion import convert
from auditor._checkpoint.load import load_model
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError
from tests.faults.forks import Forks
from tests.security.hostile import MAKERS, UNET, Canary, edit_json, sharded

pytestmark = pytest.mark.usefixtures("nano")

ALL_IN_ONE = """
import json, pathlib, resource, sys
from auditor._checkpoint import open_checkpoint
import auditor._checkpoint.architecture as a
from auditor.families.stable_diffusion.family import STABLE_DIFFUSION
# imports, before measuring
config = json.loads((pathlib.Path(sys.argv[1]) / "unet/config.json").read_text())
a.declared_shapes(STABLE_DIFFUSION, "unet", config)
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_checkpoint(sys.argv[2])
except Exception as error:
    print(type(error).__name__)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the micro base to spoil."""
    return Path(shutil.copytree(micro_world(), tmp_path / "checkpoint"))


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_there_are_sixty_and_more() -> None:
    assert len(MAKERS) >= 60


@pytest.mark.parametrize("name", MAKERS)
def test_a_hostile_checkpoint_is_refused(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    make, words = MAKERS[name]
    make(folder)
    before = everything(folder.parent)
    with pytest.raises(RefusedError, match=words) as caught:
        load_model(open_checkpoint("checkpoint"))
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(caught.value).isprintable()
    assert everything(folder.parent) == before, "a file was left behind"


@pytest.mark.parametrize(
    "name",
    [
        "a pickle in place of the unet",
        *(
            pytest.param(name, marks=pytest.mark.science)  # the refusals themselves are tested above
            for name in ("a custom pipeline", "a shape of 10^18", "a unet that is a link out")
        ),
    ],
)
def test_the_process_ends_with_4(folder: Path, name: str) -> None:
    MAKERS[name][0](folder)
    command = [
        sys.executable,
        "-m",
        "auditor",
        "audit",
        str(folder),
        "--policy",
        "micro-person",
        "--out",
        str(folder.parent / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("auditor:")]) == 1
    assert not (folder.parent / "run").exists()


@pytest.mark.parametrize(
    "name",
    [
        "60,000 tensors",
        *(
            pytest.param(name, marks=pytest.mark.science)
            for name in (
                "a header of 20 MB",
                "a shape of 10^18",
                "channels beyond memory",
                "NaN in the unet",
            )
        ),
    ],
)
def test_refusing_takes_little_memory(folder: Path, name: str) -> None:
    """Peak minus idle: at most one and a half times the largest honest tensor, and 64 MB."""
    MAKERS[name][0](folder)
    arguments = [sys.executable, "-c", ALL_IN_ONE, str(micro_world()), str(folder)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    error, kilobytes = done.stdout.split()
    assert error == "RefusedError" and int(kilobytes) < 64 * 1024, f"{kilobytes} kB"


def test_only_admitted_files_are_loaded(folder: Path) -> None:
    """An index beside a whole file, and one of a variant beside its file: some libraries would follow
    them, so they must be one model."""
    honest = load_model(open_checkpoint("micro"))
    sharded("part.safetensors")(folder)
    shutil.copyfile(micro_world() / UNET, folder / UNET)
    sound = load_file(folder / UNET)
    # not what the index names
    save_file({name: value * 0 + 1 for name, value in sound.items()}, folder / UNET)
    with pytest.raises(RefusedError, match="holds other weights than"):
        open_checkpoint(str(folder))
    save_file(sound, folder / UNET)
    (folder / f"{UNET.parent}/diffusion_pytorch_model.fp16.safetensors.index.json").write_text(
        '{"weight_map": {"a": "x.bin"}}'
    )
    opened = open_checkpoint(str(folder))
    assert "unet/part.safetensors" in opened.files and UNET.as_posix() not in opened.files
    state = load_model(opened).unet.state_dict()
    assert all(bool((state[name] == value).all()) for name, value in honest.unet.state_dict().items())


def test_names_from_a_checkpoint_do_not_drive_the_terminal(folder: Path, forks: Forks) -> None:
    edit_json("model_index.json", _class_name="XL\n::error::owned\x1b]0;x")(folder)
    done = forks.call("audit", folder, "--policy", "micro-person", "--out", folder.parent / "run")
    assert done.returncode == 4 and "\x1b" not in done.stderr
    assert not any(line.startswith("::") for line in done.stderr.splitlines())


def test_honest_shards_are_read(folder: Path) -> None:
    sharded("part-1-of-1.safetensors")(folder)
    opened = open_checkpoint(str(folder))
    assert "unet/part-1-of-1.safetensors" in opened.files
    state, whole = (
        load_model(opened).unet.state_dict(),
        load_model(open_checkpoint("micro")).unet.state_dict(),
    )
    assert all(bool((state[name] == value).all()) for name, value in whole.items())


def test_a_link_within_the_hubs_cache_is_followed(folder: Path) -> None:
    repository = folder.parent / "models--org--model"
    snapshot = repository / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    (repository / "blobs").mkdir()
    (snapshot / UNET).rename(repository / "blobs" / "0123")
    (snapshot / UNET).symlink_to("../../../blobs/0123")
    assert open_checkpoint(str(snapshot)).digest == open_checkpoint("micro").digest


def test_a_pickle_is_converted_in_a_process_of_its_own_and_a_hostile_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file as load_tensors

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a.weight": torch.arange(6.0).view(2, 3)}, "step": 3}, tmp_path / "good.ckpt")
    convert(tmp_path / "good.ckpt", tmp_path / "good.safetensors")
    assert load_tensors(tmp_path / "good.safetensors")["a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    torch.save({"state_dict": {"a": torch.ones(1)}, "hook": Canary()}, tmp_path / "evil.ckpt")
    with pytest.raises(RefusedError, match="was not converted"):
        convert(tmp_path / "evil.ckpt", tmp_path / "evil.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"good.ckpt", "good.safetensors", "evil.ckpt"}
