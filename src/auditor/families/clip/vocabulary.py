"""What a CLIP tokenizer's files say, as one vocabulary: every file and key that could make two programs read
two things is refused.

A prompt's words reach the model through this alone, so a vocabulary that leads a name elsewhere hides a
concept whose weights are untouched (safety.md S18). No library reads the checkpoint's own files: what was
read here is written into a private folder, and the tokenizer is made from that.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor._files.json_files import parse_json
from auditor.errors import RefusedError
from auditor.families.clip.tokenizer_json import END, START, refuse_added, refuse_other_steps

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""The files of ``tokenizer/`` that are read; others have no effect on how a prompt is read."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


_RIGHT = {"bos_token": (START,), "eos_token": (END,), "unk_token": (END,), "pad_token": (END, "!")}
"""What each special token may be, the default first: CLIP's own, and the pad token of Stable Diffusion
2.x. Programs cut special tokens out of a prompt before anything else, so a word among them would be read
in another way."""

_MOST_MERGES = 49152 - 256 - 2  # the first CLIP tokenizers read no more

_MOST_TOKENS = 10**6

_LONGEST = 10**4  # of a prompt, in tokens

_NO_EFFECT = (
    "tokenizer_class",
    "name_or_path",
    "special_tokens_map_file",
    "processor_class",
    "clean_up_tokenization_spaces",
    "use_fast",
    "backend",
    "is_local",
    "local_files_only",
    "transformers_version",
    "split_special_tokens",
)
"""Keys of ``tokenizer_config.json`` that change nothing of how a prompt becomes token ids; they are not
handed to any library."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "add_prefix_space": (False, None),
    "do_lower_case": (True, None),
    "errors": ("replace", None),
    "padding_side": ("right", None),
    "truncation_side": ("right", None),
    "tokenizer_file": (None,),
    "vocab_file": (None,),
    "merges_file": (None,),
    "additional_special_tokens": ([], None),
    "extra_special_tokens": ({}, [], None),
    "add_bos_token": (True, None),
    "add_eos_token": (True, None),
}
"""Keys that do change it, with the values under which every loader reads the same."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids by token, merges in their order, the special tokens by role, and the most tokens of a
    prompt (None: not said)."""

    tokens: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    special: Mapping[str, str]
    length: int | None

    @property
    def record(self) -> list[Any]:
        """How words are read, for a digest; what is no word (how many tokens fit) is no part of it."""
        return [dict(self.tokens), [list(pair) for pair in self.merges], dict(self.special)]

    def tokenizer(self) -> CLIPTokenizer:
        """CLIP's tokenizer with this vocabulary. Whatever the library makes of it may be raised."""
        from transformers import CLIPTokenizer

        merges = "".join(f"{one} {other}\n" for one, other in self.merges)
        config = {"tokenizer_class": "CLIPTokenizer", **self.special} | (
            {} if self.length is None else {"model_max_length": self.length}
        )
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (
                ("vocab.json", json.dumps(dict(self.tokens), ensure_ascii=False)),
                ("merges.txt", f"#version: 0.2\n{merges}"),
                ("tokenizer_config.json", json.dumps(config)),
            ):
                Path(folder, name).write_text(text, encoding="utf-8")
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def tokenizers(self) -> dict[str, Any]:
        """The same, under the name of its folder."""
        return {"tokenizer": self.tokenizer()}


def read_vocabulary(source: str, read: Callable[[str], bytes | None]) -> Vocabulary:
    """The vocabulary that ``read`` (a file's bytes by its name, None where there is none) gives, whatever
    program asks for it.

    Raises :class:`RefusedError` where a file or key is not understood, names another file, or says something
    else than the others.
    """
    found = {name: content for name in FILES if (content := read(name)) is not None}
    config = _object(found, "tokenizer_config.json")
    tokens, merges, fast = _vocabulary(source, found)
    special = _special(source, config, _object(found, "special_tokens_map.json"), tokens)
    if fast is not None:
        refuse_other_steps(source, fast, special, tokens)
    for key, value in config.items():
        _refuse_key(source, key, value, tokens)
    for token, number in _object(found, "added_tokens.json").items():
        refuse_added(source, "added_tokens.json", token, number, tokens)
    return Vocabulary(tokens, merges, special, _length(source, config))


def _object(found: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(f"tokenizer/{name}", found[name]) if name in found else {}


def _vocabulary(
    source: str, found: Mapping[str, bytes]
) -> tuple[dict[str, int], tuple[tuple[str, str], ...], dict[str, Any] | None]:
    """Tokens and merges of ``vocab.json`` with ``merges.txt``, of ``tokenizer.json``, or of both where
    they agree."""
    both = {"vocab.json", "merges.txt"} & found.keys()
    if len(both) == 1 or (not both and "tokenizer.json" not in found):
        missing = min({"vocab.json", "merges.txt"} - both)
        raise RefusedError(f"{source} has no vocabulary: tokenizer/{missing} is missing.")
    fast = _object(found, "tokenizer.json") if "tokenizer.json" in found else None
    said = []
    if both:
        said.append(
            (
                _tokens(source, "vocab.json", _object(found, "vocab.json")),
                _merges(source, found["merges.txt"]),
            )
        )
    if fast is not None:
        model = fast.get("model")
        if not isinstance(model, dict) or model.get("type") != "BPE":
            raise RefusedError(
                f"{source}: tokenizer/tokenizer.json holds no BPE vocabulary, which CLIP's is."
            )
        pairs = model.get("merges")
        lines = pairs if isinstance(pairs, list) else []
        split = tuple(tuple(pair.split(" ")) if isinstance(pair, str) else _pair(pair) for pair in lines)
        said.append(
            (
                _tokens(source, "tokenizer.json", model.get("vocab")),
                _checked_merges(source, "tokenizer.json", split),
            )
        )
    if len(said) == 2 and said[0] != said[1]:
        raise RefusedError(
            f"{source}: tokenizer/tokenizer.json and tokenizer/vocab.json with merges.txt are two "
            "vocabularies, and programs differ in which they read; leave one of them out."
        )
    return *said[0], fast


def _pair(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else ()


def _tokens(source: str, name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not 0 < len(value) <= _MOST_TOKENS:
        raise RefusedError(f"{source}: tokenizer/{name} holds no vocabulary.")
    odd = next(
        (
            token
            for token, number in value.items()
            if type(number) is not int or not 0 <= number < _MOST_TOKENS
        ),
        None,
    )
    if odd is not None:
        raise RefusedError(
            f"{source}: tokenizer/{name} gives {odd[:60]!r} the id {str(value[odd])[:20]}; a whole number "
            "from 0 is right."
        )
    if len(set(value.values())) != len(value):
        raise RefusedError(f"{source}: tokenizer/{name} gives one id to two tokens.")
    return value


def _merges(source: str, content: bytes) -> tuple[tuple[str, str], ...]:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{source}: tokenizer/merges.txt is not UTF-8.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not lines[0].startswith("#version"):
        raise RefusedError(
            f"{source}: tokenizer/merges.txt does not begin with '#version'; programs differ in what they "
            "make of that."
        )
    return _checked_merges(
        source, "merges.txt", tuple(tuple(line.rstrip("\r").split(" ")) for line in lines[1:])
    )


def _checked_merges(
    source: str, name: str, pairs: tuple[tuple[str, ...], ...]
) -> tuple[tuple[str, str], ...]:
    if len(pairs) > _MOST_MERGES:
        raise RefusedError(
            f"{source}: tokenizer/{name} has {len(pairs)} merges; some programs read the first "
            f"{_MOST_MERGES} alone."
        )
    checked: list[tuple[str, str]] = []
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2 or not all(pair):
            raise RefusedError(f"{source}: merge {number} of tokenizer/{name} is no pair of tokens.")
        checked.append((pair[0], pair[1]))
    return tuple(checked)


def _special(
    source: str, config: dict[str, Any], beside: dict[str, Any], tokens: Mapping[str, int]
) -> dict[str, str]:
    """The special tokens by role; ``special_tokens_map.json`` and the configuration must agree."""
    odd = next((key for key in beside if key not in _SPECIAL and beside[key] not in ([], {}, None)), None)
    if odd is not None:
        raise RefusedError(
            f"{source}: tokenizer/special_tokens_map.json has '{odd[:60]}', which is not understood."
        )
    special = {}
    for role in _SPECIAL:
        given = [
            _content(source, role, each[role]) for each in (config, beside) if each.get(role) is not None
        ]
        # where the two differ libraries take the second, as long as the configuration does not lay out its
        # added tokens
        if len(set(given)) > 1 and (role != "pad_token" or "added_tokens_decoder" in config):
            raise RefusedError(
                f"{source}: the tokenizer's files name two {role}s, {' and '.join(sorted(given))[:120]}."
            )
        special[role] = given[-1] if given else _RIGHT[role][0]
        if special[role] not in _RIGHT[role] or special[role] not in tokens:
            raise RefusedError(
                f"{source}: the tokenizer's {role} is {special[role][:60]!r}; {' or '.join(_RIGHT[role])} in "
                "its vocabulary is right."
            )
    return special


def _content(source: str, role: str, value: Any) -> str:
    """A special token's text, given as it is or with how it is matched: CLIP's own way, or none at all."""
    if isinstance(value, dict):
        odd = [key for key in ("lstrip", "rstrip", "single_word") if value.get(key)]
        if odd or value.get("__type", "AddedToken") != "AddedToken":
            raise RefusedError(
                f"{source}: the tokenizer's {role} is matched in a way of its own "
                f"({', '.join(odd) or '__type'})."
            )
        value = value.get("content")
    if not isinstance(value, str) or not value:
        raise RefusedError(f"{source}: the tokenizer's {role} is {str(value)[:60]!r}; a string is right.")
    return value


def _refuse_key(source: str, key: str, value: Any, tokens: Mapping[str, int]) -> None:
    where = f"{source}: tokenizer/tokenizer_config.json"
    if key in _SPECIAL or key in _NO_EFFECT or key == "model_max_length":
        return
    if key == "added_tokens_decoder":
        for number, added in value.items() if isinstance(value, dict) else [("", None)]:
            content = _content(source, f"token {number[:20]}", added)
            own = int(number) if re.fullmatch(r"\d{1,7}", number) else None
            refuse_added(source, "tokenizer_config.json", content, own, tokens)
        return
    if key not in _FIXED:
        raise RefusedError(
            f"{where} has the key '{key[:60]}', which is not understood; leave it out if it has no effect."
        )
    if not any(value == right and type(value) is type(right) for right in _FIXED[key]):
        right = " or ".join(json.dumps(each) for each in _FIXED[key])
        raise RefusedError(
            f"{where} has {key} = {json.dumps(value)[:60]}, which changes how prompts are read; {right} is "
            "right."
        )


def _length(source: str, config: dict[str, Any]) -> int | None:
    length = config.get("model_max_length")
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int | float) or length != length // 1 or length < 3:
        raise RefusedError(
            f"{source}: tokenizer/tokenizer_config.json has model_max_length = {str(length)[:20]}; a whole "
            "number of tokens is right."
        )
    return int(length) if length <= _LONGEST else None  # what libraries write for "not known"
