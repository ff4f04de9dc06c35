"""Ten minutes of headers that nobody would write: the reader answers every one with a header or one
sentence."""

from __future__ import annotations

import json
import math
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor._files.safetensors_header import read_header
from auditor.errors import RefusedError

pytestmark = pytest.mark.science

MINUTES = 10
NUMBERS = st.one_of(
    st.integers(-2, 40), st.integers(-(2**70), 2**70), st.floats(allow_nan=True), st.booleans(), st.none()
)
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "U8", "BOOL", "X", ""]) | NUMBERS,
            "shape": st.lists(NUMBERS, max_size=4) | NUMBERS,
            "data_offsets": st.lists(NUMBERS, max_size=3) | NUMBERS,
        }
    ),
    st.recursive(
        NUMBERS | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
)
NAMES = st.sampled_from(["a", "b.weight", "__metadata__", "../x", ""]) | st.text(max_size=6)


SIZES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}


@st.composite
def sound(draw: st.DrawFn) -> bytes:
    """A file as it should be, or with one value of its header replaced by any other."""
    header: dict[str, Any] = {}
    end = 0
    for name in draw(
        st.lists(st.sampled_from(["a", "b.weight", "c.0.bias", "d"]), min_size=1, max_size=4, unique=True)
    ):
        kind, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(1, 4), max_size=3))
        start, end = end, end + SIZES[kind] * math.prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    if draw(st.booleans()):
        entry = header[draw(st.sampled_from(sorted(header)))]
        other = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=3), st.sampled_from(sorted(SIZES)))
        entry[draw(st.sampled_from(sorted(entry)))] = draw(other)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@st.composite
def strange(draw: st.DrawFn) -> bytes:
    """A file: mostly a header of JSON with a fitting length, sometimes anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    header: Any = draw(st.dictionaries(NAMES, ENTRIES, max_size=4))
    text = json.dumps(header).encode()
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.binary(max_size=4)) + text[place + draw(st.integers(0, 4)) :]
    length = len(text) if draw(st.integers(0, 9)) else draw(st.integers(0, 2**64 - 1))
    return struct.pack("<Q", length) + text + draw(st.binary(max_size=48))


def test_no_header_crashes_or_hangs_the_reader(tmp_path: Path) -> None:
    path, seen = tmp_path / "x.safetensors", {"read": 0, "refused": 0}

    @settings(max_examples=2000, deadline=2000, database=None, suppress_health_check=list(HealthCheck))
    @given(sound() | strange())
    def once(content: bytes) -> None:
        path.write_bytes(content)
        try:
            header = read_header(path)
        except RefusedError as error:
            seen["refused"] += 1
            assert "\n" not in str(error)
        else:
            seen["read"] += 1
            assert header.tensors[-1].end == len(content)

    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        once()
    print(f"{seen['read']} read, {seen['refused']} refused")
    assert min(seen.values()) > 0
