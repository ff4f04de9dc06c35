"""What a file says of the prediction that its denoiser was trained for, in the several places where programs
write that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor._files.safetensors_header import Header
from auditor.errors import RefusedError
from auditor.families.stable_diffusion.components import PREDICTIONS

MARKERS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std")
"""Tensors without a place in any module, by which programs know how a model is to be drawn."""

_SAID = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
    "v_pred": "v_prediction",
    "velocity": "v_prediction",
}


def said_prediction(source: str, header: Header) -> str | None:
    """``epsilon`` or ``v_prediction``, as a file's marker tensors and metadata say it; None where they say
    nothing.

    Raises :class:`RefusedError` where they contradict one another, or say what is not drawn here.
    """
    said: dict[str, str] = {}
    names = {tensor.name for tensor in header.tensors}
    if edm := next((name for name in MARKERS if name.startswith("edm_") and name in names), None):
        raise RefusedError(f"{source} has the marker {edm}: it is drawn in a way (EDM) that is not audited.")
    if "v_pred" in names:
        said["the marker v_pred"] = "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type"):
        if text := header.metadata.get(key, "").strip():
            if text.lower() not in _SAID:
                raise RefusedError(
                    f"{source}: its {key} is {text[:40]!r}; known are {', '.join(PREDICTIONS)}."
                )
            said[key] = _SAID[text.lower()]
    if text := header.metadata.get("ss_v_parameterization", "").strip().lower():
        said["ss_v_parameterization"] = "v_prediction" if text in ("true", "1") else "epsilon"
    for key, end in (("modelspec.architecture", "-768-v"), ("ss_base_model_version", "_768_v")):
        if header.metadata.get(key, "").lower().split("/")[0].endswith(end):
            said[key] = "v_prediction"
    if len(set(said.values())) > 1:
        raise RefusedError(
            f"{source} contradicts itself: "
            f"{', '.join(f'{value} by {where}' for where, value in said.items())}."
        )
    return next(iter(said.values()), None)


def refuse_other_noise(source: str, header: Header, schedule: Mapping[str, Any], where: str) -> None:
    """Raise :class:`RefusedError` where a file is of a noise schedule that ends in pure noise and
    ``schedule``, which lies in ``where``, does not."""
    ends = header.metadata.get("ss_zero_terminal_snr", "").strip().lower() in ("true", "1")
    ends = ends or any(tensor.name == "ztsnr" for tensor in header.tensors)
    if ends and not schedule.get("rescale_betas_zero_snr"):
        raise RefusedError(
            f"{source} says that its noise schedule ends in pure noise (zero terminal SNR), and {where} has "
            "no rescale_betas_zero_snr; lay it over a base that has."
        )
