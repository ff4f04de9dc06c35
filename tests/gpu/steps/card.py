"""Step 0: the card, its software, and what auditor chooses on it."""

from __future__ import annotations

import os
import subprocess

from tests.gpu.setting import GIB, Setting


def run(setting: Setting) -> None:
    """A GPU that torch cannot use ends the whole script."""
    import torch

    if setting.kind != "cpu" and not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU that it can use: nvidia-smi "
            "says whether there is one, and whether its driver is as new as that CUDA needs."
        )
    _describe(setting)
    _choices(setting)
    side = setting.few(8192, 64)
    one = torch.randn(side, side, device=setting.device, dtype=torch.bfloat16)
    setting.seconds(lambda: one @ one, 3)
    rate = 2 * side**3 / setting.seconds(lambda: one @ one, setting.few(10)) / 1e12
    setting.within(f"TFLOP/s of a bfloat16 product, {side} x {side}", rate, 700, 820, "on an H100 or H200")


def _describe(setting: Setting) -> None:
    import torch

    from auditor._process.device import device_kind
    from auditor._process.machine import versions

    setting.write("device", device_kind())
    setting.write("cores", os.cpu_count())
    setting.write("versions", versions() | {"cuda": torch.version.cuda})
    if setting.kind == "cpu":
        return
    setting.write("cuDNN", torch.backends.cudnn.version())
    setting.write("driver", _driver())
    free, whole = torch.cuda.mem_get_info()
    setting.write(
        "memory, GiB free and whole", [free / GIB, whole / GIB], "nearly all of it free", free > whole / 2
    )
    setting.write("capability", torch.cuda.get_device_capability())
    setting.write(
        "TF32 in convolutions and in products",
        [torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()],
        "True, highest",
        torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest",
    )
    setting.write(
        "cudnn.benchmark", torch.backends.cudnn.benchmark, "False", not torch.backends.cudnn.benchmark
    )


def _choices(setting: Setting) -> None:
    """What auditor takes here by itself."""
    import torch

    from auditor._checkpoint.load import best_device, precision_of

    setting.write("device that models go to", str(best_device()), "cuda")
    new = setting.kind == "gpu" and torch.cuda.get_device_capability() >= (8, 0)
    chosen = precision_of("auto", setting.device)
    setting.write(
        "precision that is drawn in",
        str(chosen),
        "torch.bfloat16 from capability 8.0 on",
        (chosen is torch.bfloat16) == new if setting.kind == "gpu" else None,
    )


def _driver() -> str:
    line = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {error}"
    return done.stdout.strip() or done.stderr.strip()
