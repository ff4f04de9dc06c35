"""What decides how torch computes in this process: generators, modes, hooks. Each is read, and put back.

torch is an argument everywhere: nothing here imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

_HOOKS = (
    "forward",
    "forward_pre",
    "backward",
    "backward_pre",
    "buffer_registration",
    "module_registration",
    "parameter_registration",
)
_FLAGS = (
    ("cudnn", "enabled"),
    ("cudnn", "benchmark"),
    ("cudnn", "deterministic"),
    ("mkldnn", "enabled"),
    ("cuda.matmul", "allow_fp16_reduced_precision_reduction"),
    ("cuda.matmul", "allow_bf16_reduced_precision_reduction"),
)
_PRECISIONS: tuple[str, ...] = ("", "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn", "mkldnn")
_PRECISIONS += ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")
"""Under ``torch.backends``: what has a ``fp32_precision``, TF32 or not."""
_ATTENTION = ("flash_sdp", "math_sdp", "mem_efficient_sdp", "cudnn_sdp")
_DEVICES = ("cpu", "cuda")
_DEVICE = "torch.utils._device"  # loaded when it is first needed
_guards: list[Any] = []
"""What undoes an inference mode that was entered and never left."""


def generators(torch: Any) -> tuple[Any, Any]:
    """The states of its global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def put_generators(torch: Any, before: tuple[Any, Any]) -> None:
    """Put :func:`generators` back."""
    torch.set_rng_state(before[0])
    if before[1] is not None:
        torch.cuda.set_rng_state_all(before[1])


def hooks(torch: Any) -> list[dict[Any, Any]]:
    """Its tables of hooks that are called for every module of the process."""
    return [dict(table) for table in _tables(torch)]


def put_hooks(torch: Any, before: list[dict[Any, Any]]) -> None:
    """Put :func:`hooks` back."""
    for table, kept in zip(_tables(torch), before, strict=True):
        if table != kept:
            table.clear()
            table.update(kept)


def _tables(torch: Any) -> list[dict[Any, Any]]:
    module = torch.nn.modules.module
    return [found for name in _HOOKS if (found := getattr(module, f"_global_{name}_hooks", None)) is not None]


def modes(torch: Any) -> dict[str, Any]:
    """Every mode by name."""
    return {
        "inference": torch.is_inference_mode_enabled(),
        "grad": torch.is_grad_enabled(),
        "anomalies": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "dtype": torch.get_default_dtype(),
        "device": _device(torch),
        "threads": torch.get_num_threads(),
        "precision": _precision(torch),
        "exact": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES],
        "flags": [getattr(_backend(torch, module), flag, None) for module, flag in _FLAGS],
        "attention": [getattr(torch.backends.cuda, f"{kind}_enabled")() for kind in _ATTENTION],
        "tiny numbers": sys.float_info.min / 2 > 0,
    }


def put_modes(torch: Any, before: dict[str, Any]) -> None:
    """Put back the :func:`modes` that differ."""
    put: dict[str, Callable[[Any], object]] = {
        "inference": lambda on: _put_inference(torch, on),
        "grad": torch.set_grad_enabled,
        "anomalies": lambda on: torch.autograd.set_detect_anomaly(*on),
        "dtype": torch.set_default_dtype,
        "device": lambda entered: _put_device(torch, *entered),
        "threads": torch.set_num_threads,
        "precision": lambda values: _put_precision(torch, *values),
        "exact": lambda on: torch.use_deterministic_algorithms(on[0], warn_only=on[1]),
        "autocast": lambda on: _put_autocast(torch, on),
        "flags": lambda values: _put_flags(torch, values),
        "attention": lambda on: _put_attention(torch, on),
        "tiny numbers": lambda on: torch.set_flush_denormal(not on),
    }
    with ExitStack() as stack:
        for name, value in modes(torch).items():
            if value != before[name]:
                stack.callback(put[name], before[name])


def _device(torch: Any) -> tuple[list[Any], Any, Any]:
    """What stands on the stack of modes for every function of torch (``with torch.device(...)`` is one),
    which of them is the default device, and its name."""
    stack = [torch._C._get_function_stack_at(n) for n in range(torch._C._len_torch_function_stack())]
    default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return stack, default, getattr(sys.modules.get(_DEVICE), "CURRENT_DEVICE", None)


def _put_device(torch: Any, entered: Sequence[Any], default: Any, name: Any) -> None:
    for _ in range(torch._C._len_torch_function_stack()):
        torch._C._pop_torch_function_stack()
    for mode in entered:
        torch._C._push_on_torch_function_stack(mode)
    torch._GLOBAL_DEVICE_CONTEXT.device_context = default
    if _DEVICE in sys.modules:
        vars(sys.modules[_DEVICE])["CURRENT_DEVICE"] = name


def _put_inference(torch: Any, on: bool) -> None:
    _guards.append(torch.inference_mode(on))
    _guards[-1].__enter__()


def _put_autocast(torch: Any, before: Sequence[tuple[bool, Any]]) -> None:
    for device, (on, dtype) in zip(_DEVICES, before, strict=True):
        torch.set_autocast_enabled(device, on)
        torch.set_autocast_dtype(device, dtype)


def _put_flags(torch: Any, values: Sequence[Any]) -> None:
    for (module, flag), value in zip(_FLAGS, values, strict=True):
        if value is not None:
            setattr(_backend(torch, module), flag, value)


def _backend(torch: Any, name: str) -> Any:
    """``torch.backends``, or what is called ``name`` under it; None where this torch has none."""
    found = torch.backends
    for part in filter(None, name.split(".")):
        found = getattr(found, part, None)
    return found


def _precision(torch: Any) -> tuple[Any, Any, list[Any]]:
    """How float32 is multiplied and convolved, by torch's older switches and by its newer ones.

    An older one cannot be asked once its newer one says something that it has no word for: None.
    """

    def asked(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError:
            return None

    products = asked(torch.get_float32_matmul_precision)
    convolutions = asked(lambda: torch.backends.cudnn.allow_tf32)
    newer = [getattr(_backend(torch, name), "fp32_precision", None) for name in _PRECISIONS]
    return products, convolutions, newer


def _put_precision(torch: Any, products: Any, convolutions: Any, newer: Sequence[Any]) -> None:
    """The older switches first: each of them sets newer ones."""
    if products is not None:
        torch.set_float32_matmul_precision(products)
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions
    for name, value in zip(_PRECISIONS, newer, strict=True):
        if value is not None:
            _backend(torch, name).fp32_precision = value


def _put_attention(torch: Any, on: Sequence[bool]) -> None:
    for kind, value in zip(_ATTENTION, on, strict=True):
        getattr(torch.backends.cuda, f"enable_{kind}")(value)
