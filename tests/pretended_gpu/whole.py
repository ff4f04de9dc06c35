"""Whole erasures and audits on a pretended GPU: what ends in an error, or is not as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.gpu.walks import SAMPLER, TRAIN, audit_and_replay, erase_with, errors_of, small_policy
from tests.nano import nano_erased
from tests.pretended_gpu.device import PretendedGpu

Found = dict[str, Any]


def esd(folder: Path) -> Found:
    """Erase by ESD."""
    with PretendedGpu():
        return {"erased": erase_with("esd", folder).is_dir(), "errors": []}


def mace(folder: Path) -> Found:
    """Erase by MACE."""
    with PretendedGpu():
        return {"erased": erase_with("mace", folder).is_dir(), "errors": []}


def uce(folder: Path) -> Found:
    """Erase by UCE."""
    with PretendedGpu():
        return {"erased": erase_with("uce", folder).is_dir(), "errors": []}


def audited(folder: Path) -> Found:
    """An audit with trained probes, and its replay."""
    with PretendedGpu() as gpu:
        return audit_and_replay(_erased(folder), folder) | {"expected device": gpu.name}


def updates(folder: Path) -> Found:
    """An audit with every probe of auditor-updates."""
    import auditor

    with PretendedGpu():
        policy = small_policy(probes=_updates(folder), erase=[_ERASED], metrics=[])
        auditor.audit(str(_erased(folder)), policy, folder / "run", cache=folder / "cache")
    return {"errors": errors_of(folder / "run")}


_ERASED = {
    "name": "Borin Talvek",
    "domain": "people",
    "mapping": "a person",
    "prompts": ["a sticker of {}", "a photo of {}"],
}


def _updates(folder: Path) -> list[dict[str, Any]]:
    return [
        *({"use": "quantisation", "options": {"to": kind}} for kind in ("int8", "bfloat16")),
        {"use": "weight-noise", "options": {"scale": 0.05}},
        {"use": "merge-lora", "options": _lora(folder)},
        {
            "use": "textual-inversion",
            "doses": [2],
            "options": {
                "token": "sticker",
                "candidates": "micro-people",
                "names": 2,
                "prompts": ["a sticker of {}"],
                "images_per_prompt": 2,
                "batch": 2,
            },
        },
        {
            "use": "sequence",
            "doses": [2],
            "options": {
                "updates": [
                    {"use": "in-domain", "steps": 2, "options": TRAIN},
                    {"use": "in-domain", "method": "full", "steps": 2, "options": TRAIN},
                ]
            },
        },
    ]


def _lora(folder: Path) -> dict[str, Any]:
    """A LoRA on one projection, as a file."""
    import hashlib

    import torch
    from safetensors.torch import save_file

    from auditor._files.bundled import micro_world
    from auditor._files.safetensors_header import read_header

    shapes = read_header(micro_world() / "unet" / "diffusion_pytorch_model.safetensors").shapes
    name, (out, width) = next((n, s) for n, s in sorted(shapes.items()) if n.endswith("attn2.to_q.weight"))
    stem, file = f"unet.{name.removesuffix('.weight')}", folder / "lora.safetensors"
    down, up = torch.ones(2, width) * 0.1, torch.ones(out, 2) * 0.1
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, file)
    return {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def scarce(folder: Path) -> Found:
    """An audit on a card on which no convolution takes more than four rows at once."""
    import auditor

    policy = small_policy(sampler=SAMPLER | {"batch": 12})
    with PretendedGpu() as gpu, gpu.without_memory("convolution", above=4):
        auditor.audit(str(_erased(folder)), policy, folder / "run", cache=folder / "cache")
    return {"errors": errors_of(folder / "run")}


def _erased(folder: Path) -> Path:
    return nano_erased(folder / "erased")


CASES = (esd, mace, uce, audited, updates, scarce)
