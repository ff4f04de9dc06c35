"""How far an arm's images lie from the base's, as clouds of features: Fréchet and kernel distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.builtins.metrics.clip_score import ClipMetric
from auditor.plugin.contracts import ImageOutcome

if TYPE_CHECKING:
    from torch import Tensor


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Squared Fréchet distance of Gaussians fitted to rows (Dowson & Landau 1982; Heusel et al. 2017, Eq. 6),
    covariances over n - 1.

    The trace of the root of the product of both covariances is the nuclear norm of the product of the centred
    rows, so that the covariances, of rank n - 1 at most, are never formed: exact, and quick where there are
    fewer rows than columns.
    """
    centred = [
        (rows - rows.mean(axis=0)) / max(1, len(rows) - 1) ** 0.5
        for rows in (one.astype(float), two.astype(float))
    ]
    if min(len(one), len(two)) > one.shape[1]:
        centred = [np.linalg.qr(rows, mode="r") for rows in centred]
    means = float(np.square(one.mean(axis=0) - two.mean(axis=0)).sum())
    traces = sum(float(np.square(rows).sum()) for rows in centred)
    root = float(np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum())
    return means + traces - 2 * root


def kernel_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018), of rows that
    belong together in pairs.

    The U-statistic over pairs (Gretton et al. 2012, Eq. 4): a row meets neither itself nor its partner, which
    shares its prompt and noise. 0 for equal rows, and on average for equal laws. Raises ``ValueError`` where
    the numbers of rows differ or there are fewer than two.
    """
    if len(one) != len(two) or len(one) < 2:
        raise ValueError(f"{len(one)} and {len(two)} rows are no pairs")
    one, two = one.astype(float), two.astype(float)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found: np.ndarray = (a @ b.T / a.shape[1] + 1) ** 3
        return found

    terms = kernel(one, one) + kernel(two, two) - kernel(one, two) - kernel(one, two).T
    return float((terms.sum() - np.trace(terms)) / (len(one) * (len(one) - 1)))


class _ClipDistance(ClipMetric):
    """On open_clip's image features, unit vectors times the root of their length, so that a coordinate's
    variance is about 1."""

    higher_is_better = False
    resamples = 200

    def features(
        self, images: Tensor, prompts: Sequence[str], outcomes: Sequence[ImageOutcome] | None = None
    ) -> np.ndarray:
        """open_clip's image features."""
        from auditor.builtins.clip.model import load_clip

        found = load_clip(self.options.model, self.options.pretrained).image_features(images).double()
        rows: np.ndarray = (found * found.shape[1] ** 0.5).numpy()
        return rows


class ClipFrechet(_ClipDistance):
    """Needs no network of its own: a stand-in for FID where Inception's weights are not at hand."""

    name = "clip-frechet"
    summary = "Fréchet distance to the base's images of the same prompts, on open_clip features"
    source = (
        "Heusel et al. 2017, arXiv:1706.08500, on the features that Kynkäänniemi et al. 2023 "
        "(arXiv:2203.06026) propose"
    )

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The distance; comparable between equal numbers of images only, since it falls with their number."""
        return frechet_distance(features, reference)


class ClipKernel(_ClipDistance):
    """Over pairs of images of one prompt and noise: 0 where nothing changed, whatever their number."""

    name = "clip-kernel"
    summary = "kernel distance to the base's images of the same prompts, on open_clip features"
    source = "Binkowski et al. 2018, arXiv:1801.01401"

    def value(self, features: np.ndarray, reference: np.ndarray) -> float:
        """The distance; may lie a little below 0."""
        return kernel_distance(features, reference)
