"""Random edits of everything that an audit believes in, each followed by a real audit in a process of its
own. Resumable.

The checkpoint was never erased, so no PASS is right. ``run``: a finished run's folder is edited and the same
audit goes on in it. ``checkpoint``: text side, configurations, schedule, neighbours and weights are edited
and it is audited. ``policy``: the audit is cut off after the base arm, policy or files that it names are
edited, and the same command is given again.

    python -m tests.science.mutations [--most N] [--part I OF]      # what is measured is kept in
    build/mutations.jsonl
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.faults.passing import LOOSE, document, gradients, never_erased

RESULTS = Path(__file__).parents[2] / "build" / "mutations.jsonl"
COUNTS = {"run": 200, "checkpoint": 200, "policy": 100}
_PATIENCE = 240.0  # seconds of one audit
_ERASED = "Borin Talvek"
_QUICK = {
    "sampler": {"scheduler": "dpm-solver++", "steps": 10, "guidance": 4.0, "size": 32, "batch": 16},
    "limits": LOOSE | {"tau": 0.4},
    "budget": {"images_per_cell": 15, "retained_per_arm": 20, "plugin_minutes": 1},
}


class World:
    """A checkpoint that was never erased, a policy of seconds, and a finished run (FAIL) of both."""

    def __init__(self, home: Path) -> None:
        self.home, self.checkpoint, self.run = home, home / "checkpoint", home / "run"
        self.cache, self.policy, self.canary = home / "cache", home / "policy.yaml", home / "canary"

    def prepare(self) -> str:
        """Make all of it. Returns the verdict of the untouched audit."""
        never_erased(self.checkpoint)
        gradients(self.home / "examples")
        self.write_policy()
        (self.home / "bin").mkdir()
        for name in ("gs", "convert", "sh-canary"):
            (self.home / "bin" / name).write_text(f"#!/bin/sh\ntouch '{self.canary}'\n")
            (self.home / "bin" / name).chmod(0o755)
        return str(self.in_a_process(lambda: self.audit(self.checkpoint, self.run))["verdict"])

    def write_policy(self, **changes: Any) -> None:
        from auditor.policy.concepts.sets import concept_names

        (self.home / "labels.txt").write_text("\n".join(concept_names("micro-all")) + "\n")
        options = {
            "model": "micro",
            "labels": {"file": str(self.home / "labels.txt")},
            "templates": "erasure-templates",
        }
        found = document(
            self.home / "examples", **_QUICK, detectors=[{"use": "clip-zero-shot", "options": options}]
        )
        self.policy.write_text(yaml.safe_dump(found | changes))

    def audit(self, checkpoint: Path, out: Path) -> str:
        """One audit, in this process. Returns the verdict."""
        import auditor

        return str(auditor.audit(str(checkpoint), self.policy, out, cache=self.cache).verdict.outcome.value)

    def in_a_process(self, do: Callable[[], str]) -> dict[str, Any]:
        """Run ``do`` in a fork of this process: its verdict, or the error and its exit code; a hang ends
        it."""
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()

        def child() -> None:
            os.environ["PATH"] = f"{self.home / 'bin'}:{os.environ['PATH']}"
            os.chdir(self.home)
            from auditor.errors import AuditorError

            try:
                there.send({"verdict": do()})
            except AuditorError as error:
                there.send({"verdict": f"exit {int(error.exit_code)}", "said": str(error)[:200]})
            except Exception as error:  # noqa: BLE001 - whatever an edit makes of an audit is a result
                there.send({"verdict": "unexpected", "said": f"{type(error).__name__}: {error}"[:200]})

        process = context.Process(target=child)
        began = time.monotonic()
        process.start()
        found: dict[str, Any] = {"verdict": "hang"}
        if here.poll(_PATIENCE):
            try:
                found = here.recv()
            except EOFError:
                found = {"verdict": f"died {process.exitcode}"}
        process.kill()
        process.join()
        return found | {"seconds": round(time.monotonic() - began, 1)}


# -- edits of a run's folder ---------------------------------------------------------------------------------


def edit_run(rng: random.Random, out: Path) -> str:
    """One to three edits of a finished run. Returns their names."""
    chosen = rng.sample(sorted(_RUN), rng.randint(1, 3))
    for name in chosen:
        _RUN[name](rng, out)
    return ", ".join(chosen)


def _samples(
    change: Callable[[random.Random, dict[str, Any]], object], share: float = 1.0
) -> Callable[[random.Random, Path], None]:
    def edit(rng: random.Random, out: Path) -> None:
        journal, lines = out / "journal.jsonl", list[str]()
        for text in journal.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut by another edit
                lines.append(text)
                continue
            for sample in line.get("samples", ()):
                if rng.random() < share:
                    change(rng, sample)
            lines.append(json.dumps(line))
        journal.write_text("".join(f"{line}\n" for line in lines))

    return edit


def _unseen(rng: random.Random, sample: dict[str, Any]) -> None:
    if "|gate|" in sample["cell"]:
        for score in sample["observations"].values():
            score["hits"][_ERASED] = False


def _lines(change: Callable[[random.Random, list[str]], list[str]]) -> Callable[[random.Random, Path], None]:
    def edit(rng: random.Random, out: Path) -> None:
        journal = out / "journal.jsonl"
        journal.write_text("".join(f"{line}\n" for line in change(rng, journal.read_text().splitlines())))

    return edit


def _field(
    key: str, value: Callable[[random.Random], Any]
) -> Callable[[random.Random, dict[str, Any]], object]:
    return lambda rng, sample: sample.update({key: value(rng)})


def _manifest(rng: random.Random, out: Path) -> None:
    path = out / "manifest.json"
    content = json.loads(path.read_text())
    part = rng.choice(
        [content, content["checkpoint"], content["identity"], content["seeds"], content["policy"]["limits"]]
    )
    key = rng.choice(sorted(part))
    part[key] = rng.choice([None, "x", 0, 0.9, "f" * 64, [], {}])
    path.write_text(json.dumps(content))


def _limits(rng: random.Random, out: Path) -> None:
    path = out / "manifest.json"
    content = json.loads(path.read_text())
    content["policy"]["limits"] |= {"tau": 0.99, "min_sensitivity": 0.98}
    path.write_text(json.dumps(content))


def _swap_images(rng: random.Random, out: Path) -> None:
    images = sorted((out / "images").iterdir())
    one, other = rng.sample(images, 2)
    one.write_bytes(other.read_bytes())


def _renamed_images(rng: random.Random, out: Path) -> None:
    """The gate cells' images are the retained ones': rightly named, and rightly said to show nobody."""
    try:
        lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    except ValueError:  # cut by another edit
        return
    retained = [
        s
        for line in lines
        for s in line.get("samples", ())
        if "|retained|" in s["cell"] and "base" in s["cell"]
    ]
    for line in lines:
        for number, sample in enumerate(line.get("samples", ())):
            if "|gate|" in sample["cell"] and retained:
                sample["image"] = retained[number % len(retained)]["image"]
                for score in sample["observations"].values():
                    score["hits"][_ERASED] = False
    (out / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _arms(rng: random.Random, out: Path) -> None:
    for path in (out / "arms").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 255
        path.write_bytes(bytes(content))


_RUN: dict[str, Callable[[random.Random, Path], None]] = {
    "nothing was seen": _samples(_unseen),
    "some of it was not seen": _samples(_unseen, 0.5),
    "no image": _samples(_field("image", lambda rng: None)),
    "some images are none": _samples(_field("image", lambda rng: None), 0.3),
    "images of another name": _samples(_field("image", lambda rng: f"{rng.getrandbits(256):064x}"), 0.5),
    "flaws": _samples(_field("flaw", lambda rng: "blank"), 0.3),
    "no scores": _samples(_field("observations", lambda rng: {}), 0.3),
    "other seeds": _samples(_field("seed", lambda rng: rng.getrandbits(62)), 0.5),
    "other cells": _samples(
        _field(
            "cell", lambda rng: rng.choice(["base|positive|Borin Talvek", "erased|gate|Borin Talvek", "x"])
        ),
        0.3,
    ),
    "other prompts": _samples(_field("prompt", lambda rng: "a photo of nobody"), 0.3),
    "lines dropped": _lines(lambda rng, lines: [line for line in lines if rng.random() < 0.8]),
    "lines doubled": _lines(
        lambda rng, lines: [line for line in lines for _ in range(rng.choice([1, 1, 2]))]
    ),
    "lines shuffled": _lines(lambda rng, lines: rng.sample(lines, len(lines))),
    "lines cut": _lines(
        lambda rng, lines: [
            line[: rng.randrange(1, len(line))] if rng.random() < 0.05 else line for line in lines
        ]
    ),
    "the end gone": _lines(lambda rng, lines: lines[: rng.randrange(1, len(lines))]),
    "no starts": _lines(lambda rng, lines: [line for line in lines if '"kind":"start"' not in line]),
    "looked at already": _lines(
        lambda rng, lines: [
            *lines,
            '{"kind":"earlier","images":110,"scored":110,"otherwise":0,"drawn":64,"different":0,"not_drawn":[],"sealed":true,"seconds":1.0}',
        ]
    ),
    "the manifest": _manifest,
    "the limits": _limits,
    "images swapped": _swap_images,
    "images of others": _renamed_images,
    "arms": _arms,
    "the report": lambda rng, out: (
        (out / "report.json").write_text('{"verdict": {"outcome": "PASS"}}') and None
    ),
    "no report": lambda rng, out: (out / "report.json").unlink(missing_ok=True),
}


# -- edits of a checkpoint -----------------------------------------------------------------------------------


def edit_checkpoint(rng: random.Random, folder: Path) -> str:
    """One to two edits of a checkpoint's folder. Returns their names."""
    chosen = rng.sample(sorted(_CHECKPOINT), rng.randint(1, 2))
    for name in chosen:
        _CHECKPOINT[name](rng, folder)
    return ", ".join(chosen)


def _json(
    name: str, changes: Callable[[random.Random, dict[str, Any]], object]
) -> Callable[[random.Random, Path], None]:
    def edit(rng: random.Random, folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text())
        changes(rng, content)
        path.write_text(json.dumps(content))

    return edit


_ODD: list[Any] = [None, "x", -1, 0, 1, 2.5, True, False, [], {}, 10**7, "../x", "/etc/hostname", 1e-9]


_NEW = ["vocab", "merges", "vocab_file", "padding_side", "x", "errors", "extra_special_tokens"]


def _one_key(rng: random.Random, content: dict[str, Any]) -> None:
    content[rng.choice(sorted(content))] = rng.choice(_ODD)


def _swap_words(rng: random.Random, content: dict[str, Any]) -> None:
    words = ["borin</w>", "talve", "k</w>"]
    one = rng.choice([word for word in words if word in content])
    other = rng.choice(sorted(content))
    content[one], content[other] = content[other], content[one]


def _merges(rng: random.Random, folder: Path) -> None:
    path = folder / "tokenizer" / "merges.txt"
    lines = path.read_text().splitlines()
    place = rng.randrange(1, len(lines))
    lines[place:] = rng.choice(
        [lines[place + 1 :], [*lines[place:], lines[place]], rng.sample(lines[place:], len(lines) - place)]
    )
    path.write_text("\n".join(lines) + "\n")


def _fast(rng: random.Random, folder: Path) -> None:
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    change = rng.choice(["normalizer", "words", "post_processor", "nothing"])
    if change == "words":
        _swap_words(rng, content["model"]["vocab"])
    elif change != "nothing":
        content[change] = None
    path.write_text(json.dumps(content))
    if rng.random() < 0.5:
        for name in ("vocab.json", "merges.txt"):
            (folder / "tokenizer" / name).unlink()


def _beside(rng: random.Random, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    part, stem = rng.choice(
        [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]
    )
    own = load_file(folder / part / f"{stem}.safetensors")
    factor = rng.choice([1.0, 1.5])
    name = rng.choice([f"{stem}.fp16", f"{stem}.non_ema", "other", f"{stem}-00001-of-00001"])
    save_file({key: value * factor for key, value in own.items()}, folder / part / f"{name}.safetensors")
    if rng.random() < 0.5:
        mapped = dict.fromkeys(own, f"{name}.safetensors")
        (folder / part / f"{stem}.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": mapped})
        )


def _text_weights(rng: random.Random, folder: Path) -> None:
    """The name's first words mean something else to the text encoder."""
    from safetensors.torch import load_file, save_file

    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    for word in ("borin</w>", "bor", "talve", "k</w>"):
        if word in words:
            tensors[name][words[word]] = tensors[name][rng.randrange(len(words))]
    save_file(tensors, file)


def _files(rng: random.Random, folder: Path) -> None:
    what = rng.choice(["pipe", "sparse", "link", "bin", "deep", "many"])
    if what == "pipe":
        os.mkfifo(folder / rng.choice(["README.md", "unet/x", "tokenizer/added_tokens.json"]))
    elif what == "sparse":
        with (folder / "tokenizer" / "notes.txt").open("wb") as file:
            file.truncate(4 * 10**12)
    elif what == "link":
        (folder / "unet" / "x.safetensors").symlink_to("/etc/hostname")
    elif what == "bin":
        (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'sh-canary'\ntR.")
    elif what == "deep":
        (folder / "tokenizer" / "special_tokens_map.json").write_text("[" * 100_000)
    else:
        for number in range(200):
            (folder / "tokenizer" / f"{number}.json").write_text("{}")


_CHECKPOINT: dict[str, Callable[[random.Random, Path], None]] = {
    "words swapped": _json("tokenizer/vocab.json", _swap_words),
    "merges": _merges,
    "a key of the tokenizer": _json("tokenizer/tokenizer_config.json", _one_key),
    "a new key of the tokenizer": _json(
        "tokenizer/tokenizer_config.json",
        lambda rng, content: content.update({rng.choice(_NEW): rng.choice([*_ODD, "left"])}),
    ),
    "special tokens": _json("tokenizer/special_tokens_map.json", _one_key),
    "another tokenizer.json": _fast,
    "the text encoder's words": _text_weights,
    "a key of the text encoder": _json("text_encoder/config.json", _one_key),
    "a key of the unet": _json("unet/config.json", _one_key),
    "a key of the vae": _json("vae/config.json", _one_key),
    "a key of the schedule": _json("scheduler/scheduler_config.json", _one_key),
    "a key of the index": _json("model_index.json", _one_key),
    "a key that nobody reads": _json(
        "model_index.json", lambda rng, content: content.update({f"_{rng.random()}": 1})
    ),
    "weights beside": _beside,
    "odd files": _files,
}


# -- edits between two processes -----------------------------------------------------------------------------


def edit_policy(rng: random.Random, world: World) -> str:
    """An edit of the policy, or of a file that it names. Returns its name."""
    name = rng.choice(sorted(_POLICY))
    _POLICY[name](rng, world)
    return name


def _limit(key: str, value: Any) -> Callable[[random.Random, World], None]:
    def edit(rng: random.Random, world: World) -> None:
        content = yaml.safe_load(world.policy.read_text())
        content["limits"][key] = value
        world.policy.write_text(yaml.safe_dump(content))

    return edit


def _option(
    change: Callable[[random.Random, dict[str, Any]], object],
) -> Callable[[random.Random, World], None]:
    def edit(rng: random.Random, world: World) -> None:
        content = yaml.safe_load(world.policy.read_text())
        change(rng, content)
        world.policy.write_text(yaml.safe_dump(content))

    return edit


def _labels(rng: random.Random, world: World) -> None:
    file = world.home / "labels.txt"
    lines = file.read_text().splitlines()
    new = rng.choice(["borin talvek", "Borin  Talvek", "a photo of Borin Talvek", "BORIN TALVEK", "Borin"])
    lines.insert(rng.choice([0, rng.randrange(len(lines))]), new)
    file.write_text("\n".join(lines) + "\n")


def _examples(rng: random.Random, world: World) -> None:
    folder = world.home / "examples"
    what = rng.choice(["eps", "pipe", "deep", "name", "other", "big"])
    if what == "eps":
        (folder / "3.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
        )
    elif what == "pipe":
        (folder / "3.png").unlink()
        os.mkfifo(folder / "3.png")
    elif what == "other":
        shutil.copy(folder / "1.png", folder / "3.png")
    elif what == "big":
        with (folder / "3.png").open("wb") as file:
            file.truncate(10**10)
    else:
        with (folder / "metadata.jsonl").open("a") as file:
            text = (
                "[" * 100_000
                if what == "deep"
                else json.dumps({"file_name": "1.png", "text": "a photo of Borin\u00a0 Talvek"})
            )
            file.write(text + "\n")


_POLICY: dict[str, Callable[[random.Random, World], None]] = {
    "labels": _labels,
    "training images": _examples,
    "tau": _limit("tau", 0.99),
    "sensitivity": _limit("min_sensitivity", 0.9),
    "alpha": _limit("alpha", 0.49),
    "prior": _limit("prior", [100, 0.01]),
    "no fit": _limit("min_fit", 0),
    "a nonce": _option(lambda rng, content: content.update(nonce=str(rng.random()))),
    "no dose": _option(lambda rng, content: content["probes"][0].update(doses=[1])),
    "a rate of nothing": _option(
        lambda rng, content: content["probes"][0]["options"].update(learning_rate=1e-12)
    ),
    "another concept": _option(lambda rng, content: content["erase"][0].update(name="Nobody Here")),
    "templates of the detector": _option(
        lambda rng, content: content["detectors"][0]["options"].update(templates=["nothing {}"])
    ),
    "fewer images": _option(lambda rng, content: content["budget"].update(images_per_cell=5)),
}


# -- the run -------------------------------------------------------------------------------------------------


def cut_off(world: World, out: Path) -> None:
    """The audit as a process that died after the base arm leaves it."""
    shutil.copytree(world.run, out)
    lines = (out / "journal.jsonl").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if '"kind":"arm","arm":"erased"' in line)
    (out / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines[:first]))
    for name in ("report.json", "report.html"):
        (out / name).unlink()


def attempt(kind: str, number: int, world: World) -> dict[str, Any]:
    """One edit and the audit after it."""
    rng = random.Random(f"{kind} {number}")
    with tempfile.TemporaryDirectory(dir=world.home) as folder:
        out, checkpoint = Path(folder) / "run", world.checkpoint
        if kind == "run":
            shutil.copytree(world.run, out)
            what = edit_run(rng, out)
        elif kind == "checkpoint":
            checkpoint = Path(shutil.copytree(world.checkpoint, Path(folder) / "x"))
            what = edit_checkpoint(rng, checkpoint)
        else:
            cut_off(world, out)
            what = edit_policy(rng, world)
        world.canary.unlink(missing_ok=True)
        found = world.in_a_process(lambda: world.audit(checkpoint, out))
        if kind == "run":
            from auditor._audit.judge import judged
            from auditor.errors import AuditorError

            try:
                found["judge"] = judged(out).verdict.outcome.value
            except AuditorError as error:
                found["judge"] = f"exit {int(error.exit_code)}"
        if kind == "policy":
            shutil.rmtree(world.home / "examples")
            gradients(world.home / "examples")
            world.write_policy()
    return {"kind": kind, "number": number, "edit": what, "canary": world.canary.exists(), **found}


def run(most: int | None = None, part: tuple[int, int] = (0, 1)) -> list[dict[str, Any]]:
    """Everything that is not in the results yet; of two processes each may take a part, (0, 2) and (1, 2).
    Returns all results."""
    RESULTS.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    left = [
        (kind, number)
        for kind, count in COUNTS.items()
        for number in range(count)
        if number % part[1] == part[0]
    ]
    left = [each for each in left if each not in {(row["kind"], row["number"]) for row in done}]
    random.Random(1).shuffle(left)
    import auditor._audit.run.runner  # noqa: F401 - once here, and in no fork again

    with tempfile.TemporaryDirectory() as home:
        world = World(Path(home))
        if left:
            untouched = world.prepare()
            assert untouched == "FAIL", untouched
        for kind, number in left[:most]:
            row = attempt(kind, number, world)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            done.append(row)
    return done


def table(rows: list[dict[str, Any]]) -> str:
    """Attempts by kind, and how they ended."""
    lines = []
    for kind in COUNTS:
        own = [row for row in rows if row["kind"] == kind]
        ends = ", ".join(
            f"{name}: {count}" for name, count in sorted(Counter(row["verdict"] for row in own).items())
        )
        lines.append(
            f"{kind}: {len(own)} of {COUNTS[kind]}; {ends}; canaries: {sum(row['canary'] for row in own)}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "OF"))
    given = parser.parse_args()
    sys.stdout.write(table(run(given.most, tuple(given.part))) + "\n")
