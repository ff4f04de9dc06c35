"""Which CLIP: the options that every plugin with one shares. Apart from
:mod:`auditor.builtins.clip.model`, which takes open_clip seconds to load."""

from __future__ import annotations

from pathlib import Path

from auditor.plugin.contracts import OptionsModel

FOLDER = "local-dir:"


class ClipOptions(OptionsModel):
    """Which CLIP."""

    model: str = "ViT-B-32"
    """``micro``, ``local-dir:PATH`` or a name that open_clip knows."""
    pretrained: str | None = None
    """Tag or file of open_clip's weights."""

    def clip_files(self) -> tuple[Path, ...]:
        """The user's files and folders that it is loaded from."""
        named = [self.model.removeprefix(FOLDER)] if self.model.startswith(FOLDER) else []
        return tuple(
            path
            for path in map(Path, [*named, *([self.pretrained] if self.pretrained else [])])
            if path.exists()
        )
