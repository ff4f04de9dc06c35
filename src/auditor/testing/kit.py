"""The micro world for tests: a policy, models to change, images, an erased checkpoint, a finished run."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.model import DiffusionModel
    from auditor.policy import Concept, Policy
    from auditor.report import Report


class Kit:
    """The micro world, ready to be used: made on demand and kept for the session.

    With the folder of another checkpoint as ``base`` (:func:`auditor.testing.fake_checkpoint`), that instead.
    """

    def __init__(self, folder: Path, base: str = "micro") -> None:
        self.folder = folder
        """A folder to write to."""
        self.base = base
        """The checkpoint that everything is made from."""

    @functools.cached_property
    def policy(self) -> Policy:
        """One person to erase, one to keep; a probe of two steps; ten images a cell."""
        from auditor.policy import Policy

        people = {"domain": "people", "prompts": "paper-people"}
        options = {"candidates": "micro-people", "names": 2, "images_per_prompt": 1}
        labels = {"model": "micro", "labels": "micro-all", "templates": "erasure-templates"}
        return Policy.model_validate_json(
            json.dumps(
                {
                    "version": 1,
                    "base": {"source": self.base},
                    "erase": [people | {"name": "Borin Talvek", "mapping": "a person"}],
                    "retain": [people | {"name": "Zelda Mirkov"}],
                    "sampler": {"scheduler": "dpm-solver++", "steps": 5, "guidance": 4.0, "size": 32},
                    "probes": [{"use": "in-domain", "doses": [2], "options": options}],
                    "detectors": [{"use": "clip-zero-shot", "options": labels}],
                    "limits": {"max_false_positive": 0.05},
                    "budget": {"images_per_cell": 10, "retained_per_arm": 10},
                }
            )
        )

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The erased and the retained concept."""
        return (*self.policy.erase, *self.policy.retain)

    @functools.cached_property
    def _base(self) -> DiffusionModel:
        from auditor._checkpoint import open_checkpoint
        from auditor._checkpoint.load import load_model

        return load_model(open_checkpoint(self.base), "float32")

    @functools.cached_property
    def original(self) -> Any:
        """The base as an :class:`auditor._diffusion.original.Original`: gives copies and says what was
        changed."""
        from auditor._diffusion.original import Original

        return Original(self._base)

    def model(self, device: str = "cpu") -> DiffusionModel:
        """A copy of the base model that is yours to change."""
        model: DiffusionModel = self.original.fresh()
        for part in model.modules.values():
            part.to(device)
        if device != "cpu":
            model.forget_text_states()
        return model

    def draw(self, prompts: Sequence[str], size: int = 32) -> Tensor:
        """The base's images of ``prompts`` (uint8, shape (N, 3, size, size)), five steps each."""
        return self._draw(tuple(prompts), size)

    @functools.lru_cache(maxsize=32)  # noqa: B019 - one kit a session
    def _draw(self, prompts: tuple[str, ...], size: int) -> Tensor:
        from auditor._diffusion.sampling import draw

        sampler = self.policy.sampler.model_copy(update={"size": size})
        return draw(self._base, prompts, range(len(prompts)), sampler)[0]

    @functools.cached_property
    def images(self) -> Tensor:
        """Eight images, four of each concept."""
        return self.draw(
            [template.format(concept.name) for concept in self.concepts for template in concept.templates[:4]]
        )

    @functools.cached_property
    def erased(self) -> Path:
        """A checkpoint that MACE's closed form erased."""
        from auditor._erase.erase import erase

        options = {"lora": False, "lambda_identity": 1.0, "preserve": "micro-people", "size": 32}
        return erase(self.base, self.policy, "mace", self.folder / "erased", options=options)

    @functools.cached_property
    def run(self) -> Path:
        """The folder of a finished audit: manifest, journal, images, arms, report."""
        from auditor._audit.audit import audit

        audit(str(self.erased), self.policy, self.folder / "run", cache=self.folder / "cache")
        return self.folder / "run"

    @functools.cached_property
    def report(self) -> Report:
        """The report of :attr:`run`."""
        from auditor.report import Report

        return Report.model_validate_json((self.run / "report.json").read_bytes())
