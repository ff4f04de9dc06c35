"""The pretended device itself.

    with PretendedGpu() as gpu:
        model = load_model(...)     # goes to "cuda" by itself: torch says that there is one
        draw(model, ...)
    gpu.waits                       # what would have made the CPU wait for the GPU, by kind and line

``PretendedGpu(shapes=True)`` keeps shapes alone: models of any size fit, ``gpu.memory[0].peak`` counts the
bytes of live tensors and ``gpu.operations`` the launches. The process must be started with
:func:`tests.pretended_gpu.driver.environment`.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pretended_gpu import clock
from tests.pretended_gpu.driver import autograd_runs
from tests.pretended_gpu.functions import Names, plain_attention
from tests.pretended_gpu.tensor import CURRENT, Call, OnGpu, dispatched, waits_of

aten = torch.ops.aten
GIB = 2**30
H100 = 85 * 10**9
"""Bytes that torch counts on a card sold as 80 GB."""

NO_MEMORY: dict[str, BaseException] = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "engine": RuntimeError("GET was unable to find an engine to execute this computation"),
}
"""How torch and its libraries say that a GPU's memory ran out."""

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


class Memory:
    """The bytes of live tensors on one card. More than ``size`` raises ``torch.OutOfMemoryError``, where the
    card is to be so ``strict``."""

    def __init__(self, size: int, *, strict: bool) -> None:
        self.size, self._strict = size, strict
        self.bytes = self.peak = 0
        self._live: dict[int, tuple[int, int]] = {}

    def hold(self, tensor: OnGpu) -> None:
        """Count the memory behind ``tensor`` until the last of its views is gone."""
        storage = tensor.held.untyped_storage()
        key = storage._cdata
        views, size = self._live.get(key, (0, storage.nbytes()))
        if not views:
            if self._strict and self.bytes + size > self.size:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / GIB:.2f} GiB.")
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self._live[key] = views + 1, size
        weakref.finalize(tensor, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        views, size = self._live.pop(key)
        if views > 1:
            self._live[key] = views - 1, size
        else:
            self.bytes -= size

    def begin(self) -> int:
        """Forget the peak so far; the bytes that are live."""
        self.peak = self.bytes
        return self.bytes


class Pinned:
    """Which tensors of the CPU lie in pinned memory. They are kept alive, so that no other takes their
    place."""

    def __init__(self) -> None:
        self._kept: dict[int, torch.Tensor] = {}

    def mark(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``, pinned from here on."""
        self._kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._kept


class PretendedGpu(TorchDispatchMode):
    """While open torch says that there are GPUs, and what is sent to one is an :class:`OnGpu`.

    ``memory`` are bytes a card; ``capability`` is the first card's (7.5: no bfloat16 but by emulation).
    """

    def __init__(
        self,
        *,
        memory: int = H100,
        cards: int = 1,
        name: str = "Pretended GPU",
        capability: tuple[int, int] = (9, 0),
        shapes: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.capability, self.cards, self.shapes = name, capability, cards, shapes
        self.memory = [Memory(memory, strict=strict) for _ in range(cards)]
        self.current = 0
        self.waits: collections.Counter[tuple[str, str, str | None]] = collections.Counter()
        self.operations: collections.Counter[str] = collections.Counter()
        self.attention: collections.Counter[str] = collections.Counter()
        self.pinned = Pinned()
        self._breaks: dict[str, tuple[int, BaseException]] = {}
        self._stack = contextlib.ExitStack()

    # -- what a case asks of it ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def without_memory(self, operation: str, above: int, says: str = "torch") -> Iterator[None]:
        """While open ``operation`` on more than ``above`` rows raises what ``says`` (:data:`NO_MEMORY`)."""
        self._breaks[operation] = above, NO_MEMORY[says]
        try:
            yield
        finally:
            del self._breaks[operation]

    def waited(self, action: Callable[[], object]) -> int:
        """How often the CPU waits for the GPU in ``action``."""
        self.waits.clear()
        action()
        return self.waits.total()

    def peak_of(self, action: Callable[[], object]) -> int:
        """The most bytes that live on the first card in ``action``, beside those that lived before."""
        before = self.memory[0].begin()
        action()
        return self.memory[0].peak - before

    # -- what tensors tell it --------------------------------------------------------------------------------

    def see(self, call: Call) -> None:
        """Count an operation and its waits; raise where it is to break."""
        self.operations[call.name] += call.launches
        for kind in waits_of(call, self.pinned):
            self.wait(kind)
        if call.name in self._breaks:
            above, error = self._breaks[call.name]
            if call.args[0].shape[0] > above:
                raise error

    def wait(self, kind: str) -> None:
        """Count one wait, by the nearest lines of our code and of a library's."""
        self.waits[kind, *_lines()] += 1

    def attended(self, func: Any, query: Any, key: Any, value: Any, *more: Any, **named: Any) -> Any:
        """Scaled dot-product attention as torch chooses it: flash for narrow heads in half precision."""
        names = ("attn_mask", "dropout_p", "is_causal")
        given = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None}
        given |= dict(zip(names, more, strict=False)) | named
        if not self.shapes:
            return plain_attention(query, key, value, given)
        half, width = query.dtype in (torch.bfloat16, torch.float16), query.shape[-1]
        if half and width <= 256 and given["attn_mask"] is None:
            self.attention["flash"] += 1
            flash = aten._scaled_dot_product_flash_attention
            return flash(query, key, value, 0.0, given["is_causal"], False, scale=given["scale"])[0]
        self.attention[f"efficient, {query.dtype}, {width} wide"] += 1
        efficient, train = aten._scaled_dot_product_efficient_attention, torch.is_grad_enabled()
        return efficient(query, key, value, None, train, 0.0, given["is_causal"], scale=given["scale"])[0]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and being asked at every operation takes long

    # -- open and close --------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})

    def __enter__(self) -> PretendedGpu:
        stack = self._stack
        stack.enter_context(autograd_runs(self.cards, Names))
        for name, value in self._answers().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        future = torch.__future__
        stack.callback(
            future.set_overwrite_module_params_on_conversion,
            future.get_overwrite_module_params_on_conversion(),
        )
        future.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.callback(torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled())
        torch._C._set_cudnn_enabled(False)  # kernels are chosen by device, and the CPU has none of cuDNN's
        stack.enter_context(Names())
        CURRENT.append(self)
        stack.callback(CURRENT.pop)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def _answers(self) -> dict[str, Any]:
        """What ``torch.cuda`` says."""

        def of(device: Any = None) -> Memory:
            index = (
                None if device is None else device if isinstance(device, int) else torch.device(device).index
            )
            return self.memory[self.current if index is None else index]

        def properties(device: Any = None) -> types.SimpleNamespace:
            major, minor = self.capability
            return types.SimpleNamespace(
                name=self.name,
                total_memory=of(device).size,
                major=major,
                minor=minor,
                multi_processor_count=132,
            )

        @contextlib.contextmanager
        def device(which: Any) -> Iterator[None]:
            before = self.current
            self.current = torch.device("cuda", which).index if isinstance(which, int) else which.index or 0
            try:
                yield
            finally:
                self.current = before

        def set_device(which: Any) -> None:
            self.current = which if isinstance(which, int) else torch.device(which).index or 0

        has_bfloat16 = self.capability >= (8, 0)
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: False,
            "_lazy_init": lambda: None,
            "is_bf16_supported": lambda including_emulation=True: has_bfloat16 or including_emulation,
            "device_count": lambda: self.cards,
            "current_device": lambda: self.current,
            "set_device": set_device,
            "device": device,
            "get_device_name": lambda which=None: self.name,
            "get_device_properties": properties,
            "get_device_capability": lambda which=None: self.capability,
            "mem_get_info": lambda which=None: (of(which).size - of(which).bytes, of(which).size),
            "memory_allocated": lambda which=None: of(which).bytes,
            "max_memory_allocated": lambda which=None: of(which).peak,
            "memory_reserved": lambda which=None: of(which).bytes,
            "max_memory_reserved": lambda which=None: of(which).peak,
            "reset_peak_memory_stats": lambda which=None: of(which).begin() and None,
            "empty_cache": lambda: None,
            "manual_seed_all": lambda seed: None,
            "synchronize": lambda which=None: self.wait("synchronize"),
            **clock.answers(self.wait),
        }


@contextlib.contextmanager
def driver_too_old() -> Iterator[None]:
    """While open torch was built for CUDA, and the driver is too old for it: a warning, and no GPU."""
    import warnings

    def is_available() -> bool:
        warnings.warn(f"CUDA initialization: {TOO_OLD}", UserWarning, stacklevel=2)
        return False

    def refuse() -> None:
        raise RuntimeError(TOO_OLD)

    with (
        mock.patch.object(torch.cuda, "is_available", is_available),
        mock.patch.object(torch.cuda, "device_count", lambda: 0),
        mock.patch.object(torch.cuda, "_lazy_init", refuse),
    ):
        yield


def _lines() -> tuple[str, str | None]:
    """The nearest lines of our code and, below it, of a library's: ``auditor/…/esd.py:90``."""
    frame, library = sys._getframe(2), None
    while frame is not None:
        name = frame.f_code.co_filename
        if "/tests/pretended_gpu/" not in name and any(part in name for part in ("/src/auditor", "/tests/")):
            return f"{name.split('/src/')[-1].split('/tests/')[-1]}:{frame.f_lineno}", library
        if library is None and "site-packages" in name and "/torch/" not in name:
            library = f"{name.split('site-packages/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?", library
