"""Where the steps run, and how large: on a GPU at Stable Diffusion's true shape, or small, to try the
script."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from auditor._diffusion.model import DiffusionModel

SHAPE = "sd1"
GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """``kind`` is ``gpu``, ``pretended`` or ``cpu``; ``small`` takes the small world in place of random
    weights of true shape. Rows go to ``file`` at once; ``work`` is a folder for what is made on the way."""

    kind: str
    small: bool
    file: Path
    work: Path
    began: float = field(default_factory=time.monotonic)
    step: int = -1
    starts: str = "fork"
    """How the processes of steps are started (:mod:`multiprocessing`)."""

    @property
    def device(self) -> torch.device:
        """Where models lie."""
        import torch

        return torch.device("cpu") if self.kind == "cpu" else torch.device("cuda", 0)

    @property
    def pixels(self) -> int:
        """A side of an image."""
        return 32 if self.small else 512

    def few(self, many: int, small: int = 2) -> int:
        """``many``, or what is enough to try the script."""
        return small if self.small else many

    def model(self) -> DiffusionModel:
        """A model on the device."""
        if self.small:
            from auditor._checkpoint import open_checkpoint
            from auditor._checkpoint.load import load_model

            return load_model(open_checkpoint("micro"), device=self.device)
        from tests.gpu.models import random_model

        return random_model(SHAPE, self.device)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """What a step runs in: a pretended GPU, where one is; the small world under the name ``micro``."""
        from auditor._files import bundled
        from tests.nano import WEIGHTS

        if self.small:
            bundled._MICRO_WORLD = WEIGHTS
        if self.kind == "pretended":
            from tests.pretended_gpu.device import PretendedGpu

            with PretendedGpu():
                yield
        else:
            yield

    # -- measuring -------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.kind != "cpu":
            import torch

            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], object], times: int = 1) -> float:
        """Of one call, the device's work included; the mean of so many."""
        self.wait()
        began = time.perf_counter()
        for _ in range(times):
            action()
        self.wait()
        return (time.perf_counter() - began) / times

    def peak_gib(self, action: Callable[[], object]) -> float | None:
        """The most memory in ``action`` beside what was taken before; None on a CPU."""
        if self.kind == "cpu":
            action()
            return None
        import torch

        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / GIB

    def waits(self, action: Callable[[], object]) -> int | None:
        """How often ``action`` makes the CPU wait for the GPU; None on a CPU."""
        if self.kind == "cpu":
            action()
            return None
        if self.kind == "pretended":
            from tests.pretended_gpu.tensor import CURRENT

            return CURRENT[-1].waited(action)
        import warnings

        import torch

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                action()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(each.message) for each in seen)

    def profiled(self, action: Callable[[], object]) -> tuple[dict[str, int], float] | None:
        """(the kernels of ``action`` by name, seconds that the GPU was busy); None where there is none."""
        if self.kind != "gpu":
            action()
            return None
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile

        self.wait()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
            action()
            self.wait()
        kernels: dict[str, int] = {}
        busy = 0.0
        for event in found.events():
            if event.device_type == DeviceType.CUDA:
                kernels[event.name] = kernels.get(event.name, 0) + 1
                busy += event.time_range.elapsed_us() / 1e6
        return kernels, busy

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, what: str, found: Any, expected: str | None = None, good: bool | None = None) -> None:
        """One row, at once: what was measured, what was found, what was expected (of a GPU at true shape),
        and whether it is so (None: nobody can say)."""
        row: dict[str, Any] = {"step": self.step, "what": what, "found": _short(found)}
        if expected is not None:
            row |= {"expected": expected}
        if good is not None:
            row |= {"as_expected": bool(good)}
        row["at"] = round(time.monotonic() - self.began, 1)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(said(row), flush=True)

    def within(self, what: str, found: float | None, low: float, high: float, unit: str = "") -> None:
        """A row whose number is expected between two; on another setting than a GPU at true shape nobody can
        say."""
        real = self.kind == "gpu" and not self.small and found is not None
        good = low <= found <= high if real and found is not None else None
        self.write(what, found, f"{low:g} to {high:g} {unit}".strip(), good)


def said(row: dict[str, Any]) -> str:
    """A row for people."""
    mark = {True: "  ", False: "! ", None: "  "}[row.get("as_expected")]
    expected = f"   (expected: {row['expected']})" if "expected" in row else ""
    return f"{mark}{row['step']:>2} {row['what']}: {row['found']}{expected}"


def _short(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {str(key): _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value
