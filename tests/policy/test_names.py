"""Names are equal where CLIP's tokenizer cannot tell them apart, and are recognised where people would."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from auditor._files.bundled import micro_world
from auditor.policy import as_read, entry_called, oddity_of, recognised_in
from auditor.policy.names import composed, first_alike, places_of

_WORDS = (
    *("Borin Talvek", "dog", "José", "René Dupont", "T-shirt", "AC/DC", "R2-D2", "it's", "they'll", "straße"),
    *(
        "ﬁsh",
        "İstanbul",
        "ΣΊΣΥΦΟΣ",
        "Ωmega",
        "Zoë",
        "北京",
        "हिन्दी",
        "dog's",
        "garbage truck",
        "Å",
        "№ 7",
        "1984",
    ),
    *(
        "Борис",
        "don't",
        "'twas",
        "C++",
        "½",
        "e\u0301",
        "dog\u200b",
        "\ufeffdog",
        "<|endoftext|>",
        "🐶",
        "ǅ",
        "ẞ",
    ),
)
_BLANKS = (" ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\x1c", "\u200b", "")
_MARKS = ("", ".", ",", "!", "-", "_", "'", "’", "()", "...", "\u0301", "\u00ad")
_FORMS = (str, str.upper, str.lower, str.title, str.swapcase)
_UNICODE = ("NFC", "NFD", "NFKC", "NFKD")


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(micro_world() / "tokenizer")


def _texts(count: int) -> list[str]:
    chosen = random.Random(0)
    texts = []
    for _ in range(count):
        parts = chosen.sample(_WORDS, chosen.choice((1, 1, 1, 2)))
        text = chosen.choice(_BLANKS).join(parts) + chosen.choice(_MARKS) + chosen.choice(("", *_BLANKS))
        text = unicodedata.normalize(chosen.choice(_UNICODE), chosen.choice(_FORMS)(text))
        texts.append(text.replace(" ", chosen.choice(_BLANKS)) if chosen.random() < 0.3 else text)
    return texts


def test_a_thousand_names_are_alike_where_their_tokens_are(tokenizer: CLIPTokenizer) -> None:
    texts = _texts(1000)
    by_tokens: dict[tuple[int, ...], set[str]] = {}
    by_name: dict[str, set[tuple[int, ...]]] = {}
    for text in texts:
        tokens = tuple(tokenizer(text).input_ids)
        by_tokens.setdefault(tokens, set()).add(as_read(text))
        by_name.setdefault(as_read(text), set()).add(tokens)
    assert 100 < len(by_tokens) < len(set(texts)), "the texts are neither all alike nor all different"
    assert {tokens: names for tokens, names in by_tokens.items() if len(names) > 1} == {}
    assert {name: tokens for name, tokens in by_name.items() if len(tokens) > 1} == {}


def test_every_character_is_read_as_the_tokenizer_reads_it(tokenizer: CLIPTokenizer) -> None:
    for code in (*range(1, 0x3100), *range(0xF900, 0x10000), *range(0x1F300, 0x1F700)):
        if unicodedata.category(chr(code)) == "Cn":
            continue  # of a later Unicode than this Python's
        text = f"a{chr(code)}b"
        tokens = tokenizer(text).input_ids
        assert tokens == tokenizer(as_read(text)).input_ids, hex(code)
        # white space and digits make of it as many words as the tokenizer does
        assert (tokens == tokenizer("ab").input_ids) == (as_read(text) == "ab"), hex(code)
        assert (tokens == tokenizer("a b").input_ids) == (as_read(text) == "a b"), hex(code)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Dog", "dog", True),
        ("dog ", "dog", True),
        ("Jos\u00e9", "Jose\u0301", True),
        ("Borin\u00a0Talvek", "borin  TALVEK", True),
        ("hot-dog", "hot - dog", True),
        ("\u212bngstr\u00f6m", "ångström", True),  # NFC itself makes one of these
        ("José", "Jose", False),
        ("ﬁsh", "fish", False),
        ("straße", "strasse", False),
        ("dоg", "dog", False),  # a Cyrillic letter
        ("dog\u200b", "dog", False),
        ("borin_talvek", "borin talvek", False),
        ("ｄｏｇ", "dog", False),
    ],
)
def test_what_is_one_name(tokenizer: CLIPTokenizer, one: str, other: str, alike: bool) -> None:
    assert (as_read(one) == as_read(other)) is alike
    assert (tokenizer(one).input_ids == tokenizer(other).input_ids) is alike


def test_a_name_of_nothing_reads_as_nothing() -> None:
    assert as_read(" \u00a0\u2028\t") == ""


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("dog", "a photo of a Dog, sitting", ["Dog"]),
        ("dog", "the dog's bowl", ["dog"]),
        ("dog", "dogs and a hotdog", []),
        ("dog", "a hot-dog, a dog_house, dog2, 2dog", []),
        ("Borin Talvek", "Borin\u00a0 Talvek and borin talvek", ["Borin\u00a0 Talvek", "borin talvek"]),
        ("Apollo 1", "Apollo 11", []),
        ("R2", "R2D2", []),
        ("R2", "R2 and R2-D2", ["R2"]),
        ("T-shirt", "a t-shirt", ["t-shirt"]),
        ("René", "Rene\u0301 at home", ["René"]),
        ("हिन", "हिन्दी", []),
        ("dog dog", "dog dog dog", ["dog dog"]),
    ],
)
def test_a_name_stands_in_a_text_as_words_of_its_own(name: str, text: str, found: list[str]) -> None:
    text = composed(text)
    assert [text[start:end] for start, end in places_of(name, text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "a photo of Borin Talvek",
        "BORIN TALVEK",
        "Borin\u00a0Talvek",
        "Borin  Talvek, smiling",
        "borin_talvek",
        "Borin-Talvek's hat",
        "BorinTalvek",
        "borin.talvek2.png",
        "Bor\u00adin Tal\u200bvek",
        "Bоrin Tаlvek",  # Cyrillic о and а
        "Ｂｏｒｉｎ Ｔａｌｖｅｋ",
        "Bórin Tàlvek",
        "Borin\u2028Talvek",
        "𝐁𝐨𝐫𝐢𝐧 𝐓𝐚𝐥𝐯𝐞𝐤",
    ],
)
def test_a_caption_that_names_somebody_is_recognised(text: str) -> None:
    assert recognised_in(text, ["Zelda Mirkov", "Borin Talvek"]) == "Borin Talvek"


@pytest.mark.parametrize("text", ["Borin and Talvek", "Borina Talvek", "a talvek", "", "Xborin Talvek"])
def test_a_caption_that_names_nobody_is_none_of_anybody(text: str) -> None:
    assert recognised_in(text, ["Borin Talvek"]) is None


def test_names_that_cannot_be_told_apart_are_found() -> None:
    assert first_alike(["cat", "Dog", "dog "]) == ("Dog", "dog ")
    assert first_alike(["dog", "dоg"]) == ("dog", "dоg"), "they look alike"
    assert first_alike(["dog", "dog\u200b"]) == ("dog", "dog\u200b")
    assert first_alike(["José", "Jose", "straße", "strasse", "hot dog", "hotdog"]) is None


def test_what_nobody_sees_in_a_name_is_said() -> None:
    assert "two alphabets" in str(oddity_of("Bоrin Talvek"))
    assert "U+200B" in str(oddity_of("dog\u200b"))
    assert [oddity_of(name) for name in ("José", "Борис", "北京", "R2-D2", "नमस्\u200dते")] == [None] * 5


def test_a_folder_is_found_in_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "borin talvek").mkdir()
    assert entry_called(tmp_path, "Borin  Talvek ") == tmp_path / "borin talvek"
    assert entry_called(tmp_path, "Zelda") == tmp_path / "Zelda"
    (tmp_path / "Borin Talvek").mkdir()
    with pytest.raises(ValueError, match="reads as one name"):
        entry_called(tmp_path, "BORIN TALVEK")
