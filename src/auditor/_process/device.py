"""The device that models run on: one for the whole process, plugins too."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    import torch

VARIABLE = "AUDITOR_DEVICE"
"""Names the device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``; ``--device`` sets
it."""
_TRUE_SIZE = 200_000_000  # parameters of a checkpoint: an image of it takes a CPU minutes


def asked_device(given: str | None = None) -> str:
    """The device that is ``given``, or that :data:`VARIABLE` names. Raises :class:`UsageError` where that
    is none."""
    asked = (os.environ.get(VARIABLE, "") if given is None else given).strip().lower() or "auto"
    if asked not in ("auto", "cpu") and not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"The device '{asked}' is none; auto, cpu, cuda or cuda:NUMBER is right.")
    return asked


def best_device() -> torch.device:
    """Where models run. A GPU that is named becomes torch's current one, so that what asks for ``cuda`` gets
    it. Raises :class:`UsageError` where there is no such GPU."""
    import torch

    asked = asked_device()
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"There is no GPU to run on: {why_no_gpu()}.")
    _, _, number = asked.partition(":")
    if not number:
        return torch.device("cuda")
    there = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if int(number) >= len(there):
        names = ", ".join(f"cuda:{index} ({name})" for index, name in enumerate(there))
        raise UsageError(f"There is no GPU {asked}; there is {names}.")
    if int(number) != torch.cuda.current_device():
        torch.cuda.set_device(int(number))
    return torch.device("cuda", int(number))


def device_kind() -> str:
    """The kind of device that images are drawn on: a GPU's name, or the CPU's architecture.

    Images of two kinds differ in their last bits.
    """
    import torch

    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def device_memory() -> int | None:
    """Bytes of memory of the GPU that models run on; None on a CPU."""
    import torch

    device = best_device()
    return None if device.type == "cpu" else int(torch.cuda.get_device_properties(device).total_memory)


def device_said() -> str:
    """The device for people: its kind, and why it is no GPU where nobody asked for a CPU."""
    kind = device_kind()
    is_found = asked_device() == "cpu" or best_device().type != "cpu"
    return kind if is_found else f"{kind}; no GPU: {why_no_gpu()}"


def why_no_gpu() -> str:
    """Why torch finds no GPU, as it says itself: no driver, one that is too old, none to be seen."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch was built for CPUs alone"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        return f"{first} (torch was built for CUDA {torch.version.cuda})"
    return "torch finds none"


def refuse_true_size(source: str, parameters: int) -> None:
    """Raise :class:`UsageError` where a checkpoint of true size would run on a CPU and nobody asked for
    that."""
    if parameters < _TRUE_SIZE or asked_device() == "cpu" or best_device().type != "cpu":
        return
    raise UsageError(
        f"{source} has {parameters / 1e6:,.0f} M parameters, and there is no GPU ({why_no_gpu()}). On this "
        "CPU one image takes minutes and an audit days; '--device cpu' does it all the same."
    )
