"""How seeds are derived. The arm is never in an image's seed: arms are compared on the same noise."""

from __future__ import annotations

from auditor._files.digest import seed_of


def image_seed(audit_seed: str, concept: str, prompt: str, index: int) -> int:
    """The seed of one image: sha256(audit seed, concept, prompt, index)."""
    return seed_of(audit_seed, "image", concept, prompt, index)


def round_seed(seed: str, first_prompt: str, index: int) -> int:
    """The seed that the prompts of one round are drawn with, where a round does not take all: the same in
    every arm."""
    return seed_of(seed, "round", first_prompt, index)


def training_seed(audit_seed: str, probe: str, replicate: int) -> int:
    """The seed of one training run: sha256(audit seed, probe, replicate)."""
    return seed_of(audit_seed, "training", probe, replicate)


def choice_seed(shared_seed: str, probe: str) -> int:
    """The seed that a probe chooses its training concepts with; shared by audits of one base and policy."""
    return seed_of(shared_seed, "choice", probe)


def example_seed(shared_seed: str, concept: str, prompt: str, index: int) -> int:
    """The seed of one training image: the same for every probe, so that training sets are drawn once."""
    return seed_of(shared_seed, "example", concept, prompt, index)
