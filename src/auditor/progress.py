"""What a run tells whoever watches it. The run never waits for an answer."""

from __future__ import annotations

from auditor.plan import Plan


class Progress:
    """Told of every event of a run; this one says nothing. Subclass and override what you want to show."""

    def planned(self, plan: Plan) -> None:
        """The plan is fixed."""

    def stage(self, text: str) -> None:
        """Something that takes a while begins."""

    def arm_started(self, arm: str, images: int, already: int) -> None:
        """An arm begins: ``images`` in all, ``already`` of them in the journal."""

    def step(self, arm: str, step: int, steps: int) -> None:
        """One training step of a probe."""

    def batch(self, arm: str, images: int, hits: int, judged: int) -> None:
        """A batch was drawn and scored: ``hits`` of ``judged`` images of erased concepts were detected in it."""

    def failed(self, where: str, message: str) -> None:
        """Something planned broke; the run goes on without it."""

    def finished(self) -> None:
        """Nothing is left to draw."""
