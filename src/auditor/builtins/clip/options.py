"""Which CLIP: the options that every plugin with one shares. Apart from
:mod:`auditor.builtins.clip.model`, which takes open_clip seconds to load."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from auditor.plugin.contracts import OptionsModel

FOLDER = "local-dir:"
QUICK = "-quickgelu"
"""How the names of open_clip's architectures with QuickGELU end."""


class ClipOptions(OptionsModel):
    """Which CLIP."""

    model: str = "ViT-B-32-quickgelu"
    """``micro``, ``local-dir:PATH`` or a name that open_clip knows."""
    pretrained: str | None = None
    """Tag or file of open_clip's weights."""

    @model_validator(mode="after")
    def _named_by_content(self) -> Self:
        """A repository may move, and brings settings of its own."""
        if self.model.startswith("hf-hub:"):
            raise ValueError(f"'{self.model}' is a repository; fetch it and name the folder, local-dir:PATH")
        return self

    @model_validator(mode="after")
    def _as_it_was_trained(self) -> Self:
        """OpenAI's weights were trained with QuickGELU; open_clip 3 builds the plain names without it."""
        if self.pretrained == "openai" and not self.model.endswith(QUICK):
            raise ValueError(
                f"the weights 'openai' were trained with QuickGELU, and open_clip builds '{self.model}' "
                f"without it; model: {self.model}{QUICK} is right"
            )
        return self

    def clip_files(self) -> tuple[Path, ...]:
        """The user's files and folders that it is loaded from."""
        named = [self.model.removeprefix(FOLDER)] if self.model.startswith(FOLDER) else []
        return tuple(
            path
            for path in map(Path, [*named, *([self.pretrained] if self.pretrained else [])])
            if path.exists()
        )
