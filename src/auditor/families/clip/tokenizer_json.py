"""Does ``tokenizer.json`` read prompts as the files beside it do?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.errors import RefusedError

START = "<|startoftext|>"
"""The token that a prompt begins with."""
END = "<|endoftext|>"
"""The token that a prompt ends with."""

_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}

_WORDS = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"

_SPLITS = (_WORDS, f"<\\|startoftext\\|>|<\\|endoftext\\|>|{_WORDS}")


def refuse_other_steps(
    source: str, fast: dict[str, Any], special: Mapping[str, str], tokens: Mapping[str, int]
) -> None:
    """``tokenizer.json`` says each step of its own; all must be those of CLIP's tokenizer, as it is
    without that file."""
    where = f"{source}: tokenizer/tokenizer.json"
    model, words = fast["model"], fast.get("pre_tokenizer")
    usual = {
        "dropout": (None,),
        "continuing_subword_prefix": ("", None),
        "end_of_word_suffix": ("</w>",),
        "fuse_unk": (False,),
        "byte_fallback": (False, None),
        "ignore_merges": (False, None),
        "unk_token": (special["unk_token"],),
    }
    odd = [f"model.{key}" for key, right in usual.items() if model.get(key) not in right]
    if fast.get("normalizer") != _NORMALIZER:
        odd.append("normalizer")
    if not any(words == _pre_tokenizer(split, regex) for split in _SPLITS for regex in (True, None)):
        odd.append("pre_tokenizer")
    ends = {
        "sep": [special["eos_token"], tokens[special["eos_token"]]],
        "cls": [special["bos_token"], tokens[special["bos_token"]]],
    }
    if fast.get("post_processor") != {
        "type": "RobertaProcessing",
        **ends,
        "trim_offsets": False,
        "add_prefix_space": False,
    }:
        odd.append("post_processor")
    for key in ("truncation", "padding"):  # the rest of what they say callers say too
        value = fast.get(key)
        if value is not None and not (isinstance(value, dict) and value.get("direction", "Right") == "Right"):
            odd.append(key)
    added_tokens = fast.get("added_tokens") or []
    for added in added_tokens if isinstance(added_tokens, list) else [None]:
        known = added if isinstance(added, dict) else {}
        content = known.get("content")
        if not isinstance(content, str) or any(known.get(key) for key in ("lstrip", "rstrip", "single_word")):
            odd.append("added_tokens")
        else:
            refuse_added(source, "tokenizer.json", content, known.get("id"), tokens)
    if odd:
        raise RefusedError(
            f"{where} reads prompts in another way than CLIP's tokenizer ({odd[0]}), and programs differ in "
            "whether they use it."
        )


def _pre_tokenizer(split: str, regex: bool | None) -> dict[str, Any]:
    level: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Removed", "invert": True},
            level if regex is None else level | {"use_regex": regex},
        ],
    }


def refuse_added(source: str, file: str, token: str, number: object, tokens: Mapping[str, int]) -> None:
    """Refuse a token that programs cut out of a prompt first, unless it is one of CLIP's own."""
    if token not in (START, END, "!") or tokens.get(token) != number:
        raise RefusedError(
            f"{source}: tokenizer/{file} adds the token {token[:60]!r}, which would be cut out of every "
            "prompt."
        )
