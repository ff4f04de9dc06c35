"""MACE: mass concept erasure (Lu et al. 2024, arXiv:2403.06135), written from its equations.

``align`` pairs the tokens of a concept's prompt with those of its mapping, ``closed_form`` refines cross-attention and fuses
LoRAs (Eq. 2 and 7), ``lora`` trains one LoRA a concept against its own attention (Eq. 3).
"""

from auditor.erasers.mace.eraser import Mace

__all__ = ["Mace"]
