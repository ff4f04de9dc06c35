"""MACE at Stable Diffusion's true shape, Grounding DINO and SAM at theirs, and what each part of MACE does
on the micro world."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from auditor._erase.erase import erase
from auditor._erase.job import read_options
from auditor.builtins.masks.grounded_sam import GroundedSam
from auditor.policy import Policy, load_policy
from tests.builtins.erasers.mace.test_masks import PERSON, request, write_networks
from tests.erase.test_erased import detected

pytestmark = pytest.mark.science
ROOT = Path(__file__).parents[2]
UNET = Path("unet/diffusion_pytorch_model.safetensors")


def size_of(step: str, folder: Path, work: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.science.mace_size", step, str(folder), str(work)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{folder.name} | {step} | {found['seconds']:.1f} s | {found['cpu_seconds']:.1f} CPU s | "
        f"{found['peak_gib']:.2f} GiB",
        flush=True,
    )
    return found


def make(folder: Path, family: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.science.true_size", "make", str(folder), family], check=True, cwd=ROOT
    )


def test_a_step_and_a_hundred_concepts_at_true_size(tmp_path: Path) -> None:
    folder, work = tmp_path / "sd1", tmp_path / "work"
    make(folder, "sd1")
    ours = size_of("one erase step", folder, work)
    explicit = size_of("one erase step, explicit attention, 128 LoRAs", folder, work)
    assert (
        ours["cpu_seconds"] < 0.75 * explicit["cpu_seconds"]
        and ours["peak_gib"] < 0.75 * explicit["peak_gib"]
    )
    hundred = size_of("closed forms of 100 concepts", folder, work)
    assert hundred["peak_gib"] - hundred["before_gib"] < 0.5, "Gram matrices are streamed"


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_the_whole_eraser_at_true_size(tmp_path: Path, family: str) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors import safe_open

    folder, work = tmp_path / family, tmp_path / "work"
    make(folder, family)
    size_of("whole erasure", folder, work)
    erased = work / f"erased-{family}"
    reloaded = UNet2DConditionModel.from_pretrained(erased / "unet").state_dict()
    with safe_open(folder / UNET, "pt") as before, safe_open(erased / UNET, "pt") as after:
        changed = []
        for name in before.keys():  # noqa: SIM118 - no mapping
            written = after.get_tensor(name)
            assert torch.equal(written, reloaded[name])
            if not torch.equal(before.get_tensor(name).float(), written):
                changed.append(name)
    assert len(changed) == 32 and all(
        name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in changed
    )


def test_grounding_dino_and_sam_at_true_size(tmp_path: Path) -> None:
    source = GroundedSam(write_networks(tmp_path, true_size=True))
    began = time.monotonic()
    masks = source.masks(request(PERSON, 1))
    print(
        f"grounded-sam, default configurations, one image, loading included: {time.monotonic() - began:.0f} s"
    )
    assert masks.shape == (1, 8, 8) and bool(masks.any())


# -- the micro world -----------------------------------------------------------------------------------------


def first_of(policy: Policy, count: int) -> Policy:
    """The policy with its first concepts, topped up from those of the same domain that it neither erases
    nor keeps."""
    from auditor.policy.concepts.micro import PEOPLE

    taken = {concept.name for concept in (*policy.erase, *policy.retain)}
    more = [name for name in PEOPLE if name not in taken]
    erased = [*policy.erase, *(policy.erase[0].model_copy(update={"name": name}) for name in more)]
    return policy.model_copy(update={"erase": tuple(erased[:count])})


TASKS = {
    "1 person": lambda: load_policy("micro-person"),
    "5 people": lambda: load_policy("micro-people"),
    "10 people": lambda: first_of(load_policy("micro-people"), 10),
    "1 object": lambda: load_policy("micro-object"),
    "5 objects": lambda: load_policy("micro-objects"),
}
ABLATION: dict[str, dict[str, Any]] = {
    "refinement only": {"lora": False},
    "+ LoRAs, summed": {"fusion": "sum", "importance_sampling": False},
    "+ closed-form fusion": {"importance_sampling": False},
    "+ importance sampling (all of MACE)": {},
    "all of MACE, marking the phrase alone": {"mark": "phrase"},
}


def shares(policy: Policy, folder: Path, options: dict[str, Any]) -> tuple[float, float, float]:
    """Detected share of the erased, right share of the retained (200 images each), seconds."""
    began = time.monotonic()
    erase("micro", policy, "mace", folder, options=read_options("micro-mace", ()) | options)
    seconds = time.monotonic() - began
    return detected(folder, policy, policy.erase, 200), detected(folder, policy, policy.retain, 200), seconds


def test_each_task_of_the_micro_world(tmp_path: Path) -> None:
    for title, make_policy in TASKS.items():
        erased, kept, seconds = shares(make_policy(), tmp_path / title, {})
        print(f"| {title} | {erased:.1%} | {kept:.1%} | {seconds:.0f} s |", flush=True)
        assert erased <= 0.03 and kept >= 0.9


def test_what_each_part_does(tmp_path: Path) -> None:
    policies = {
        "5 people": load_policy("micro-people"),
        "10 people": first_of(load_policy("micro-people"), 10),
    }
    found: dict[str, tuple[float, float, float]] = {}
    for name, options in ABLATION.items():
        for title, policy in policies.items():
            found[f"{title}, {name}"] = shares(policy, tmp_path / title / name, options)
        row = " | ".join(
            f"{value[0]:.1%} | {value[1]:.1%}" for value in list(found.values())[-len(policies) :]
        )
        print(f"| {name} | {row} |", flush=True)
    whole, alone = found["5 people, + importance sampling (all of MACE)"], found["5 people, refinement only"]
    assert whole[0] < alone[0], "LoRAs erase what refinement leaves"
