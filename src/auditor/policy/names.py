"""Names as CLIP's text encoder reads them, and names as people would recognise them.

CLIP's tokenizer composes Unicode (NFC), makes every run of white space one blank, takes each character's
lower case, and splits what is left into words, single digits and runs of other characters. Two texts that are
split alike get the same token ids. It does no more: compatible forms (``ﬁ``), accents, letters of another
alphabet that look the same, and invisible characters are other tokens, so they are other names.

A training set is screened for what looks like a name too, because a caption may hide one.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_JOINTS = "-_\u2010\u2011"
"""What makes one word of two: a hot-dog is no dog."""

_ALIKE = str.maketrans(
    "авекмнорстухіјѕԁԛԝһӏɡαβεηικμνορτυχ",
    "abekmhopctyxijsdqwhlgabenikuvoptux",
)
"""Small letters of Cyrillic, Greek and phonetic alphabets, and the Latin ones that they look like."""


class Piece(NamedTuple):
    """What becomes tokens of its own: its text in lower case, and where it stands in the composed text."""

    text: str
    start: int
    end: int


def as_read(text: str) -> str:
    """``text`` as CLIP's text encoder reads it: two texts are equal here exactly where its tokenizer gives
    them the same token ids. Empty where it reads nothing."""
    return " ".join(piece.text for piece in _split(composed(text)))


def composed(text: str) -> str:
    """``text`` in NFC, which is what places in it are counted in."""
    return unicodedata.normalize("NFC", text)


@functools.lru_cache(maxsize=4096)
def _split(text: str) -> tuple[Piece, ...]:
    """What CLIP's tokenizer splits ``text`` (composed) into."""
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    # each character by itself: no final sigma; one becomes two
    small = [(each, place) for place, character in enumerate(text) for each in character.lower()]
    letters = "".join(each for each, _ in small)
    at = 0
    while at < len(small):
        end = _end_of_piece(letters, at)
        if end > at:
            first, last = small[at][1], small[end - 1][1] + 1
            # a special token is one in small letters alone
            shouted = letters[at:end] in _SPECIAL and text[first:last] not in _SPECIAL
            yield Piece(letters[at:end].upper() if shouted else letters[at:end], first, last)
        at = max(end, at + 1)


def places_of(name: str, text: str) -> list[tuple[int, int]]:
    """Where ``name`` stands in ``text`` (composed) as words of its own, in however it is written: starts and
    ends. Parts of longer or hyphenated words are none."""
    wanted, own = [piece.text for piece in _split(composed(name))], _split(text)
    found = list[tuple[int, int]]()
    for first in range(len(own) - len(wanted) + 1 if wanted else 0):
        last = first + len(wanted) - 1
        start, end = own[first].start, own[last].end
        if [piece.text for piece in own[first : last + 1]] != wanted or (found and start < found[-1][1]):
            continue
        if not (
            _is_joined(text[start - 1 : start], text[start]) or _is_joined(text[end : end + 1], text[end - 1])
        ):
            found.append((start, end))
    return found


def recognised_in(text: str, names: Iterable[str]) -> str | None:
    """The first of ``names`` that ``text`` holds, or what people would take for it: with other accents,
    compatible or look-alike letters, invisible characters, or other characters between its words."""
    read, bare = composed(text), _bare(text)
    for name in names:
        words = re.findall(r"[^\W_]+", _bare(name))
        pattern = r"[\W_]*".join(map(re.escape, words))
        if places_of(name, read) or (
            pattern and re.search(rf"{_before(words[0])}{pattern}{_after(words[-1])}", bare)
        ):
            return name
    return None


def first_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two of ``names`` that the text encoder, or a reader, cannot tell apart."""
    seen = dict[str, str]()
    for name in names:
        for key in {f"read {as_read(name)}", f"seen {_look(name)}"}:
            if key in seen:
                return seen[key], name
        seen |= dict.fromkeys((f"read {as_read(name)}", f"seen {_look(name)}"), name)
    return None


def oddity_of(name: str) -> str | None:
    """What nobody sees in ``name`` and a text encoder reads: letters of two alphabets in one word, or
    characters that are not shown. None where there is nothing of it."""
    for word in name.split():
        scripts = {unicodedata.name(each, "").split(" ")[0] for each in word if each.isalpha()}
        if len(scripts & {"LATIN", "CYRILLIC", "GREEK"}) > 1:
            return f"{word!a} has letters of two alphabets"
        hidden = next((each for each in word if unicodedata.category(each) == "Cf"), None)
        if hidden is not None and scripts <= {"LATIN", "CYRILLIC", "GREEK"}:
            return f"{word!a} holds U+{ord(hidden):04X}, which is not shown"
    return None


def entry_called(folder: Path, name: str) -> Path:
    """What in ``folder`` is called ``name``, in however it is written; ``folder / name`` where nothing is.

    Raises ``ValueError`` where several are.
    """
    exact = folder / name
    if not folder.is_dir():
        return exact
    found = sorted(path for path in folder.iterdir() if as_read(path.name) == as_read(name))
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {', '.join(repr(path.name) for path in found)}, which a text encoder reads as "
            "one name; leave one"
        )
    return found[0] if found else exact


def _end_of_piece(small: str, at: int) -> int:
    """Where the piece that begins at ``at`` ends; ``at`` itself where there is white space."""
    for known in (*_SPECIAL, *_ENDINGS):
        if small.startswith(known, at):
            return at + len(known)
    kind = _kind(small[at])
    end = at + (kind != " ")
    while kind in "L." and end < len(small) and _kind(small[end]) == kind:
        end += 1
    return end


def _kind(character: str) -> str:
    """``L`` of a letter, ``N`` of a number, a blank of white space, a dot of anything else."""
    category = unicodedata.category(character)[0]
    if category in "LN":
        return category
    return " " if character.isspace() and not "\x1c" <= character <= "\x1f" else "."


def _is_joined(neighbour: str, own: str) -> bool:
    """Does ``neighbour``, one character or none, make a longer word of what ends with ``own``?"""
    if not neighbour or not _is_word(own):
        return False
    return neighbour in _JOINTS or _is_word(neighbour)


def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def _look(text: str) -> str:
    """How a name looks: case, blanks and what is invisible aside, with look-alike letters and compatible
    forms as one."""
    return " ".join(_visible(unicodedata.normalize("NFKC", text)).lower().translate(_ALIKE).split())


def _bare(text: str) -> str:
    """The same without accents and with white space as it is."""
    spread = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in spread if unicodedata.category(character) != "Mn")
    return _visible(plain).casefold().translate(_ALIKE)


def _visible(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _before(word: str) -> str:
    return r"(?<!\d)" if word[0].isdigit() else r"(?<![^\W\d_])"


def _after(word: str) -> str:
    return r"(?!\d)" if word[-1].isdigit() else r"(?![^\W\d_])"
