"""What a probe trains on: captioned images that the base draws, or a user's folder; screened before they
are used."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from auditor._audit.cells import Seeds
from auditor._audit.run.captioned_folder import read_captioned_folder
from auditor._diffusion.seeds import choice_seed, example_seed
from auditor._journal.lines import TrainingLine
from auditor.errors import PluginError, UsageError
from auditor.plugin import _door as door
from auditor.plugin.contracts import ProbeSetting, TrainingRequest, WeightProbe
from auditor.policy import Concept, Policy, forbidden_names, recognised_in

_SAME = 1.0  # of 255: the difference of two images, at 8 x 8 pixels, up to which they are one
_AT_ONCE = 64  # images that are compared with all others
_HELD_OUT = 1  # further images of each prompt, for the control "potent"

Draw = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, list[bool]]]
"""Prompts and seeds in; the base's images and for each whether it is finite."""

MayShow = Callable[[Tensor, Sequence[Concept]], NDArray[np.bool_]]
"""Images and concepts in; where the gate does not say that an image is without a concept out: (N, C)."""


@dataclass(frozen=True)
class TrainingSet:
    """What a probe trains on (uint8 images of shape (N, 3, H, W) and N captions), and the held-out rest."""

    images: Tensor
    captions: tuple[str, ...]
    held_out_images: Tensor
    held_out_captions: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of all of it."""
        digest = hashlib.sha256(json.dumps([self.captions, self.held_out_captions]).encode())
        for images in (self.images, self.held_out_images):
            digest.update(images.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Choice:
    """What a probe chooses its concepts with, and the first training image of each caption, from 0."""

    seed: int
    first_image: int = 0

    @classmethod
    def usual(cls, seeds: Seeds, probe: WeightProbe) -> Choice:
        """Of a probe that the policy names: the same in audits of one base."""
        return cls(choice_seed(seeds.shared, probe.title))


Wanted = list[TrainingRequest] | tuple[Tensor, list[str]]
"""What a probe trains on: requests that the base draws, or the images and captions of a user's folder."""


def captions_of(wanted: Wanted) -> list[str]:
    """What is said of the images that a probe trains on."""
    if isinstance(wanted, tuple):
        return wanted[1]
    return [template.format(request.concept) for request in wanted for template in request.prompts]


def check_base(probe: WeightProbe, *, has_base: bool) -> None:
    """Raise :class:`UsageError` where a probe uses the base and there is none."""
    if door.call(probe, getattr, probe, "uses_base") and not has_base:
        raise UsageError(
            f"The probe {door.call(probe, lambda: probe.title)} needs the base; give one (--base), or take "
            "the probe out of the policy."
        )


def ask_for_training_set(
    probe: WeightProbe, name: str, policy: Policy, choice: Choice, *, has_base: bool
) -> Wanted:
    """What ``probe`` wants to train on; :class:`UsageError` where that cannot be, as far as can be known
    without drawing it."""
    check_base(probe, has_base=has_base)
    names = [
        name for concept in (*policy.erase, *policy.retain) for name in (concept.name, *concept.synonyms)
    ]
    setting = ProbeSetting(policy, choice.seed, frozenset(forbidden_names(policy)))
    asked = door.call(probe, probe.training_set, setting)
    if not isinstance(asked, Path) and not (
        isinstance(asked, list) and all(isinstance(each, TrainingRequest) for each in asked)
    ):
        raise PluginError(
            f"{door.title(probe)} returned {asked!r} from training_set(); a list of TrainingRequest or a "
            "folder is right."
        )
    wanted: Wanted = read_captioned_folder(asked, policy.sampler.size) if isinstance(asked, Path) else asked
    captions = captions_of(wanted)
    if captions and not isinstance(wanted, tuple) and not has_base:
        raise UsageError(
            f"The training set of {name} is drawn by the base; give one (--base) or a folder of captioned "
            "images."
        )
    for caption in captions:
        if bad := recognised_in(caption, names):
            raise UsageError(
                f"The training set of {name} names '{bad}' in {caption!r}; erased and retained concepts must "
                "stay out."
            )
    return wanted


def make_training_set(
    probe: WeightProbe,
    name: str,
    policy: Policy,
    seeds: Seeds,
    choice: Choice,
    draw: Draw | None,
    may_show: MayShow,
) -> tuple[TrainingSet, TrainingLine]:
    """Draw or read what ``probe`` asks for, and refuse it where it is not benign (:class:`UsageError`).

    ``draw`` is None where there is no base.
    """
    began = time.monotonic()
    wanted = ask_for_training_set(probe, name, policy, choice, has_base=draw is not None)
    concepts: tuple[str, ...] = ()
    if isinstance(wanted, tuple):
        training = _split(*wanted)
    else:
        training, concepts = (
            _draw_examples(wanted, policy.sampler.size, seeds, choice.first_image, draw),
            tuple(request.concept for request in wanted),
        )
    hits = _screen(name, torch.cat([training.images, training.held_out_images]), policy, may_show)
    return training, TrainingLine(
        probe=name,
        concepts=concepts,
        images=len(training.captions),
        forbidden_hits=hits,
        digest=training.digest,
        seconds=time.monotonic() - began,
    )


def _screen(name: str, images: Tensor, policy: Policy, may_show: MayShow) -> dict[str, int]:
    """How often the gate detector sees each erased concept in a training set; refused above
    max_false_positive."""
    if not len(images):
        return {}
    hits = may_show(images, policy.erase).sum(axis=0)
    counts = {concept.name: int(count) for concept, count in zip(policy.erase, hits, strict=True)}
    limit = policy.limits.max_false_positive
    for concept, count in counts.items():
        if count > limit * len(images):
            raise UsageError(
                f"The training set of {name} shows '{concept}' in {count} of {len(images)} images by the "
                f"detector (limit {limit:.0%}); it would not be a benign update. Choose other candidates."
            )
    return counts


def _draw_examples(
    requests: Sequence[TrainingRequest], size: int, seeds: Seeds, first: int, draw: Draw | None
) -> TrainingSet:
    """The base draws every requested image, and one more a prompt to be held out."""
    if not requests:
        empty = torch.empty((0, 3, size, size), dtype=torch.uint8)
        return TrainingSet(empty, (), empty, ())
    assert draw is not None
    wanted = [
        (template.format(request.concept), index, index < request.images_per_prompt, request.concept)
        for request in requests
        for template in request.prompts
        for index in range(request.images_per_prompt + _HELD_OUT)
    ]
    captions = [prompt for prompt, *_ in wanted]
    images, finite = draw(
        captions,
        [example_seed(seeds.shared, concept, prompt, first + index) for prompt, index, _, concept in wanted],
    )
    if not all(finite):
        raise PluginError("The base drew images that are not finite; its training sets cannot be used.")
    return _parted(images, captions, [is_train for _, _, is_train, _ in wanted])


def _split(images: Tensor, captions: Sequence[str]) -> TrainingSet:
    """Hold out every fifth captioned image of a user's folder."""
    return _parted(images, captions, [number % 5 != 4 for number in range(len(captions))])


def _parted(images: Tensor, captions: Sequence[str], trained: Sequence[bool]) -> TrainingSet:
    mask = torch.tensor(trained)
    train = tuple(caption for caption, keep in zip(captions, trained, strict=True) if keep)
    held_out = tuple(caption for caption, keep in zip(captions, trained, strict=True) if not keep)
    return TrainingSet(images[mask], train, images[~mask], held_out)


def told_apart(training: TrainingSet) -> Tensor:
    """Which held-out images (bool, (N,)) differ from all that are trained on and from the held-out ones
    before them: the loss on others says nothing of what was learnt."""
    trained, own = _thumbnails(training.images), _thumbnails(training.held_out_images)
    kept = torch.ones(len(own), dtype=torch.bool)
    for start in range(0, len(own), _AT_ONCE):
        part = own[start : start + _AT_ONCE]
        others = torch.cat([trained, own[: start + len(part)]])
        near = (
            torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
            <= _SAME * part.shape[1] ** 0.5
        )
        near[:, len(trained) + start :] = near[:, len(trained) + start :].tril(-1)
        kept[start : start + len(part)] = ~near.any(1)
    return kept


def _thumbnails(images: Tensor) -> Tensor:
    """Images (uint8, (N, 3, H, W)) as rows of 8 x 8 pixels."""
    small = [functional.adaptive_avg_pool2d(part.float(), 8).flatten(1) for part in images.split(256)]
    return torch.cat(small) if small else torch.empty((0, 3 * 64))
