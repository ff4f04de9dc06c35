"""How images are drawn: a part of policies, studies and erasers' options."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from auditor.policy.fields import Part, StrictModel, as_tuple


class Sampler(StrictModel):
    """How images are drawn."""

    scheduler: Literal["ddim", "dpm-solver++"] = "ddim"
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=1, le=50)
    size: int = Field(default=512, ge=8, le=2048)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the UNet computes in. ``auto``: bfloat16 where a GPU has it, float16 on an older GPU with tensor
    cores, else float32. Weights are trained, hashed and compared in float32."""
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    guidance_interval: Annotated[tuple[Part, Part], BeforeValidator(as_tuple)] = (0.0, 1.0)
    """The part of the way from noise (0) to image (1) on which guidance is applied (Kynkäänniemi et al.
    2024); outside of it the prediction of the prompt alone is followed, at half of the cost."""
    compile: bool = False
    """Draw with ``torch.compile``: needs a compiler, and about a minute at first."""

    @field_validator("guidance_interval")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("guidance_interval begins before it ends: [0.2, 0.8], for instance")
        return value

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.calls == self.steps:
            raise ValueError("guidance_interval holds no whole step: no image would be guided; widen it")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is left out keeps the digest, and so the images, of before."""
        found: dict[str, Any] = dump(self)
        if self.guidance_interval == (0.0, 1.0):
            found.pop("guidance_interval", None)
        if not self.compile:
            found.pop("compile", None)
        return found

    @property
    def calls(self) -> int:
        """Rows that the denoiser computes for one image: one a step, two where it is guided."""
        start, stop = (int(share * self.steps) for share in self.guidance_interval)
        return self.steps + stop - start
