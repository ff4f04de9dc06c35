"""Checkpoints on the Hub: the real client against a Hub on the loopback. Whatever goes wrong on the way,
nothing wrong is audited."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load, save

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.addresses import HubSource, parse_hub_source
from auditor._checkpoint.hub_answers import ask
from auditor.errors import AuditorError, UsageError
from tests.checkpoint.hub_server import Hub, digest_of, folder_files, serve
from tests.faults.forks import Forks
from tests.nano import WEIGHTS

pytestmark = pytest.mark.usefixtures("nano")

Run = Callable[..., subprocess.CompletedProcess[str]]
UNET = "unet/diffusion_pytorch_model.safetensors"
FILES = {name: content for name, content in folder_files(WEIGHTS).items() if not name.startswith("clip/")}
TERMS = {"README.md": b"---\nlicense: mit\n---\n", "LICENSE.txt": b"the terms"}
BESIDE = {"unet/diffusion_pytorch_model.bin": b"pickle", "safety_checker/model.safetensors": b"x"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with the micro base on its main branch, and files beside it that no audit needs."""
    hub = Hub()
    hub.push("main", FILES | BESIDE | TERMS)
    with serve(hub):
        yield hub


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture
def run(forks: Forks) -> Run:
    """A command with this Hub and this cache."""

    def command(hub: Hub, cache: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return forks.call(*arguments, environment=environment(hub, cache) | more)

    return command


def started(hub: Hub, cache: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    command, output = [sys.executable, "-m", "auditor", *arguments], subprocess.PIPE
    where = environment(hub, cache) | more
    return subprocess.Popen(command, stdout=output, stderr=output, text=True, env=where)


def offline_digest(run: Run, hub: Hub, cache: Path, source: str) -> subprocess.CompletedProcess[str]:
    return run(hub, cache, "inspect", source, "--full", "--offline", "--format", "json")


def test_a_repository_is_fetched_at_a_commit_and_opened_without_a_network(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    with started(hub, tmp_path, "fetch", "hf://org/model@main") as process:
        fetched, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert fetched.strip() == f"hf://org/model@{hub.branches['main']}"
    assert all(
        "/api/models/" in request or "/resolve/" in request or "/large/" in request
        for request in hub.requests
    ), "telemetry"
    asked = len(hub.requests)
    found = offline_digest(run, hub, tmp_path, fetched.strip())
    assert found.returncode == 0, found.stdout + found.stderr
    assert open_checkpoint("micro").digest in found.stdout and hub.branches["main"] in found.stdout
    assert len(hub.requests) == asked


def test_only_what_loading_reads_is_fetched_with_card_and_licence(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0
    delivered = {
        request.split("/", 5)[-1]
        for request in hub.requests
        if request.startswith("GET") and "/resolve/" in request
    }
    assert not any(name in request for request in hub.requests for name in BESIDE)
    assert any("tokenizer/vocab.json" in request for request in delivered)
    assert all(any(name in request for request in delivered) for name in TERMS)


def test_a_branch_that_moves_in_between_changes_nothing(run: Run, hub: Hub, tmp_path: Path) -> None:
    first = hub.branches["main"]
    hub.on_metadata = lambda hub: (
        hub.push("main", {name: content for name, content in FILES.items() if name != UNET}) and None
    )
    fetched = run(hub, tmp_path, "fetch", "org/model")
    assert fetched.returncode == 0 and first in fetched.stdout
    assert open_checkpoint("micro").digest in offline_digest(run, hub, tmp_path, f"org/model@{first}").stdout


def flipped(name: str, content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:] if name == UNET else content


def flipped_text(name: str, content: bytes) -> bytes:
    return content.replace(b"0", b"1", 1) if name == "unet/config.json" else content


@pytest.mark.parametrize("spoil", [flipped, flipped_text])
def test_a_file_that_is_not_what_the_hub_says_is_refused_and_removed(
    run: Run, hub: Hub, tmp_path: Path, spoil: object
) -> None:
    honest, hub.spoil = hub.spoil, spoil  # type: ignore[assignment]
    refused = run(hub, tmp_path, "fetch", "org/model")
    assert refused.returncode == 4 and "is not the file that the Hub describes" in refused.stderr
    assert "Traceback" not in refused.stderr and "\n" not in refused.stderr.strip().splitlines()[-1]
    hub.spoil = honest
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0


def test_a_truncated_file_is_never_opened(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.spoil = lambda name, content: content[:1000] if name == UNET else content
    ended = run(hub, tmp_path, "fetch", "org/model")
    assert ended.returncode in (4, 5) and "Traceback" not in ended.stderr
    assert offline_digest(run, hub, tmp_path, "org/model").returncode in (2, 4)


def test_deliveries_that_break_off_or_are_refused_are_asked_for_again(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.cut, hub.refuse = 2, 1
    fetched = run(hub, tmp_path, "fetch", "org/model")
    assert fetched.returncode == 0, fetched.stderr
    assert open_checkpoint("micro").digest in offline_digest(run, hub, tmp_path, "org/model").stdout


def test_a_hub_that_is_down_is_an_error_with_the_next_step(run: Run, tmp_path: Path) -> None:
    down = Hub(url="http://127.0.0.1:9")
    ended = run(down, tmp_path, "fetch", "org/model")
    assert (
        ended.returncode == 5
        and "run the same command again" in ended.stderr
        and "Traceback" not in ended.stderr
    )


def test_a_killed_download_goes_on(run: Run, forks: Forks, hub: Hub, tmp_path: Path) -> None:
    hub.seconds_a_block = 0.05
    fork = forks.start("fetch", "org/model", environment=environment(hub, tmp_path))
    deadline = time.monotonic() + 60
    while hub.sent < 2**18 and time.monotonic() < deadline:
        time.sleep(0.02)
    fork.send(signal.SIGKILL)
    assert fork.wait() == -signal.SIGKILL
    assert offline_digest(run, hub, tmp_path, "org/model").returncode in (2, 4), "half a checkpoint is none"
    hub.seconds_a_block = 0.0
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0
    assert open_checkpoint("micro").digest in offline_digest(run, hub, tmp_path, "org/model").stdout


def test_two_processes_fetch_the_same_at_once(run: Run, hub: Hub, tmp_path: Path) -> None:
    both = [started(hub, tmp_path, "fetch", "org/model") for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert open_checkpoint("micro").digest in offline_digest(run, hub, tmp_path, "org/model").stdout


def test_a_file_in_the_cache_that_was_changed_is_refused(run: Run, hub: Hub, tmp_path: Path) -> None:
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0
    (blob,) = tmp_path.rglob(digest_of(UNET, FILES[UNET]))
    blob.write_bytes(flipped(UNET, blob.read_bytes()))
    refused = offline_digest(run, hub, tmp_path, "org/model")
    assert refused.returncode == 4 and "is not the file that the Hub describes" in refused.stdout


@pytest.mark.parametrize(
    ("source", "code", "sentence"),
    [
        ("org/nothing", 2, "There is no org/nothing on the Hub"),
        ("org/model@nowhere", 2, "There is no org/model@nowhere on the Hub"),
        ("hf://org/model/nothing.safetensors", 2, "holds no nothing.safetensors"),
    ],
)
def test_what_is_not_there_is_a_usage_error(
    run: Run, hub: Hub, tmp_path: Path, source: str, code: int, sentence: str
) -> None:
    ended = run(hub, tmp_path, "fetch", source)
    assert (ended.returncode, sentence in ended.stderr) == (code, True), ended.stderr


def test_offline_without_a_cache_says_what_to_do(run: Run, hub: Hub, tmp_path: Path) -> None:
    ended = offline_digest(run, hub, tmp_path, "org/model")
    assert ended.returncode == 2 and "auditor fetch org/model" in ended.stderr
    assert not hub.requests


def test_the_token_is_sent_to_the_hub_and_shown_nowhere(run: Run, hub: Hub, tmp_path: Path) -> None:
    ended = run(hub, tmp_path, "fetch", "org/model", HF_TOKEN="hf_secretsecret")
    assert ended.returncode == 0
    assert "secret" not in ended.stdout + ended.stderr
    assert not any(b"secretsecret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("status", "headers", "code", "sentence"),
    [
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            2,
            "correct or unset HF_TOKEN",
        ),
        (401, {"X-Error-Code": "RepoNotFound"}, 2, "private ones need a token"),
        (403, {"X-Error-Message": "the scope is to write"}, 2, "the permission to read"),
        (403, {"X-Error-Code": "GatedRepo"}, 2, "accept its terms"),
        (404, {}, 2, "There is no org/model on the Hub"),
        (407, {}, 2, "HTTPS_PROXY"),
        (410, {}, 2, "The Hub refuses org/model (410)"),
        (429, {"Retry-After": "1"}, 5, "wait 1 seconds and run the same command again"),
        (500, {}, 5, "a problem of its own with org/model (500)"),
        (503, {}, 5, "run the same command again later"),
    ],
)
def test_every_refusal_of_the_hub_has_a_sentence_and_the_right_code(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    code: int,
    sentence: str,
) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.answer, hub.answer_headers = status, headers
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    source = HubSource("org/model", None, None)
    with pytest.raises(AuditorError, match=re.escape(sentence)) as error:
        ask(source, lambda: HfApi(endpoint=hub.url).model_info("org/model"))
    assert error.value.exit_code == code


def test_what_a_file_is_refused_with_is_said_too(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.on_metadata = lambda hub: setattr(hub, "answer", 403)
    ended = run(hub, tmp_path, "fetch", "org/model")
    assert ended.returncode == 2 and "the permission to read" in ended.stderr, ended.stderr


@pytest.fixture
def flat(run: Run, hub: Hub, tmp_path: Path) -> Path:
    """The folder of a snapshot in a cache without links."""
    fetched = run(hub, tmp_path, "fetch", "org/model", HF_HUB_DISABLE_SYMLINKS="1")
    assert fetched.returncode == 0, fetched.stderr
    (index,) = tmp_path.rglob("model_index.json")
    assert not index.is_symlink()
    return index.parent


def test_in_a_cache_without_links_files_are_held_against_what_the_hub_said(
    run: Run, hub: Hub, tmp_path: Path, flat: Path
) -> None:
    found = json.loads(offline_digest(run, hub, tmp_path, "org/model").stdout)
    assert found["refused"] is None and found["commit"] == flat.name
    for name, spoil in ((UNET, flipped), ("unet/config.json", flipped_text)):
        whole = (flat / name).read_bytes()
        (flat / name).write_bytes(spoil(name, whole))
        refused = offline_digest(run, hub, tmp_path, "org/model")
        found = json.loads(refused.stdout)
        assert refused.returncode == 4 and found["commit"] is None, found
        assert name in found["refused"] and "is not the file that the Hub describes" in found["refused"]
        (flat / name).write_bytes(whole)
    assert offline_digest(run, hub, tmp_path, "org/model").returncode == 0


def test_what_nobody_kept_a_digest_of_is_not_named_as_the_commit(
    run: Run, hub: Hub, tmp_path: Path, flat: Path
) -> None:
    (record,) = tmp_path.rglob(f"{flat.name}.json")
    record.unlink()
    refused = offline_digest(run, hub, tmp_path, "org/model")
    assert refused.returncode == 2 and f"auditor fetch org/model@{flat.name}" in refused.stderr
    named = run(hub, tmp_path, "inspect", str(flat), "--full", "--format", "json")
    assert named.returncode == 0 and json.loads(named.stdout)["commit"] is None
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0
    assert offline_digest(run, hub, tmp_path, "org/model").returncode == 0


def test_a_file_in_place_of_a_link_is_held_against_what_the_hub_said(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    assert run(hub, tmp_path, "fetch", "org/model").returncode == 0
    (file,) = (path for path in tmp_path.rglob(Path(UNET).name) if path.parent.name == "unet")
    content = flipped(UNET, file.read_bytes())
    file.unlink()
    file.write_bytes(content)
    refused = offline_digest(run, hub, tmp_path, "org/model")
    assert refused.returncode == 4 and "is not the file that the Hub describes" in refused.stdout


def test_the_environment_switches_the_network_off_as_the_option_does(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    fetched = run(hub, tmp_path, "fetch", "org/model")
    assert fetched.returncode == 0
    asked, source = len(hub.requests), fetched.stdout.strip()
    plan = ("plan", source, "--policy", "micro-person")
    erase = ("erase", source, "--eraser", "esd", "--policy", "micro-person", "--dry-run")
    with started(hub, tmp_path, "inspect", source, HF_HUB_OFFLINE="1") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    ended = run(hub, tmp_path, *plan, HF_HUB_OFFLINE="1")
    assert ended.returncode == 0, ended.stderr
    for line in (("fetch", source), plan, erase):
        ended = run(hub, tmp_path, *line, "--offline")
        assert ended.returncode == 0, ended.stderr
    assert len(hub.requests) == asked
    with started(hub, tmp_path, "inspect", "hf://org/other", TRANSFORMERS_OFFLINE="1") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 2 and "TRANSFORMERS_OFFLINE is set" in said
    ended = run(hub, tmp_path, "fetch", "org/other", "--offline")
    assert ended.returncode == 2 and "switched off (--offline)" in ended.stderr


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf://org/model", HubSource("org/model", None, None)),
        ("org/model@v1.0", HubSource("org/model", "v1.0", None)),
        ("hf://org/model@refs/pr/1/a/b.safetensors", HubSource("org/model", "refs/pr/1", "a/b.safetensors")),
        ("https://huggingface.co/org/model/tree/main", HubSource("org/model", "main", None)),
        ("https://huggingface.co/org/model", HubSource("org/model", None, None)),
        (
            "https://huggingface.co/org/model/resolve/v1/a/b.safetensors?download=true",
            HubSource("org/model", "v1", "a/b.safetensors"),
        ),
        ("hf://models/org/model", HubSource("org/model", None, None)),
        ("micro", None),
        ("/some/where", None),
        ("a/b/c", None),
        ("org/..", None),
    ],
)
def test_sources_are_read(text: str, source: HubSource | None) -> None:
    assert parse_hub_source(text) == source


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hf://org/../model", "no address of a model"),
        ("hf://buckets/org/model/x.safetensors", "is a bucket on the Hub"),
        ("https://huggingface.co/datasets/org/model", "is a dataset on the Hub"),
        ("https://example.com/org/model", "no address of a model"),
        ("hf://org/model/x.safetensors@main", "hf://org/model@main/x.safetensors is right"),
        ("hf://org/model@main/unet", "give the repository, or one safetensors file"),
        ("hf://org/model@..%2F..%2Fx/x.safetensors", "names no revision"),
        ("https://user:word@huggingface.co/org/model", "do not belong in an address|no address of a model"),
        ("hf://org/model/../../x.safetensors", "no address of a model|give the repository"),
    ],
)
def test_an_address_of_something_else_is_said(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_hub_source(text)


def test_an_inspection_asks_the_hub_for_headers_alone(run: Run, hub: Hub, tmp_path: Path) -> None:
    ended = run(hub, tmp_path, "inspect", "hf://org/model", "--format", "json")
    found = json.loads(ended.stdout)
    assert ended.returncode == 0 and found["refused"] is None and found["commit"] == hub.branches["main"]
    here = json.loads(run(hub, tmp_path, "inspect", "micro", "--format", "json").stdout)
    assert found["components"] == here["components"] and found["prediction"] == "epsilon"
    weights = sum(len(content) for name, content in FILES.items() if name.endswith(".safetensors"))
    assert hub.sent < weights / 20
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"model_index.json": b'{"_class_name": "StableDiffusionXLPipeline"}'}, "Stable Diffusion XL"),
        ({"sd-v1-4.ckpt": b"pickle"}, "is not a diffusers pipeline"),
        (
            {name: content for name, content in FILES.items() if not name.startswith("unet/")}
            | {"unet/config.json": FILES["unet/config.json"], "unet/diffusion_pytorch_model.bin": b"pickle"},
            "only safetensors",
        ),
    ],
)
def test_an_inspection_tells_a_wrong_form_without_its_weights(
    run: Run, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    hub = Hub()
    hub.push("main", files)
    with serve(hub):
        ended = run(hub, tmp_path, "inspect", "hf://org/model")
    assert ended.returncode == 4 and sentence in ended.stdout + ended.stderr
    assert hub.sent < 100_000


def test_an_adapters_repository_is_fetched_with_its_settings(run: Run, hub: Hub, tmp_path: Path) -> None:
    from tests.checkpoint.wild.forms import peft_folder
    from tests.checkpoint.wild.world import world_of_micro

    folder, _ = peft_folder(world_of_micro(), tmp_path)
    adapter = Hub()
    adapter.push("main", folder_files(folder))
    with serve(adapter):
        fetched = run(adapter, tmp_path / "cache", "fetch", "hf://org/model")
        assert fetched.returncode == 0 and "2 files in" in fetched.stderr
        source = fetched.stdout.strip()
        looked = run(
            adapter, tmp_path / "cache", "inspect", source, "--full", "--base", "micro", "--format", "json"
        )
    found = json.loads(looked.stdout)
    assert found["refused"] is None and "strength 4" in found["content"], looked.stdout
    assert found["content"] == open_checkpoint(str(folder), base=open_checkpoint("micro")).content


@pytest.mark.parametrize(
    "shard",
    [
        "{stem}.fp16-{n}.safetensors",
        pytest.param("{stem}-{n}.fp16.safetensors", marks=pytest.mark.science),
        pytest.param("{stem}-{n}.safetensors", marks=pytest.mark.science),
    ],
)
def test_shards_are_fetched_under_the_names_of_every_age(
    run: Run, hub: Hub, tmp_path: Path, shard: str
) -> None:
    stem = "unet/diffusion_pytorch_model"
    tensors = load(FILES[UNET])
    names = sorted(tensors)
    index, files = {}, {name: content for name, content in FILES.items() if name != UNET}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = shard.format(stem=stem, n=f"0000{number}-of-00002")
        files[file] = save({name: tensors[name] for name in part})
        index |= dict.fromkeys(part, file.removeprefix("unet/"))
    variant = ".fp16" if "fp16" in shard else ""
    content = json.dumps({"metadata": {}, "weight_map": index}).encode()
    own = Hub()
    own.push("main", files | {f"{stem}.safetensors.index{variant}.json": content})
    with serve(own):
        ended = run(own, tmp_path, "inspect", "hf://org/model", "--full", "--format", "json")
    found = json.loads(ended.stdout)
    assert found["refused"] is None and found["digest"], ended.stdout


def test_a_whole_cache_that_cannot_be_written_will_do(run: Run, hub: Hub, tmp_path: Path) -> None:
    """The branch's name cannot be kept; the commit is there, and is printed."""
    assert run(hub, tmp_path, "fetch", "hf://org/model@main").returncode == 0
    references = tmp_path / "models--org--model" / "refs"
    (references / "main").unlink()
    references.rmdir()
    references.write_text("nothing can be written below a file")
    again = run(hub, tmp_path, "fetch", "hf://org/model@main")
    assert again.returncode == 0, again.stderr
    assert offline_digest(run, hub, tmp_path, again.stdout.strip()).returncode == 0


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_hub(run: Run, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(hub, tmp_path / "file" / "cache", "fetch", "hf://org/model@main")
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "file") in done.stderr and "unexpected" not in done.stderr
