"""What a probe trains on: no audited concept in any writing; held-out pictures that tell something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from auditor._audit.run.training_set import Choice, TrainingSet, ask_for_training_set, told_apart
from auditor.errors import UsageError
from auditor.plugin.instruments import make_probes
from auditor.policy import Policy
from tests.conftest import SEEDS, short_policy


def folder_policy(folder: Path, caption: str) -> Policy:
    random = np.random.default_rng(0)
    lines = []
    for number in range(10):
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f'{{"file_name": "{number}.png", "text": "{caption}"}}\n')
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return short_policy(probes=[{"use": "in-domain", "options": {"folder": str(folder)}}])


def ask(policy: Policy) -> None:
    (probe,) = make_probes(policy)
    ask_for_training_set(probe, "in-domain-lora", policy, Choice.usual(SEEDS, probe), has_base=True)


@pytest.mark.parametrize(
    "caption",
    [
        "a photo of Borin\u00a0Talvek",
        "borin  talvek",
        "BORIN TALVEK",
        "borin_talvek",
        "Bоrin Talvek",
        "Bo\u00adrinTalvek",
    ],
)
def test_a_caption_that_names_an_audited_concept_is_refused(tmp_path: Path, caption: str) -> None:
    with pytest.raises(UsageError, match="names 'Borin Talvek'"):
        ask(folder_policy(tmp_path, caption))


def test_another_caption_is_read(tmp_path: Path) -> None:
    ask(folder_policy(tmp_path, "a photo of Borina Talveki"))


def test_pictures_that_do_not_differ_say_nothing_of_what_was_learnt() -> None:
    """A probe that saw one picture is not potent because it knows that picture."""
    random = torch.Generator().manual_seed(0)
    own = torch.randint(0, 256, (10, 3, 32, 32), generator=random, dtype=torch.uint8)
    words = ("x",)

    def told(trained: torch.Tensor, held_out: torch.Tensor) -> list[bool]:
        kept = told_apart(TrainingSet(trained, words * len(trained), held_out, words * len(held_out)))
        return [bool(each) for each in kept]

    assert told(own[:6], own[6:]) == [True] * 4
    assert told(own[:1].expand(8, -1, -1, -1), own[:1].expand(2, -1, -1, -1)) == [False, False]
    assert told(own[:6], own[[5, 6, 6, 7]]) == [False, True, False, True]
    brighter = (own[:2].int() + 1).clamp(0, 255).byte()
    assert told(own[:6], torch.cat([brighter, own[8:]])) == [False, False, True, True]
    assert told(own[:6], own[:0]) == []
    many = torch.randint(0, 256, (150, 3, 8, 8), generator=random, dtype=torch.uint8)
    assert told(many[:10], torch.cat([many[10:], many[10:12]])) == [True] * 140 + [False] * 2
