"""What ``make gpu`` asks, most telling first: each step in a process of its own, with its own limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """``module`` of this package has a function ``run(setting)``; ``limit`` in seconds."""

    module: str
    limit: int
    asks: str


STEPS = (
    Step("card", 15, "Is the machine as described?"),
    Step("world", 50, "Does a whole audit run, and does the CPU wait as often as on the pretended GPU?"),
    Step("denoiser", 60, "How long does a call of the denoiser take, by batch and form of its weights?"),
    Step("bits", 70, "When are the bits of an image the same?"),
    Step("training", 60, "How long does a training step take, and is training reproducible?"),
    Step("autoencoder", 25, "How much memory and time do encoding and decoding take?"),
    Step("beside", 35, "What does the CPU do beside the drawing, and how long does it take?"),
    Step("loop", 60, "How long does an image take in an audit's own loop?"),
    Step("compiled", 105, "What is compiling worth?"),
)
WHOLE = 480
"""Seconds for all."""
