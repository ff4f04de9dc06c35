"""The Gram matrix of what must be preserved: computed once for a text encoder and its captions, and kept
(Lu et al. 2024, Eq. 2 and 7)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from auditor._diffusion.closed_form import gram
from auditor._diffusion.model import DiffusionModel, digest_of_weights
from auditor._files.digest import sha256_json
from auditor._files.whole_files import on_disk, write_whole
from auditor.errors import UsageError

REFERENCE_ROWS = 47_491_059
"""Rows of the reference's prior Gram matrix (616,767 captions x 77 positions), which lambda1 and lambda2
are scaled to."""

_BATCH = 64
_FORMAT = "auditor prior 1"


@dataclass(frozen=True)
class CaptionGram:
    """Sum of e e^T over all positions of some captions: ``matrix`` (width, width), float64, and how many
    ``rows`` it is the sum of.

    ``captions`` is the sha256 of the captions, each with the number of times it stands there, and ``encoder``
    that of the text encoder and its vocabulary.
    """

    matrix: Tensor
    rows: int
    captions: str
    encoder: str

    def scaled(self) -> Tensor:
        """The matrix as if it had as many rows as the reference's."""
        return self.matrix * (REFERENCE_ROWS / self.rows) if self.rows else self.matrix


def read_captions(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises :class:`UsageError` where there are none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Cannot read the captions {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}."
        ) from error
    captions = [line for line in lines if line]
    if not captions:
        raise UsageError(f"{path} holds no captions; write one a line.")
    return captions


def caption_gram(
    model: DiffusionModel,
    captions: Iterable[str],
    cache: Path | None = None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> CaptionGram:
    """The Gram matrix of ``captions``, each as often as it stands there, in batches; nothing of them stays in
    memory.

    With ``cache``, a folder, it is read from there if it is of this text encoder and these captions, and else
    written there.
    """
    counts = Counter(captions)
    named, encoder = sha256_json(sorted(counts.items())), _digest_of_encoder(model)
    file = cache / f"prior-{encoder[:12]}-{named[:12]}.safetensors" if cache is not None else None
    if file is not None and file.exists():
        return _read(file, named, encoder, model.text_encoder.config.hidden_size)
    width = model.text_encoder.config.hidden_size
    total, tokens = torch.zeros(width, width, dtype=torch.float64, device=_double(model)), 0
    texts = sorted(counts)
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        with torch.no_grad():
            states = model.text_encoder(model.token_ids(part)).last_hidden_state.to(total.device).double()
        tokens = states.shape[1]
        often = torch.tensor([counts[text] for text in part], dtype=torch.float64, device=total.device).sqrt()
        total += gram((states * often[:, None, None]).flatten(0, 1))
        on_step(min(start + _BATCH, len(texts)), len(texts))
    found = CaptionGram(total.cpu(), counts.total() * tokens, named, encoder)
    if file is not None:
        metadata = {
            "format": _FORMAT,
            "rows": str(found.rows),
            "captions": named,
            "encoder": encoder,
            "sha256": _sha256(found.matrix),
        }
        with on_disk(file.parent):
            write_whole(file, save({"gram": found.matrix}, metadata))
    return found


def _sha256(matrix: Tensor) -> str:
    return hashlib.sha256(matrix.contiguous().numpy().tobytes()).hexdigest()


def _read(file: Path, captions: str, encoder: str, width: int) -> CaptionGram:
    try:
        with safe_open(file, "pt") as opened:
            metadata, matrix = opened.metadata() or {}, opened.get_tensor("gram")
        sound = (metadata["format"], metadata["captions"], metadata["encoder"]) == (
            _FORMAT,
            captions,
            encoder,
        )
        sound = (
            sound
            and matrix.dtype == torch.float64
            and matrix.shape == (width, width)
            and _sha256(matrix) == metadata["sha256"]
        )
        rows = int(metadata["rows"])
    except (SafetensorError, KeyError, ValueError, OSError):
        sound, rows = False, 0
    if not sound or rows < 1:
        raise UsageError(
            f"{file} is not the prior that its name says; delete it and run the same command again."
        )
    return CaptionGram(matrix, rows, captions, encoder)


def _digest_of_encoder(model: DiffusionModel) -> str:
    """Of weights, configuration, vocabulary, and of what tokenizer and encoder make of a sentence: length
    and padding are in that."""
    vocabulary = json.dumps(sorted(model.tokenizer.get_vocab().items()))
    config = json.dumps(model.text_encoder.config.to_dict(), sort_keys=True, default=str)
    ids = model.token_ids(["a ship"]).tolist()
    return hashlib.sha256(
        f"{digest_of_weights(model.text_encoder)} {config} {vocabulary} {ids}".encode()
    ).hexdigest()


def _double(model: DiffusionModel) -> torch.device:
    """Where float64 is computed: not every accelerator has it."""
    return model.device if model.device.type == "cuda" else torch.device("cpu")
