"""What MACE erases and keeps of the micro world: real detections."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.sampling import draw
from auditor._erase.erase import erase
from auditor._erase.job import read_options
from auditor.builtins.clip.model import load_clip
from auditor.policy import Concept, Policy, load_policy
from auditor.policy.concepts.sets import concept_names, prompt_templates


def detected(folder: Path, policy: Policy, concepts: tuple[Concept, ...], images: int) -> float:
    """The share of about ``images`` images, prompts in turn, that the detector takes for their own
    concept."""
    model, clip, labels = (
        load_model(open_checkpoint(str(folder))),
        load_clip("micro"),
        concept_names("micro-all"),
    )
    features = clip.label_features(labels, prompt_templates("erasure-templates"))
    prompts = [(c.name, t.format(c.name)) for c in concepts for t in c.templates]
    wanted = prompts * -(-images // len(prompts))
    right = 0
    for start in range(0, len(wanted), 64):
        batch = wanted[start : start + 64]
        drawn, _ = draw(
            model,
            [prompt for _, prompt in batch],
            range(5_000 + start, 5_000 + start + len(batch)),
            policy.sampler,
        )
        best = (clip.image_features(drawn) @ features.T).argmax(1).tolist()
        right += sum(labels[index] == name for index, (name, _) in zip(best, batch, strict=True))
    return right / len(wanted)


@pytest.mark.parametrize(
    "name",
    [
        "micro-person",
        *(
            pytest.param(name, marks=pytest.mark.science)
            for name in ("micro-people", "micro-object", "micro-objects")
        ),
    ],
)
def test_mace_erases_and_keeps(tmp_path: Path, name: str) -> None:
    """Issue: at most 3 % of at least 100 images detected, retained accuracy at least 0.90 of the base's
    (1.00)."""
    policy = load_policy(name)
    folder = erase("micro", policy, "mace", tmp_path / "mace", options=read_options("micro-mace", ()))
    assert detected(folder, policy, policy.erase, 100) <= 0.03
    assert detected(folder, policy, policy.retain, 100) >= 0.90
