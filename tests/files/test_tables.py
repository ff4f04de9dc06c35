"""Tables are read by the names of their columns, with the lines that a person would count."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._files.tables import read_table


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        "prompt,seed\na dog,1\n",
        "prompt;seed\na dog;1\n",
        "prompt\tseed\r\na dog\t1\r\n",
        "prompt|seed\na dog|1",
        " Prompt , SEED\na dog, 1\n",
        "\n\nprompt,seed\n\na dog,1\n,,\n".replace(",,", ","),
        "\ufeffprompt,seed\na dog,1\n",
        '"prompt", "seed"\n"a dog", "1"\n',
        "seed,prompt,other,other\n1,a dog,x,y\n",
        "prompt,seed\ra dog,1\r",
    ],
)
def test_usual_ways_to_write_a_table_say_the_same(tmp_path: Path, content: str) -> None:
    (row,) = read_table(write(tmp_path, content), ("prompt", "seed")).rows
    assert (row.cells["prompt"], row.cells["seed"]) == ("a dog", "1")


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    content = 'prompt,seed\n"two\nlines",1\n\nb\u2028c,2\n"x, y",3\n'
    rows = read_table(write(tmp_path, content), ("prompt", "seed")).rows
    assert [(row.line, row.cells["prompt"]) for row in rows] == [
        (2, "two\nlines"),
        (5, "b\u2028c"),
        (6, "x, y"),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prompt,sd_seed\na,1\n", r"no column 'seed'; its header holds 'prompt', 'sd_seed', with commas"),
        ("a;b\n1;2\n", r"no column 'prompt' and no 'seed'; its header holds 'a', 'b', with semicolons"),
        ("", "its header holds nothing"),
        ("prompt,seed,Prompt\na,1,b\n", "2 columns called 'prompt'"),
        ("prompt,seed\na, with a hat,1\n", r":2: a row of 3 cells under 2 columns; put quotes"),
        ('prompt,seed\na,1\n"b,2\nc,3\n', r":3: this is no row of a table"),
        ("prompt,seed\na,1\n".encode("utf-16"), "is not UTF-8"),
        ("prompt,seed\né,1\n".encode("cp1252"), "is not UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_table(write(tmp_path, content), ("prompt", "seed"))
