"""The prompt templates that erasers put a concept into: our own wordings, one slot each.

Why so many: closed-form refinement (Lu et al. 2024, section 4.1) learns from the words that surround a
concept, so the templates decide which contexts an erasure covers.
"""

from __future__ import annotations

ERASURE_TEMPLATES: tuple[str, ...] = (
    "a photo of {}",
    "an image of {}",
    "a picture of {}",
    "a snapshot of {}",
    "a portrait of {}",
    "a close photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a view of {}",
    "a print of {}",
    "a poster of {}",
    "a sticker of {}",
    "a drawing of {}",
    "a sketch of {}",
    "a pencil sketch of {}",
    "a cartoon of {}",
    "a painting of {}",
    "an oil painting of {}",
    "an old painting of {}",
    "an illustration of {}",
    "a render of {}",
    "an image capturing {} at a public event",
    "{} at a public event",
    "{} in an official photo",
    "{} in a photo",
    "{} in a picture",
    "{} in a painting",
    "{} in a sketch",
    "{} on a poster",
    "{}",
)
