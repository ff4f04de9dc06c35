"""Tensors that say they lie on a GPU and hold their values, or their shapes alone, on the CPU.

What a GPU refuses is refused: two devices in one operation, a generator of the other device, ``.numpy()``.
What makes the CPU wait for a GPU is counted, by kind and line of code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tests.pretended_gpu.device import PretendedGpu

CPU, _META = torch.device("cpu"), torch.device("meta")
_empty_strided = torch.ops.aten.empty_strided.default
CURRENT: list[PretendedGpu] = []
"""The device that is pretended now, last; at most one in practice."""

_READS = {
    *("_local_scalar_dense", "equal", "nonzero", "is_nonzero", "masked_select"),
    *("unique", "unique_dim", "unique_consecutive", "_unique", "_unique2"),
}
"""Operations that give a number, or a shape, that the CPU must know."""
_NO_SCALARS = {
    *("cat", "stack", "mm", "bmm", "addmm", "baddbmm", "dot", "convolution"),
    *("index_select", "gather", "embedding", "_foreach_add_"),
}
"""Operations that do not take a number of the CPU's in a tensor without dimensions."""
_ANY_DEVICE = {"copy_", "_to_copy", "set_", "_has_compatible_shallow_copy_type", "lift_fresh"}
_NO_LAUNCH = {"_unsafe_view", "_reshape_alias", "empty", "empty_strided", "empty_like", "new_empty", "set_"}
"""Operations that start nothing on a GPU, beside views."""
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_NUMPY = (
    "can't convert {} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)
_TWO_DEVICES = "Expected all tensors to be on the same device, but found at least two devices, {} and {}!"


class OnGpu(torch.Tensor):
    """A tensor that says it lies on the GPU ``card``; ``held`` has its values."""

    held: torch.Tensor
    card: int

    @staticmethod
    def __new__(cls, held: torch.Tensor, card: int = 0) -> OnGpu:
        shape = _empty_strided(held.size(), held.stride(), dtype=held.dtype, device=_META)
        device = torch.device("cuda", card)
        return torch.Tensor._make_subclass(
            cls, shape, False, dispatch_device=True, device_for_backend_keys=device
        )

    def __init__(self, held: torch.Tensor, card: int = 0) -> None:
        self.held, self.card = held, card
        if CURRENT:
            CURRENT[-1].memory[card].hold(self)

    def __repr__(self) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype}, cuda:{self.card})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """As on a GPU: refused."""
        raise TypeError(_NUMPY.format(f"cuda:{self.card}"))

    def __deepcopy__(self, memo: dict[int, Any]) -> OnGpu:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user support the deepcopy protocol at the moment"
            )
        with torch.no_grad():
            new = OnGpu(self.held.clone(), self.card)
        new.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            new._is_param = True
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.held.__reduce_ex__(protocol)


@functools.cache
def _name_of(func: Any) -> str:
    return func._schema.name.split("::")[-1]


@functools.cache
def _launches(func: Any) -> bool:
    return not func.is_view and _name_of(func) not in _NO_LAUNCH


class Call:
    """One operation on the way to the dispatcher, and where it goes."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = _name_of(func)
        """The operation's name without its overload."""
        tensors = list(_tensors((*args, *kwargs.values())))
        self.ours = [each for each in tensors if isinstance(each, OnGpu)]
        """Arguments on a GPU."""
        self.plain = [each for each in tensors if not isinstance(each, OnGpu)]
        """Arguments on the CPU."""
        device = kwargs.get("device")
        self.wanted = None if device is None else torch.device(device)
        """The device that is asked for by name."""
        self.card = self._card()
        """The GPU that the result lies on; None: the CPU, or no memory at all."""

    def _card(self) -> int | None:
        if self.wanted is None:
            return self.ours[0].card if self.ours else None
        if self.wanted.type != "cuda":
            return None
        return self.wanted.index if self.wanted.index is not None else CURRENT[-1].current

    @property
    def launches(self) -> bool:
        """Does it start work on the GPU? Views do not."""
        return _launches(self.func)

    def put(self, change: Callable[[torch.Tensor], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with ``change`` made to each tensor."""
        args = tuple(_changed(each, change) for each in self.args)
        return args, {key: _changed(each, change) for key, each in self.kwargs.items()}


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for each in values:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _changed(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    return (
        type(value)([_changed(each, change) for each in value]) if isinstance(value, list | tuple) else value
    )


def dispatched(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives where a GPU is pretended."""
    if func is torch.ops.prim.device.default:
        return torch.device("cuda", args[0].card)
    call = Call(func, args, kwargs)
    if not call.ours and call.card is None:
        return func(*args, **_unpinned(kwargs))
    gpu = CURRENT[-1] if CURRENT else None
    if gpu is not None:
        gpu.see(call)
    _refuse_generator(call)
    if call.name == "_fused_sdp_choice":
        return 0  # attention by plain arithmetic; device.py puts its own in place of what is called by name
    if call.name in _INDEXING:
        _refuse_index(call)
    elif call.name not in _ANY_DEVICE:
        _refuse_devices(call)
    return _of_shapes(call) if gpu is not None and gpu.shapes else _of_values(call)


def _refuse_generator(call: Call) -> None:
    generator, to = call.kwargs.get("generator"), "cpu" if call.card is None else "cuda"
    if generator is not None and generator.device.type != to:
        raise RuntimeError(f"Expected a '{to}' device type for generator but found '{generator.device.type}'")


def _refuse_index(call: Call) -> None:
    if not isinstance(call.args[0], OnGpu) and call.ours:
        raise RuntimeError(
            "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
        )


def _refuse_devices(call: Call) -> None:
    """Two devices in one operation, but for a number of the CPU's that is read."""
    cards = sorted({each.card for each in call.ours})
    if len(cards) > 1:
        raise RuntimeError(_TWO_DEVICES.format(f"cuda:{cards[0]}", f"cuda:{cards[1]}") + f" ({call.func})")
    bad = [each for each in call.plain if call.ours and (each.dim() > 0 or call.name in _NO_SCALARS)]
    first = call.args[0] if call.args else None
    writes = call.name.endswith("_") and any(first is each for each in call.plain)
    if bad or (writes and call.ours):
        shape = tuple((bad or call.plain)[0].shape)
        raise RuntimeError(_TWO_DEVICES.format(f"cuda:{call.card}", "cpu") + f" ({call.func}, {shape})")


def _of_shapes(call: Call) -> Any:
    """The result's shape; what the CPU reads of it is made up: 1.0, True, 0, and "not equal"."""
    first, name = call.args[0] if call.args else None, call.name
    if name == "_local_scalar_dense":
        return 1.0 if first.dtype.is_floating_point else True if first.dtype is torch.bool else 0
    if name in ("equal", "is_nonzero"):
        return False
    if name == "nonzero":
        return OnGpu(torch.empty((1, first.dim()), dtype=torch.int64, device="meta"), first.card)
    if name == "copy_" and not isinstance(first, OnGpu):
        return first
    if call.card is None and call.wanted is not None and call.wanted.type == "meta":
        return _of_values(call)
    if call.card is None:
        found = torch.zeros(first.shape, dtype=call.kwargs.get("dtype") or first.dtype)
        return CURRENT[-1].pinned.mark(found) if call.kwargs.get("non_blocking") else found
    without = ("device", "non_blocking", "pin_memory", "generator")

    def held(value: torch.Tensor) -> torch.Tensor:
        return value.held if isinstance(value, OnGpu) else torch.empty_like(value, device="meta")

    args, kwargs = call.put(held)
    kwargs = {key: value for key, value in kwargs.items() if key not in without}
    if name != "_to_copy" and call.wanted is not None:
        kwargs["device"] = _META
    return _on_card(call, call.func(*args, **kwargs))


def _of_values(call: Call) -> Any:
    """The result, computed on the CPU."""
    args, kwargs = call.put(lambda value: value.held if isinstance(value, OnGpu) else value)
    kwargs = _unpinned(kwargs)
    if call.wanted is not None and call.wanted.type == "cuda":
        kwargs = kwargs | {"device": CPU}
    found = call.func(*args, **kwargs)
    if call.name == "_to_copy":
        if found is args[0]:
            found = found.clone()
        if call.card is None and call.kwargs.get("non_blocking") and CURRENT:
            return CURRENT[-1].pinned.mark(found)
    return found if call.card is None else _on_card(call, found)


def _on_card(call: Call, found: Any) -> Any:
    known = {id(each.held): each for each in call.ours}

    def wrapped(value: torch.Tensor) -> torch.Tensor:
        if isinstance(value, OnGpu):
            return value
        return known[id(value)] if id(value) in known else OnGpu(value, call.card or 0)

    return _changed(found, wrapped)


def _unpinned(kwargs: dict[str, Any]) -> dict[str, Any]:
    return kwargs | {"pin_memory": False} if kwargs.get("pin_memory") else kwargs


def waits_of(call: Call, pinned: Any) -> list[str]:
    """What of an operation makes the CPU wait for the GPU, by kind."""
    name, found = call.name, []
    if name in _READS and call.ours:
        found.append(name)
    elif name in ("_to_copy", "copy_"):
        found += _waits_of_copy(call, pinned)
    elif name in _INDEXING and isinstance(call.args[0], OnGpu):
        indices = [each for each in call.args[1] if each is not None]
        found += ["index from the cpu" for each in indices if not isinstance(each, OnGpu)]
        found += ["index by a mask" for each in indices if each.dtype in (torch.bool, torch.uint8)]
    return found


def _waits_of_copy(call: Call, pinned: Any) -> list[str]:
    """Between memory of the CPU and of a GPU; a copy that blocks nobody starts or ends in pinned memory."""
    if call.name == "_to_copy":
        source, to_gpu, free = call.args[0], call.card is not None, call.kwargs.get("non_blocking", False)
        host = source
    else:
        target, source = call.args[0], call.args[1]
        to_gpu = isinstance(target, OnGpu)
        free = (call.args[2] if len(call.args) > 2 else False) or call.kwargs.get("non_blocking", False)
        host = source if to_gpu else target
    if isinstance(source, OnGpu) == to_gpu or (not to_gpu and source.numel() == 0):
        return []
    if free and (host in pinned or (call.name == "_to_copy" and not to_gpu)):
        return []
    kind = "cpu to gpu" if to_gpu else "gpu to cpu"
    return [f"{kind}, from pageable memory" if free else kind]
