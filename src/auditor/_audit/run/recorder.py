"""What a run writes down as it goes: journal, tally, observers; and when it must end."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from auditor._audit.cells import Arm
from auditor._audit.evidence.counts import Tally
from auditor._audit.progress import Progress
from auditor._diffusion.memory import is_out_of_memory
from auditor._journal.file import Journal
from auditor._journal.lines import ArmLine, ErrorLine, Line, NoteLine, StartLine
from auditor._process.device import device_kind
from auditor._process.machine import threads_now
from auditor._process.watchdog import WATCHDOG
from auditor.errors import ENDINGS, AuditorError, Ending, RefusedError, said
from auditor.plugin._observers import Observers
from auditor.plugin.records import ArmReady

_LOG = logging.getLogger(__name__)


class Stop(Ending):
    """The run ends before everything is decided, as the policy says."""


class Deadline:
    """The policy's ``budget.minutes``, earlier calls of the same run counted."""

    def __init__(self, minutes: float | None, spent: float) -> None:
        self._minutes = minutes
        self._spent = spent
        self.begin()

    def begin(self) -> None:
        """The call's own time begins now."""
        self._began = time.monotonic()

    @property
    def since(self) -> float:
        """Seconds since this call began."""
        return time.monotonic() - self._began

    def check(self) -> None:
        """Raise :class:`Stop` where the minutes are spent."""
        if self._minutes is not None and self._spent + self.since > 60 * self._minutes:
            raise Stop(f"budget.minutes: {self._minutes:g} minutes were spent")


class Recorder:
    """Writes each line to the journal, counts it, and tells observers and progress of it."""

    def __init__(
        self,
        journal: Journal,
        tally: Tally,
        observers: Observers,
        progress: Progress,
        manifest: str,
        precision: str,
        *,
        resumed: bool,
    ) -> None:
        self.journal = journal
        self.tally = tally
        self.observers = observers
        self.progress = progress
        self._manifest = manifest
        self._resumed = resumed
        self.device = (device_kind(), precision)
        """What this process draws on."""
        self.started = False
        """Has this process written a line yet?"""
        self.current: str | None = None
        """The arm that is being made or drawn."""
        self.beside: str | None = None
        """``observers`` or ``metrics`` while they are called: no verdict rests on them."""

    def write(self, line: Line) -> None:
        """Append ``line`` to the journal and count it."""
        level = logging.WARNING if isinstance(line, ErrorLine) else logging.DEBUG
        if _LOG.isEnabledFor(level):
            _LOG.log(level, "journal: %s", _shown(line))
        if not self.started:
            self.start()
        self.journal.write(line)
        self.tally.add(line)

    @property
    def is_of_another_manifest(self) -> bool:
        """Did earlier processes write lines, the last of them under another manifest than this one's?"""
        return self._resumed and self.tally.manifest != self._manifest

    def start(self) -> None:
        """Say in the journal that what follows is this process's own."""
        self.started = True
        line = StartLine(
            manifest=self._manifest,
            device=self.device[0],
            threads=threads_now(),
            precision=self.device[1],
        )
        self.journal.write(line)
        self.tally.add(line)

    def arm(self, line: ArmLine) -> None:
        """An arm is ready."""
        self.write(line)
        self.tell("auditor_arm_ready", ArmReady(line.arm, line.weights, line.seconds))

    def tell(self, hook: str, record: object) -> None:
        """Tell observers, unless they were silenced."""
        self.beside = "observers"
        if "observers" not in self.tally.silenced:
            for problem in self.observers.tell(hook, record):
                self.write(NoteLine(text=problem))
        self.beside = None

    def time_out(self, sentence: str) -> None:
        """The last words of a process that waited in vain for a plugin, from the watchdog's thread."""
        _LOG.warning("%s", sentence)
        if self.beside is not None:
            self.journal.write(NoteLine(text=f"{sentence}.", silenced=self.beside))
        elif self.current is not None:
            self.journal.write(ErrorLine(arm=self.current, message=f"{sentence}.", timeout=WATCHDOG.patience))

    def timed_out(self, arm: Arm) -> bool:
        """Did a plugin let this arm wait in vain, no shorter than it would now?"""
        return self.tally.timed_out(arm.name, WATCHDOG.patience)

    @contextlib.contextmanager
    def breaking(self, arm: Arm) -> Iterator[None]:
        """What breaks an arm is recorded and keeps PASS out of reach; the others go on. A disk or a
        refusal ends the whole run."""
        outer, self.current = self.current, arm.name
        try:
            yield
        except (OSError, RefusedError, *ENDINGS):
            raise
        # a plugin, a panic in a library or a bug of ours: an arm that breaks must not end the others
        except BaseException as error:  # noqa: BLE001
            message = (
                said(error)
                if isinstance(error, AuditorError)
                else f"unexpected {type(error).__name__}: {said(error)}"
            )
            if is_out_of_memory(error):
                message = (
                    "Memory ran out, also for the smallest batch; lower sampler.size or the probe's rank, or "
                    "use a machine with more."
                )
            self.write(ErrorLine(arm=arm.name, message=message))
            self.progress.failed(arm.name, message)
        finally:
            self.current = outer


def _shown(line: Line) -> str:
    """A line for a log: what it is of, without its samples."""
    facts = line.model_dump(mode="json", exclude={"samples"}, exclude_defaults=True)
    return f"{line.kind} {facts}"
