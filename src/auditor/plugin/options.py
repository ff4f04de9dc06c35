"""The base of every plugin's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from auditor._files.relative_paths import placed


class OptionsModel(BaseModel):
    """What a plugin can be told in the policy; unknown keys are errors. A string under a field documents
    it. Relative paths lead from the policy's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    _written: dict[Path, Path] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _placed(self) -> Self:
        for name, value in tuple(self):
            if isinstance(value, Path) and placed(value) != value:
                self.__dict__[name] = placed(value)
                self._written[placed(value)] = value
        return self

    @model_serializer(mode="wrap")
    def _as_it_was_written(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        for name, value in self:
            if name in found and isinstance(value, Path) and value in self._written:
                found[name] = str(self._written[value]) if info.mode == "json" else self._written[value]
        return found

    def written(self, path: Path) -> Path:
        """``path`` as the policy has it: what digests are made of is the same in every folder."""
        return self._written.get(path, path)
