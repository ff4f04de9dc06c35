"""Masks that need no further model: from the attention that was recorded while the image was drawn, or
none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.plugin.contracts import MaskRequest, MaskSource

if TYPE_CHECKING:
    from torch import Tensor


class AttentionMasks(MaskSource):
    """The concept is where its tokens drew more than their mean attention."""

    name = "attention"
    summary = "where the concept's tokens drew more cross-attention than on average"

    def masks(self, request: MaskRequest) -> Tensor:
        """Above the mean of each image."""
        return (request.attention > request.attention.mean(dim=(1, 2), keepdim=True)).float()


class WholeImage(MaskSource):
    """No mask: everything belongs to the concept, as with styles."""

    name = "none"
    summary = "the whole image, for styles"

    def masks(self, request: MaskRequest) -> Tensor:
        """Ones."""
        import torch

        return torch.ones_like(request.attention)
