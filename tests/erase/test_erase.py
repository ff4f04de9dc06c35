"""The erasers on the micro world: what they erase, what they keep, and which weights they touch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.sampling import draw
from auditor._erase.erase import erase, read_options
from auditor._files.bundled import micro_world
from auditor.builtins.clip.model import load_clip
from auditor.errors import UsageError
from auditor.policy import Concept, Policy, load_policy
from auditor.policy.concepts.sets import concept_names, prompt_templates
from tests.conftest import short_policy

WEIGHTS = Path("unet/diffusion_pytorch_model.safetensors")


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


def changed(folder: Path) -> set[str]:
    before, after = load_file(micro_world() / WEIGHTS), load_file(folder / WEIGHTS)
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value.float(), after[name])}


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


def test_mace_touches_keys_and_values_of_cross_attention_only(erased: Path) -> None:
    names = changed(erased)
    assert names and all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in names)


@pytest.mark.parametrize(("variant", "cross"), [("x", {True}), ("u", {False}), ("full", {True, False})])
def test_esd_touches_the_weights_of_its_variant(tmp_path: Path, variant: str, cross: set[bool]) -> None:
    options = read_options("micro-esd", (f"variant={variant}", "steps=2", "pool=4"))
    folder = erase("micro", short_policy(), "esd", tmp_path / "esd", options=options)
    assert {".attn2." in name for name in changed(folder)} == cross


def test_erasing_twice_with_one_seed_gives_the_same_weights(erased: Path, tmp_path: Path) -> None:
    again = erase(
        "micro",
        short_policy(),
        "mace",
        tmp_path / "again",
        options=read_options("micro-mace", ()) | {"steps": 5, "images": 4},
    )
    assert (again / WEIGHTS).read_bytes() == (erased / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("concept", "sentence"),
    [
        ({"name": "Borin Talvek", "domain": "people", "prompts": ["{}"]}, "needs a mapping"),
        ({"name": "ship", "domain": "objects", "mapping": "Ship", "prompts": ["{}"]}, "the concept itself"),
        ({"name": "x " * 20, "domain": "objects", "mapping": "sky", "prompts": ["{}"]}, "cut off"),
    ],
)
def test_what_cannot_be_erased_is_said_and_nothing_written(
    tmp_path: Path, concept: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        erase(
            "micro",
            short_policy(erase=[concept]),
            "mace",
            tmp_path / "out",
            options=read_options("micro-mace", ()),
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="is not empty"):
        erase("micro", short_policy(), "mace", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
