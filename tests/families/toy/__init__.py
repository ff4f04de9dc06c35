"""A family that shares nothing with Stable Diffusion, whole in this folder: no line elsewhere knows it.

:data:`TOY` is what :func:`auditor.families.registry.registered` takes; :func:`write_toy` writes a checkpoint.
"""

from __future__ import annotations

from tests.families.toy.checkpoint import TOY, toy_model, write_toy

__all__ = ["TOY", "toy_model", "write_toy"]
