"""What a run tells whoever watches it. The run never waits for an answer."""

from __future__ import annotations

from auditor._audit.plan import Plan


class Progress:
    """Told of every event of a run; this one says nothing. Subclass and override what you want to show."""

    def planned(self, plan: Plan) -> None:
        """The plan is fixed."""

    def stage(self, text: str) -> None:
        """Something that takes a while begins."""

    def arm_started(self, arm: str, already: int) -> None:
        """An arm begins; ``already`` of its images are in the journal."""

    def step(self, arm: str, step: int, steps: int) -> None:
        """One training step of a probe."""

    def batch(self, arm: str, drawn: int, hits: int, judged: int, undecided: int) -> None:
        """A batch was drawn and scored. In the arm so far: ``drawn`` images, of which ``judged`` are of
        erased concepts and ``hits`` of those were detected; ``undecided`` of its cells need more images."""

    def arm_ended(self, arm: str) -> None:
        """An arm needs no more images, or can have none."""

    def failed(self, arm: str, message: str) -> None:
        """An arm broke; the run goes on without it."""

    def stopped(self, reason: str) -> None:
        """The run ends before everything is decided."""
