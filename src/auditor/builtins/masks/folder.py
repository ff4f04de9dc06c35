"""Masks that were drawn by hand, or by another program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from auditor.errors import UsageError
from auditor.plugin.contracts import MaskRequest, MaskSource, OptionsModel
from auditor.policy import entry_called

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.policy import Concept


class FolderOptions(OptionsModel):
    """Where they lie."""

    folder: Path
    """Holds a folder for each concept, called as it is, with 00.png, 01.png, ...: white where the concept
    is."""


class FolderMasks(MaskSource):
    """One picture an image, from the user's folder."""

    name = "folder"
    summary = "pictures from a folder: white where the concept is"
    Options: ClassVar[type[OptionsModel]] = FolderOptions

    def check(self, concept: Concept, names: Sequence[str]) -> None:
        """Every picture must be there, and not empty."""
        for name in names:
            self._mask(concept, name, (64, 64))

    def fingerprint(self, concept: Concept) -> str:
        """Of the concept's pictures."""
        from auditor._files.digest import sha256_file, sha256_json

        return sha256_json(
            [[path.name, sha256_file(path)] for path in sorted(self._folder_of(concept).glob("*.png"))]
        )

    def masks(self, request: MaskRequest) -> Tensor:
        """Each picture at the latents' size; above one half counts."""
        import torch

        height, width = request.attention.shape[1:]
        return torch.stack([self._mask(request.concept, name, (width, height)) for name in request.names]).to(
            request.attention.device
        )

    def _mask(self, concept: Concept, name: str, size: tuple[int, int]) -> Tensor:
        import numpy as np
        import torch
        from PIL import Image

        from auditor._files.pictures import read_picture

        path = self._folder_of(concept) / f"{name}.png"
        if not path.exists():
            raise UsageError(
                f"The mask {path} cannot be read; keep_images=true and the masks 'none' write the images to "
                "draw it for."
            )
        picture = read_picture(f"The masks in {path.parent}", path, opaque=True)
        grey = picture.convert("L").resize(size, Image.Resampling.BOX)
        mask = torch.from_numpy(np.array(grey)) > 127
        if not bool(mask.any()):
            raise UsageError(f"The mask {path} is empty; paint the concept white in it.")
        return mask.float()

    def _folder_of(self, concept: Concept) -> Path:
        try:
            return entry_called(self.options.folder, concept.name)
        except ValueError as error:
            raise UsageError(f"{error}.") from error
