"""MACE: mass concept erasure (Lu et al. 2024, arXiv:2403.06135), written from its equations.

``prompts`` and ``align`` make Gram matrices of a concept's prompts and its mapping's, ``prior`` those of what
is preserved, :mod:`auditor._diffusion.closed_form` refines and fuses with them (Eq. 2 and 7); ``attention``
and ``lora`` train LoRAs against the concepts' own attention, many in one pass (Eq. 3); ``kept`` holds what
stays of each concept. How it deviates: ``docs/mace.md``.
"""

from auditor.builtins.erasers.mace.eraser import Mace

__all__ = ["Mace"]
