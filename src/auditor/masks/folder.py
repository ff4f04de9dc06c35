"""Masks that were drawn by hand, or by another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from auditor.errors import UsageError
from auditor.plugin.contracts import MaskRequest, MaskSource, OptionsModel

if TYPE_CHECKING:
    from torch import Tensor


class FolderOptions(OptionsModel):
    """Where they lie."""

    folder: Path
    """Holds a folder for each concept, called as it is, with 00.png, 01.png, ...: white where the concept is."""


class FolderMasks(MaskSource):
    """One picture an image, from the user's folder."""

    name = "folder"
    summary = "pictures from a folder: white where the concept is"
    Options: ClassVar[type[OptionsModel]] = FolderOptions

    def fingerprint(self) -> str:
        """Of all pictures."""
        from auditor.digest import sha256_file, sha256_json

        root: Path = self.options.folder
        return sha256_json([[path.relative_to(root).as_posix(), sha256_file(path)] for path in sorted(root.rglob("*.png"))])

    def masks(self, request: MaskRequest) -> Tensor:
        """Each picture at the latents' size; above one half counts."""
        import numpy as np
        import torch
        from PIL import Image, UnidentifiedImageError

        height, width = request.attention.shape[1:]
        found = []
        for name in request.names:
            path = self.options.folder / request.concept.name / f"{name}.png"
            try:
                with Image.open(path) as picture:
                    grey = picture.convert("L").resize((width, height), Image.Resampling.BOX)
            except (OSError, UnidentifiedImageError) as error:
                raise UsageError(
                    f"The mask {path} cannot be read; keep_images=true and the masks 'none' write the images to draw it for."
                ) from error
            mask = torch.from_numpy(np.array(grey)) > 127
            if not bool(mask.any()):
                raise UsageError(f"The mask {path} is empty; paint the concept white in it.")
            found.append(mask.float())
        return torch.stack(found).to(request.attention.device)
