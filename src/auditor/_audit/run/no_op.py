"""The control ``sham``: what a probe's machinery does at learning rate 0 must change no image."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from auditor._audit.cells import ERASED
from auditor._audit.run.drawing import Drawing
from auditor._audit.run.probing import allowed_changes, doses_of, of_the_base
from auditor._audit.run.recorder import Recorder
from auditor._audit.run.second_look import Recheck
from auditor._audit.run.training_set import TrainingSet
from auditor._audit.run_folder.arms import digest_of_arm, rebuilt
from auditor._diffusion.model import DiffusionModel
from auditor._diffusion.original import Original
from auditor._journal.lines import ShamLine
from auditor.errors import PluginError
from auditor.plugin import _door as door
from auditor.plugin.contracts import Update, WeightProbe
from auditor.policy import ProbeUse

NO_OP_STEPS = 2


class NoOpControl:
    """Draws a batch of the erased arm again with what training at learning rate 0 made of it."""

    def __init__(
        self,
        original: Original,
        erased: DiffusionModel,
        drawing: Drawing,
        record: Recorder,
        recheck: Callable[[], Recheck],
    ) -> None:
        self._original, self._erased, self._drawing = original, erased, drawing
        self._record, self._recheck = record, recheck

    def is_due(self, name: str) -> bool:
        """Has the probe ``name`` none yet, and is there a batch to draw again?"""
        batch = self._drawing.smallest_batch(ERASED, self._erased)
        return name not in self._record.tally.shams and batch is not None

    def alone(
        self,
        probe: WeightProbe,
        use: ProbeUse,
        name: str,
        training: TrainingSet,
        signs: Callable[[int], Callable[[int], None]],
    ) -> None:
        """Of a probe that is trained by itself. ``signs`` gives the ``on_step`` for a number of steps."""
        if not probe.has_sham:
            if name not in self._record.tally.shams:
                self._record.write(ShamLine(probe=name, images=0, different=0, applicable=False))
            return
        began, ended, who = time.monotonic(), False, door.title(probe)
        self._record.progress.stage(f"no-op control of {name}")
        model, doses = self._original.fresh(), (NO_OP_STEPS,)
        images, captions = training.images.clone(), training.captions
        base = self._drawing.base
        others = [self._erased] if base is None else [self._erased, base]
        update = Update(
            model,
            images,
            captions,
            use.method,
            doses,
            0,
            sham=True,
            on_step=signs(NO_OP_STEPS),
            **of_the_base(probe, base),
        )
        with closing(door.iterate(probe, door.call(probe, probe.update, update))) as steps:
            for dose in doses_of(steps, model, use.method, others):
                if dose != NO_OP_STEPS or ended:
                    raise PluginError(
                        f"{who} reached {dose} training steps in its no-op control; {NO_OP_STEPS} are right."
                    )
                self.compare(probe, use, name, model, began)
                ended = True
        if not ended:
            raise PluginError(f"{who} never ended its no-op control.")

    def compare(
        self, probe: WeightProbe, use: ProbeUse, name: str, model: DiffusionModel, began: float
    ) -> None:
        """Write down how many images of the batch are not the same, bit for bit, drawn from ``model``.

        ``began``: when making it did (``time.monotonic``).
        """
        batch = self._drawing.smallest_batch(ERASED, self._erased)
        who, allowed = door.title(probe), allowed_changes(probe, use)
        change = self._original.change(model, allowed, who, may_be_nothing=True)
        fresh = rebuilt(self._original, model, change, digest_of_arm(model, self._original))
        drawn, different = self._recheck().different(fresh, batch)
        seconds = time.monotonic() - began
        self._record.write(ShamLine(probe=name, images=drawn, different=different, seconds=seconds))
