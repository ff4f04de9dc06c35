"""From a study to what it takes: images, checkpoints, arms and their identities. Pure, once the base's digest
is known.

An identity holds all that decides what an arm is (base, eraser, concepts, seeds, probe, versions) and nothing
that does not: what a study calls its sets and erasers, which other arms there are; a probe's name is in its
training seed. Equal identities are measured once, within a study and between studies of one store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from auditor._audit.cells import Seeds
from auditor._diffusion.seeds import image_seed, training_seed
from auditor._files.digest import sha256_json
from auditor._process.machine import version_of
from auditor._study.document import Study
from auditor.errors import UsageError
from auditor.plugin._loader import make_plugin
from auditor.plugin.instruments import identity_of
from auditor.policy import Policy, ProbeUse

Role = Literal["erased", "synonym", "retained", "unrelated", "grid"]
"""What an image is for: the rate of an erased concept, also by its synonyms; retained accuracy; metrics;
the first image at seed 0."""

STACK = ("auditor", "torch", "diffusers", "transformers", "peft", "open-clip-torch")
Chosen = dict[tuple[str, str], int]
"""Of each set and eraser with strengths, the one that was chosen."""


@dataclass(frozen=True)
class StudySample:
    """One image of every arm of a set."""

    role: Role
    concept: str
    prompt: str
    index: int
    seed: int


@dataclass(frozen=True)
class Erased:
    """An erased checkpoint to make."""

    set: str
    eraser: str
    strength: int | None
    replicate: int
    key: str
    """Its identity: sha256."""

    @property
    def title(self) -> str:
        """For people."""
        strength = "" if self.strength is None else f" strength {self.strength + 1}"
        return f"{self.set} · {self.eraser}{strength} · replicate {self.replicate}"


@dataclass(frozen=True)
class StudyArm:
    """One model state that images are drawn from: a base (``erased`` is None), an erased checkpoint, or a
    probe's dose on it."""

    set: str
    erased: Erased | None
    probe: str | None
    dose: int | None
    key: str


class Expansion:
    """A study with everything it takes, on one base (by its digest) and one kind of device."""

    def __init__(self, study: Study, base: str, device: str) -> None:
        self.study, self.base = study, base
        self._plugins: dict[str, list[Any]] = {}
        self._stack = {name: version_of(name) for name in STACK} | {"device": device}

    @cached_property
    def _sampler(self) -> dict[str, Any]:
        """How images are drawn, less what changes nothing but the time."""
        return self.study.sampler.model_dump(mode="json", exclude={"batch"})

    @cached_property
    def seeds(self) -> Seeds:
        """Shared by all arms and all studies with the same ``seed``."""
        return Seeds(*(sha256_json(["study", self.study.seed, self.base]),) * 2)

    @lru_cache(maxsize=256)  # noqa: B019 - as many as there are sets, as long as the study
    def policy(self, name: str) -> Policy:
        """What plugins see of a set."""
        return self.study.policy(name)

    def erasing_seed(self, replicate: int) -> int:
        """The seed of one erasure. Replicates of two studies with another ``seed`` share none (a study has
        at most a hundred)."""
        return 100 * self.study.seed + replicate - 1

    def training_seed(self, probe: str, replicate: int) -> int:
        """The seed of one training run."""
        return training_seed(self.seeds.audit, probe, replicate)

    # -- images ----------------------------------------------------------------------------------------------

    @lru_cache(maxsize=256)  # noqa: B019
    def samples(self, name: str) -> tuple[StudySample, ...]:
        """The images of every arm of a set. Neither arm nor set is in a seed: all are compared on the same
        noise."""
        return tuple(self._samples(name))

    def _samples(self, name: str) -> Iterator[StudySample]:
        chosen, images = self.study.sets[name], self.study.images
        for concept in chosen.erase:
            for surface in (concept.name, *concept.synonyms):
                own = surface == concept.name
                count = (chosen.images or images.erased) if own else images.synonyms
                for prompt in (template.format(surface) for template in concept.templates):
                    for index in range(count):
                        yield self._sample("erased" if own else "synonym", concept.name, prompt, index)
            if self.study.grids:
                yield StudySample("grid", concept.name, concept.templates[0].format(concept.name), 0, 0)
        for concept in self.policy(name).retain:
            for prompt in (template.format(concept.name) for template in concept.templates):
                for index in range(images.retained):
                    yield self._sample("retained", concept.name, prompt, index)
        if self.study.metrics:
            for prompt in self.study.unrelated.texts:
                for index in range(images.unrelated):
                    yield self._sample("unrelated", "", prompt, index)

    def _sample(self, role: Role, concept: str, prompt: str, index: int) -> StudySample:
        return StudySample(role, concept, prompt, index, image_seed(self.seeds.audit, concept, prompt, index))

    # -- arms ------------------------------------------------------------------------------------------------

    def base_arms(self) -> list[StudyArm]:
        """The base, once for each set: its images are shared between sets."""
        return [
            StudyArm(name, None, None, None, sha256_json([self.base, self._stack]))
            for name in self.study.sets
        ]

    def candidates(self) -> list[Erased]:
        """Every strength that ``match`` chooses from, on the first replicate."""
        return [
            self._erased(name, eraser, strength, 1)
            for name in self.study.sets
            for eraser, use in self.study.erasers.items()
            for strength in range(len(use.strengths))
        ]

    def checkpoints(self, chosen: Chosen) -> list[Erased]:
        """Every erased checkpoint that is probed, replicate by replicate, so that what is cut short is
        still balanced."""
        return [
            self._erased(name, eraser, chosen.get((name, eraser)), replicate)
            for replicate in range(1, self.study.replicates + 1)
            for name in self.study.sets
            for eraser in self.study.erasers
        ]

    def _erased(self, name: str, eraser: str, strength: int | None, replicate: int) -> Erased:
        policy = self.policy(name)
        identity = {
            "base": self.base,
            "eraser": self._plugin(
                "erasers", self.study.erasers[eraser].use, self.study.erasers[eraser].resolved(name, strength)
            ),
            "erase": [concept.model_dump(mode="json") for concept in policy.erase],
            "retain": [concept.model_dump(mode="json") for concept in policy.retain],
            "seed": self.erasing_seed(replicate),
            "stack": self._stack,
        }
        return Erased(name, eraser, strength, replicate, sha256_json(identity))

    def erased_arm(self, erased: Erased) -> StudyArm:
        """The checkpoint as it is."""
        return StudyArm(erased.set, erased, None, None, erased.key)

    def probe_arms(self, erased: Erased) -> dict[str, tuple[ProbeUse, tuple[StudyArm, ...]]]:
        """By name: each probe as it trains, and an arm for each of its doses."""
        forbidden = sorted(
            concept.name for concept in (*self.policy(erased.set).erase, *self.policy(erased.set).retain)
        )
        found = {}
        for title, use in self.study.uses(erased.set):
            seed = self.training_seed(title, erased.replicate)
            recipe = [
                erased.key,
                self._plugin("probes", use.use, use.options),
                use.method,
                seed,
                self.seeds.shared,
                forbidden,
            ]
            recipe.append(self._sampler)
            doses = tuple(
                StudyArm(erased.set, erased, title, dose, sha256_json([*recipe, dose])) for dose in use.doses
            )
            found[title] = (use, doses)
        return found

    def record_key(self, arm: StudyArm) -> str:
        """What an arm's outcomes hang on beside the arm: images, concepts asked for, sampler, detectors,
        and what these let train."""
        limit = None if arm.probe is None else self.study.max_false_positive
        return sha256_json([arm.key, self._measured(arm.set), limit])

    @lru_cache(maxsize=256)  # noqa: B019
    def _measured(self, name: str) -> str:
        samples = [[s.role, s.concept, s.prompt, s.index, s.seed] for s in self.samples(name)]
        concepts = [c.model_dump(mode="json") for c in (*self.policy(name).erase, *self.policy(name).retain)]
        return sha256_json(
            [
                samples,
                concepts,
                self._sampler,
                [self._plugin("detectors", use.use, use.options) for use in self.study.detectors],
            ]
        )

    def picture_key(self, arm: StudyArm, sample: StudySample) -> str:
        """What one image hangs on."""
        return sha256_json([arm.key, self._sampler, sample.prompt, sample.seed])

    def metric_key(self, arm: StudyArm, name: str, options: dict[str, Any]) -> str:
        """What a metric of an arm hangs on: the arm's outcomes and images, which the base's beside them
        follow from."""
        return sha256_json([self.record_key(arm), self._plugin("metrics", name, options)])

    def features_key(
        self,
        arm: StudyArm,
        weights: str | None,
        name: str,
        options: dict[str, Any],
        samples: Sequence[StudySample],
    ) -> str:
        """What a metric's features of some images hang on; ``weights``: of the training that drew them,
        which another might not repeat."""
        return sha256_json(
            [
                self._plugin("metrics", name, options),
                weights,
                [self.picture_key(arm, sample) for sample in samples],
            ]
        )

    def _plugin(self, kind: str, name: str, options: dict[str, Any]) -> list[Any]:
        """What a plugin is; files that it reads are read once."""
        asked = sha256_json([kind, name, options])
        if asked not in self._plugins:
            self._plugins[asked] = identity_of(make_plugin(kind, name, options))
        return self._plugins[asked]

    def check_files(self, kind: str, name: str, options: dict[str, Any]) -> None:
        """Raise :class:`UsageError` where a file that a plugin reads is no longer what it was when the
        study began."""
        if identity_of(make_plugin(kind, name, options)) != self._plugin(kind, name, options):
            raise UsageError(
                f"A file that '{name}' reads was changed while the study was at work; run the study again."
            )
