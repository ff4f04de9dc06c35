"""Functions of torch that are answered before C++ would ask a driver: devices by name, attention,
elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tests.pretended_gpu.tensor import CURRENT, OnGpu

if TYPE_CHECKING:
    from tests.pretended_gpu.device import PretendedGpu


class Names(TorchFunctionMode):
    """Answers what C++ would ask a driver for: devices without a number, attention, single elements."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = CURRENT[-1], dict(kwargs or {})
        if "device" in kwargs or func in (torch.Tensor.to, torch.Tensor.cuda):
            args = tuple(_named(each, gpu.current) for each in args)
            kwargs = {key: _named(each, gpu.current) for key, each in kwargs.items()}
        if func is torch.Tensor.pin_memory:
            return args[0] if args[0] in gpu.pinned else gpu.pinned.mark(args[0].clone())
        if func is torch.Tensor.is_pinned:
            return not isinstance(args[0], OnGpu) and args[0] in gpu.pinned
        if kwargs.pop("pin_memory", False):
            return gpu.pinned.mark(func(*args, **kwargs))
        device = kwargs.get("device")
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and isinstance(device, torch.device) and device.type == "cuda":
            del kwargs["device"]
            return func(*args, **kwargs).to(device)
        if func is functional.scaled_dot_product_attention and isinstance(args[0], OnGpu):
            return gpu.attended(func, *args, **kwargs)
        if args and isinstance(args[0], OnGpu) and func in _ELEMENTS:
            return _ELEMENTS[func](gpu, func, args, kwargs)
        return func(*args, **kwargs)


def _named(value: Any, current: int) -> Any:
    """A device without a number is the current one."""
    bare = isinstance(value, torch.device) and value.type == "cuda" and value.index is None
    if bare or (isinstance(value, str) and value == "cuda"):
        return torch.device("cuda", current)
    return torch.device(value) if isinstance(value, str) and value.startswith("cuda:") else value


def _set_item(gpu: PretendedGpu, func: Any, args: Any, kwargs: Any) -> None:
    """``tensor[index] = value`` where nothing is differentiated: C++ would make numbers on the device."""
    tensor, index, value = args
    if isinstance(value, torch.Tensor) and value.dim() and not isinstance(value, OnGpu):
        raise RuntimeError(
            "Expected all tensors to be on the same device: a value of the cpu's is put into cuda:0"
        )
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(each, list) for each in parts):
        gpu.wait("index from the cpu")
    if any(isinstance(each, torch.Tensor) and each.dtype is torch.bool for each in parts):
        gpu.wait("index by a mask")
    own = tuple(each.held if isinstance(each, OnGpu) else each for each in parts)
    held = value.held if isinstance(value, OnGpu) else value
    tensor.held[own if isinstance(index, tuple) else own[0]] = held


def _get_item(gpu: PretendedGpu, func: Any, args: Any, kwargs: Any) -> Any:
    tensor, index = args
    if isinstance(index, list) and all(isinstance(each, int) for each in index):
        index = torch.tensor(index)
    return func(tensor, index)


def _new_tensor(gpu: PretendedGpu, func: Any, args: Any, kwargs: Any) -> Any:
    tensor, *rest = args
    made = torch.tensor(*rest, dtype=kwargs.get("dtype") or tensor.dtype)
    return made.to(torch.device("cuda", tensor.card))


def _to_list(gpu: PretendedGpu, func: Any, args: Any, kwargs: Any) -> Any:
    gpu.wait("tolist")
    held = args[0].held
    return (torch.zeros(held.shape, dtype=held.dtype) if held.is_meta else held).tolist()


def _numpy(gpu: PretendedGpu, func: Any, args: Any, kwargs: Any) -> Any:
    return args[0].numpy()


_ELEMENTS: dict[Any, Callable[[PretendedGpu, Any, Any, Any], Any]] = {
    torch.Tensor.__setitem__: _set_item,
    torch.Tensor.__getitem__: _get_item,
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.tolist: _to_list,
    torch.Tensor.numpy: _numpy,
}


def plain_attention(query: Any, key: Any, value: Any, given: dict[str, Any]) -> Any:
    """The formula, by values."""
    weight = query @ key.transpose(-2, -1) * (given["scale"] or query.shape[-1] ** -0.5)
    mask = given["attn_mask"]
    if given["is_causal"]:
        ahead = torch.full(weight.shape[-2:], float("-inf"), device=query.device).triu(1)
        weight = weight + ahead.to(weight.dtype)
    if mask is not None:
        weight = weight.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else weight + mask
    return weight.float().softmax(-1).to(value.dtype) @ value
