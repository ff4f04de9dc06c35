"""What must be preserved: the captions of the priors, their weights, their Gram matrices (Eq. 2 and 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from auditor.builtins.erasers.mace.job import Job
from auditor.builtins.erasers.mace.options import MaceOptions
from auditor.errors import UsageError
from auditor.policy import as_read
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.policy import Concept


def check_priors(job: Job) -> None:
    """A weight without anything to weigh would do nothing, and look as if it did."""
    options = job.options
    weighs = any(options.prior_weights().values())
    first, second = captions(job)
    if weighs and not first:
        raise UsageError(
            "lambda1 and lambda2 weigh a prior, and there is none: give captions, preserve, retained "
            "concepts, or zeros."
        )
    if options.domain_weight and not (weighs and second):
        raise UsageError(
            "domain_weight multiplies lambda1 and lambda2 on concepts of the domain: one of these is missing."
        )
    if options.cache is not None:
        try:
            options.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The cache {options.cache} cannot be made: {error.strerror}.") from error


def weights_of_priors(options: MaceOptions) -> dict[str, dict[str, float]]:
    """What a row of each prior weighs in each closed form, and the whole first prior in rows of a
    concept's prompts."""
    from auditor.builtins.erasers.mace.prior import REFERENCE_ROWS

    return {
        form: {
            "first": weight,
            "second": weight * options.domain_weight,
            "first_in_rows": weight * REFERENCE_ROWS,
        }
        for form, weight in options.prior_weights().items()
    }


def captions(job: Job) -> tuple[list[str], list[str]]:
    """The captions of the prior and of the second prior."""
    from auditor.builtins.erasers.mace.prior import read_captions

    options = job.options
    erased = {as_read(name) for concept in job.erasure.concepts for name in (concept.name, *concept.synonyms)}
    domains = {concept.domain for concept in job.erasure.concepts}

    def prompts(names: tuple[str, ...], retained: list[Concept]) -> list[str]:
        listed = {as_read(name): name for name in (*names, *(concept.name for concept in retained))}
        templates = dict.fromkeys(
            (*ERASURE_TEMPLATES, *(template for concept in retained for template in concept.templates))
        )
        return [
            template.format(name)
            for name in listed.values()
            if as_read(name) not in erased
            for template in templates
        ]

    if not any(options.prior_weights().values()):
        return [], []
    prior = (
        prompts(options.preserve, list(job.erasure.retain))
        if options.captions is None
        else read_captions(options.captions)
    )
    same = [concept for concept in job.erasure.retain if concept.domain in domains]
    return prior, prompts(options.domain, same) if options.domain_weight else []


def prior(job: Job, record: dict[str, Any]) -> dict[str, Tensor]:
    """The weighted Gram matrices of what must be preserved, in refinement and in fusion."""
    from auditor.builtins.erasers.mace.prior import caption_gram

    def progress(step: int, steps: int) -> None:
        job.erasure.on_step("prior", step, steps)

    first, second = (
        caption_gram(job.erasure.model, captions, job.options.cache, progress) for captions in captions(job)
    )
    weights = weights_of_priors(job.options)
    record |= {"rows": first.rows, "captions": first.captions, "weights": weights}
    record |= {"second_rows": second.rows, "second_captions": second.captions}
    return {
        form: weight["first"] * first.scaled() + weight["second"] * second.matrix
        for form, weight in weights.items()
    }
