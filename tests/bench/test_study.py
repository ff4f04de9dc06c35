"""What sharing saves: the study of the paper's Figure 5 beside the same runs, each on its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from auditor._study import run
from auditor._study.document import Study
from auditor._study.load import load_study
from auditor._study.store import Store

pytestmark = pytest.mark.bench

_SMALLER = 10
"""Training steps and images are a tenth; erasing, training and drawing keep their shares of the time.
Denoising steps stay."""


def smaller(study: Study) -> Study:
    """The study of ``number.yaml`` with both methods, a tenth of its size."""
    images = study.images.model_copy(update={"retained": 1, "unrelated": 1})
    probes = {
        name: probe.model_copy(
            update={"doses": (probe.doses[-1] // _SMALLER,), "options": probe.options | {"names": 1}}
        )
        for name, probe in study.probes.items()
    }
    erasers = {
        name: use.model_copy(
            update={"options": use.options | {"steps": 100 // _SMALLER, "images": 1, "sampling_steps": 12}}
        )
        for name, use in study.erasers.items()
    }
    sets = {
        name: each.model_copy(update={"images": max(1, (each.images or 1) // _SMALLER)})
        for name, each in study.sets.items()
    }
    sampler = study.sampler.model_copy(update={"steps": 3})
    update: dict[str, object] = {
        "images": images,
        "probes": probes,
        "erasers": erasers,
        "sets": sets,
        "sampler": sampler,
        "methods": ("lora", "full"),
    }
    # a few pictures of three steps are no evidence
    update |= {
        "metrics": study.metrics[:2],
        "max_false_positive": 0.5,
    }
    return study.model_copy(update=update)


def seconds_of(study: Study, store: Path) -> float:
    """Of measuring it into a new store."""
    began = time.perf_counter()
    assert run.measure(run.Asked(Path("study.yaml"), study), Store(store)) == 0
    return time.perf_counter() - began


def test_sharing_costs_at_most_six_tenths(tmp_path: Path) -> None:
    """Issue: at most 0.6 of the same runs without sharing. A run: base, erasure, erased arm, training set,
    one probe, loaded anew."""
    study = smaller(load_study(Path("examples/studies/micro/number.yaml")))
    seconds_of(
        study.model_copy(update={"sets": dict([next(iter(study.sets.items()))]), "replicates": 1}),
        tmp_path / "warm",
    )
    alone, runs = 0.0, 0
    for name, chosen in study.sets.items():
        for method in study.methods:
            for replicate in range(1, study.replicates + 1):
                single = study.model_copy(
                    update={"sets": {name: chosen}, "methods": (method,), "replicates": 1, "seed": replicate}
                )
                alone, runs = alone + seconds_of(single, tmp_path / f"{name}-{method}-{replicate}"), runs + 1
    shared = seconds_of(study, tmp_path / "shared")
    print(
        f"{runs} runs of Figure 5's study at a tenth: {shared:.0f} s sharing, {alone:.0f} s each on its own: "
        f"{shared / alone:.2f}"
    )
    assert shared <= 0.6 * alone
