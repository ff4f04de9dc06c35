"""A checkpoint has one vocabulary, whatever program reads it; a file or key that could make it two is
refused with its name (S18)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._files.bundled import micro_world
from auditor.errors import RefusedError
from auditor.families.clip.vocabulary import Vocabulary, read_vocabulary

PROMPTS = [
    "a photo of Borin Talvek",
    "",
    "DÖG's  two\u00a0words, 17!",
    "<|endoftext|> a <|startoftext|>",
    "x" * 400,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_world() / "tokenizer", tmp_path / "tokenizer"))


def read(folder: Path) -> Vocabulary:
    return read_vocabulary(
        "x", lambda name: (folder / name).read_bytes() if (folder / name).exists() else None
    )


def ids(tokenizer: CLIPTokenizer) -> list[list[int]]:
    found: list[list[int]] = tokenizer(
        PROMPTS, padding="max_length", truncation=True, max_length=16
    ).input_ids
    return found


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | changes))

    return change


def saved(folder: Path, **inner: Any) -> None:
    """As the library saves it: ``tokenizer.json`` beside the others, with changes of its parts."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    # leaves its padding in what is saved
    tokenizer(["a"], padding="max_length", truncation=True, max_length=16)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    for key, value in inner.items():
        content[key] = value(content[key]) if callable(value) else value
    path.write_text(json.dumps(content))


def test_every_usual_form_reads_as_the_library_reads_it(folder: Path, tmp_path: Path) -> None:
    wanted = ids(CLIPTokenizer.from_pretrained(folder))
    assert ids(read(folder).tokenizer()) == wanted
    saved(folder)
    assert ids(read(folder).tokenizer()) == wanted, "both forms, which agree"
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()
    (folder / "special_tokens_map.json").unlink()
    assert ids(read(folder).tokenizer()) == wanted == ids(CLIPTokenizer.from_pretrained(folder)), (
        "tokenizer.json alone"
    )


def test_what_published_configurations_hold_is_read(folder: Path) -> None:
    wanted = ids(read(folder).tokenizer())
    token = dict.fromkeys(("lstrip", "rstrip", "single_word"), False) | {
        "__type": "AddedToken",
        "content": "<|startoftext|>",
    }
    edit(
        "tokenizer_config.json",
        add_prefix_space=False,
        bos_token=token,
        do_lower_case=True,
        errors="replace",
        model_max_length=16,
        name_or_path="org/clip",
        special_tokens_map_file="./special_tokens_map.json",
        added_tokens_decoder={"1002": {k: v for k, v in token.items() if k != "__type"} | {"special": True}},
        clean_up_tokenization_spaces=True,
    )(folder)
    edit("added_tokens.json", **{"<|startoftext|>": 1002})(folder)
    assert ids(read(folder).tokenizer()) == wanted
    edit("tokenizer_config.json", model_max_length=1000000000000000019884624838656)(folder)
    assert read(folder).length is None


def words(folder: Path) -> dict[str, int]:
    """The vocabulary; "bor" is the beginning of the first name's word."""
    found: dict[str, int] = json.loads((folder / "vocab.json").read_text())
    return found


def test_stable_diffusion_2_pads_with_an_exclamation_mark_as_libraries_do(folder: Path) -> None:
    """Its two files differ in the pad token; libraries take that of special_tokens_map.json."""
    assert "!" in words(folder)
    edit("special_tokens_map.json", pad_token="!")(folder)
    assert read(folder).special["pad_token"] == "!"
    assert ids(read(folder).tokenizer()) == ids(CLIPTokenizer.from_pretrained(folder))


def swap(folder: Path) -> None:
    saved(folder)
    words = json.loads((folder / "vocab.json").read_text())
    words["borin</w>"], words["person</w>"] = words["person</w>"], words["borin</w>"]
    (folder / "vocab.json").write_text(json.dumps(words))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a vocabulary elsewhere": (edit("tokenizer_config.json", vocab="/tmp/vocab.json"), "the key 'vocab'"),
    "merges elsewhere": (edit("tokenizer_config.json", merges="../merges.txt"), "the key 'merges'"),
    "a file of the vocabulary": (edit("tokenizer_config.json", vocab_file="/tmp/vocab.json"), "vocab_file"),
    "a file of the tokenizer": (
        edit("tokenizer_config.json", tokenizer_file="/tmp/tokenizer.json"),
        "tokenizer_file",
    ),
    "files for versions": (
        edit("tokenizer_config.json", fast_tokenizer_files=["tokenizer.5.0.json"]),
        "fast_tokenizer_files",
    ),
    "padding on the left": (edit("tokenizer_config.json", padding_side="left"), "padding_side"),
    "cut on the left": (edit("tokenizer_config.json", truncation_side="left"), "truncation_side"),
    "a space before": (edit("tokenizer_config.json", add_prefix_space=True), "add_prefix_space"),
    "capitals kept": (edit("tokenizer_config.json", do_lower_case=False), "do_lower_case"),
    "more special tokens": (
        edit("tokenizer_config.json", extra_special_tokens={"x": "borin"}),
        "extra_special_tokens",
    ),
    "special tokens as a word": (
        edit("tokenizer_config.json", extra_special_tokens="x"),
        "extra_special_tokens",
    ),
    "a token that is added": (edit("added_tokens.json", **{"borin": 1003}), "adds the token 'borin'"),
    "a token of the vocabulary that is added": (
        lambda f: edit("added_tokens.json", **{"bor": words(f)["bor"]})(f),
        "adds the token 'bor'",
    ),
    "one that is decoded": (
        lambda f: edit(
            "tokenizer_config.json", added_tokens_decoder={str(words(f)["bor"]): {"content": "bor"}}
        )(f),
        "adds the token 'bor'",
    ),
    "one in the other file": (
        lambda f: saved(f, added_tokens=[{"id": words(f)["bor"], "content": "bor"}]),
        "adds the token 'bor'",
    ),
    "a word as unknown token": (
        lambda f: [
            edit(name, unk_token="bor")(f) for name in ("tokenizer_config.json", "special_tokens_map.json")
        ],
        "unk_token is 'bor'",
    ),
    "two ends": (edit("special_tokens_map.json", eos_token="<|startoftext|>"), "two eos_tokens"),
    "two pads, and added tokens laid out": (
        lambda f: [
            edit("special_tokens_map.json", pad_token="!")(f),
            edit("tokenizer_config.json", added_tokens_decoder={"1003": {"content": "<|endoftext|>"}})(f),
        ],
        "two pad_tokens",
    ),
    "added tokens that are a number": (lambda f: saved(f, added_tokens=5), "added_tokens"),
    "a truncation that is a word": (lambda f: saved(f, truncation="x"), "truncation"),
    "a token that is decoded": (
        edit("tokenizer_config.json", added_tokens_decoder={"5": {"content": "Borin"}}),
        "adds the token 'Borin'",
    ),
    "tokens that are no map": (
        edit("tokenizer_config.json", added_tokens_decoder=[1]),
        "is 'None'; a string",
    ),
    "a beginning of its own": (edit("tokenizer_config.json", bos_token="borin</w>"), "two bos_tokens"),
    "a token matched with spaces": (
        edit("tokenizer_config.json", eos_token={"content": "x", "rstrip": True}),
        "a way of its own",
    ),
    "an unknown token": (edit("special_tokens_map.json", mask_token="x"), "'mask_token'"),
    "a length below 1": (edit("tokenizer_config.json", model_max_length=-1), "model_max_length = -1"),
    "a length in words": (edit("tokenizer_config.json", model_max_length="x"), "model_max_length = x"),
    "an unread key": (edit("tokenizer_config.json", favourite="blue"), "the key 'favourite'"),
    "code": (edit("tokenizer_config.json", chat_template="{{ x }}"), "chat_template"),
    "ids as text": (edit("vocab.json", **{"borin</w>": "5"}), "the id 5"),
    "ids as truth values": (edit("vocab.json", **{"borin</w>": True}), "the id True"),
    "two tokens with one id": (edit("vocab.json", **{"zzz": 5}), "one id to two tokens"),
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), "vocab.json is missing"),
    "no merges": (lambda folder: (folder / "merges.txt").unlink(), "merges.txt is missing"),
    "merges without their first line": (
        lambda f: (f / "merges.txt").write_text("t h\n"),
        "does not begin with '#version'",
    ),
    "a merge of three": (lambda f: (f / "merges.txt").write_text("#version: 0.2\nt h e\n"), "merge 1"),
    "too many merges": (
        lambda f: (f / "merges.txt").write_text("#version: 0.2\n" + "t h\n" * 49_000),
        "the first 48894 alone",
    ),
    "two vocabularies": (swap, "two vocabularies"),
    "another normaliser": (
        lambda f: saved(f, normalizer={"type": "Replace", "pattern": {"String": "Borin"}, "content": ""}),
        "normalizer",
    ),
    "another way to split": (lambda f: saved(f, pre_tokenizer=None), "pre_tokenizer"),
    "another end": (lambda f: saved(f, post_processor=None), "post_processor"),
    "chance in the merges": (lambda f: saved(f, model=lambda m: m | {"dropout": 0.5}), r"model\.dropout"),
    "padding on the left in the other file": (lambda f: saved(f, padding={"direction": "Left"}), "padding"),
    "a token added in the other file": (
        lambda f: saved(f, added_tokens=[{"id": 7, "content": "Borin"}]),
        "adds the token 'Borin'",
    ),
    "a vocabulary of words": (lambda f: saved(f, model={"type": "WordLevel", "vocab": {}}), "no BPE"),
    "a pad token that is no token": (
        edit("special_tokens_map.json", pad_token="nothing"),
        "pad_token is 'nothing'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(folder: Path, name: str) -> None:
    make, words = REFUSED[name]
    make(folder)
    with pytest.raises(RefusedError, match=words) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_files_that_nobody_reads_change_nothing(tmp_path: Path) -> None:
    """A chat template, notes, a readme: not read, in no digest of what is loaded, and named in that of all
    files."""
    copy = Path(shutil.copytree(micro_world(), tmp_path / "x"))
    before = open_checkpoint(str(copy))
    (copy / "tokenizer" / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    (copy / "tokenizer" / "notes.txt").write_text("hello")
    after = open_checkpoint(str(copy))
    assert (before.digest, before.drawn_digest) == (
        after.digest,
        after.drawn_digest,
    ) and before.root_digest != after.root_digest
    assert ids(load_model(after).tokenizer) == ids(CLIPTokenizer.from_pretrained(micro_world() / "tokenizer"))


def test_ids_beyond_the_text_encoder_are_refused(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(micro_world(), tmp_path / "x"))
    edit("vocab.json", zzz=1004)(copy / "tokenizer")
    with pytest.raises(RefusedError, match="ids up to 1004"):
        open_checkpoint(str(copy))
