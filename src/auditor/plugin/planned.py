"""What a plan is told of a policy's probes: what each is called, how its model states are drawn and asked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from auditor.errors import PluginError, PolicyError
from auditor.plugin import _door as door
from auditor.plugin.contracts import AnyProbe, PromptProbe, SamplingProbe, WeightProbe
from auditor.policy import Concept, Policy, ProbeUse, Sampler, as_read

_LEAST_DIFFERENT = 0.1


class PlannedProbe(BaseModel):
    """What a plan is told of one probe; kept in the manifest, so that a journal is judged without plugins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What reports call it."""
    kind: Literal["weights", "sampling", "prompts"]
    """What of a model state is another than the erased model's."""
    sampler: Sampler | None = None
    """Of a sampling probe: how it draws."""
    least_different: float = 0.0
    """Of a sampling probe: the share of its images that must differ from the erased model's."""
    prompts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Of a prompt probe: what it asks, by concept."""
    puts_back: tuple[str, ...] = ()
    """Of a kind of update: the base's parts that it puts back, and does nothing else."""
    trains: bool = True
    """Of a kind of update: is its number of training steps one of training?"""

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is left out keeps the identity of runs before."""
        usual = {"puts_back": [], "trains": True}
        return {key: value for key, value in dump(self).items() if key not in usual or value != usual[key]}


def planned_probes(policy: Policy, probes: tuple[AnyProbe, ...]) -> tuple[PlannedProbe, ...]:
    """What each probe of the policy is called in a report (title and method), and how its model states are
    drawn and asked.

    Raises :class:`PluginError` where a probe breaks its contract and :class:`PolicyError` where a name stands
    twice or the policy asks a probe for what it cannot do.
    """
    found = tuple(_planned(policy, use, probe) for use, probe in zip(policy.probes, probes, strict=True))
    names = [probe.name for probe in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PolicyError(
            f"The probe {twice} stands twice in the policy; use replicates (training seeds) or doses "
            "(training steps) to repeat one."
        )
    return found


def planned_members(policy: Policy, members: tuple[AnyProbe, ...]) -> tuple[PlannedProbe, ...]:
    """The same for each kind of update in the policy's population. Raises :class:`PolicyError` where one
    changes no weights: sampling or asking otherwise is no update."""
    found = list[PlannedProbe]()
    population = () if policy.updates is None else policy.updates.population
    for use, probe in zip(population, members, strict=True):
        asked = ProbeUse(use=use.use, method=use.method, doses=use.steps[:1], options=use.options)
        planned = _planned(policy, asked, probe)
        if planned.kind != "weights":
            raise PolicyError(
                f"updates: the probe {planned.name} changes no weights, so it is no update; name it under "
                "'probes'."
            )
        # by the plugin's own name: a title may say an option that is drawn
        name = f"{probe.name}-{use.method}" if len(_methods(probe)) > 1 else probe.name
        same = sum(each.name == name or each.name.startswith(f"{name}.") for each in found)
        assert isinstance(probe, WeightProbe)
        own = {
            "name": f"{name}.{same + 1}" if same else name,
            "puts_back": tuple(door.call(probe, getattr, probe, "puts_back")),
            "trains": bool(_methods(probe)),
        }
        found.append(planned.model_copy(update=own))
    return tuple(found)


def _methods(probe: AnyProbe) -> tuple[str, ...]:
    return tuple(probe.methods) if isinstance(probe, WeightProbe) else ()


def _planned(policy: Policy, use: ProbeUse, probe: AnyProbe) -> PlannedProbe:
    title = door.call(probe, lambda: probe.title)
    if not isinstance(title, str) or not re.fullmatch(r"[\w.-]+", title):
        raise PluginError(
            f"{door.title(probe)} has the title {title!r}; letters, digits, hyphens and dots are right."
        )
    if title.split(".")[0] in ("base", "erased", "updates"):
        raise PluginError(f"{door.title(probe)} has the title {title!r}, which names another model state.")
    if isinstance(probe, WeightProbe):
        if probe.methods and use.method not in probe.methods:
            raise PolicyError(
                f"The probe {title} cannot train by method: {use.method}; it can by "
                f"{', '.join(probe.methods)}."
            )
        return PlannedProbe(name=f"{title}-{use.method}" if probe.methods else title, kind="weights")
    if use.replicates > 1 or len(use.doses) > 1:
        raise PolicyError(f"The probe {title} trains nothing: 'replicates' and 'doses' mean nothing to it.")
    if isinstance(probe, SamplingProbe):
        return _sampling(policy.sampler, title, probe)
    if isinstance(probe, PromptProbe):
        return _prompts(policy, title, probe)
    raise PluginError(
        f"{door.title(probe)} is none of WeightProbe, SamplingProbe and PromptProbe; subclass one of them."
    )


def _sampling(usual: Sampler, title: str, probe: SamplingProbe) -> PlannedProbe:
    sampler = door.call(probe, probe.sampler, usual)
    least = door.call(probe, getattr, probe, "least_different")
    if not isinstance(sampler, Sampler) or (sampler.size, sampler.batch) != (usual.size, usual.batch):
        raise PluginError(
            f"{door.title(probe)} returned {sampler!r} from sampler(); the policy's Sampler with another "
            "scheduler, steps, guidance or dtype is right."
        )
    if not isinstance(least, int | float) or not _LEAST_DIFFERENT <= least <= 1:
        raise PluginError(
            f"{door.title(probe)} has least_different {least!r}; {_LEAST_DIFFERENT} to 1 is right."
        )
    if sampler == usual:
        raise PolicyError(f"The probe {title} samples as the policy does anyway; give it other options.")
    return PlannedProbe(name=title, kind="sampling", sampler=sampler, least_different=float(least))


def _prompts(policy: Policy, title: str, probe: PromptProbe) -> PlannedProbe:
    asked: dict[str, tuple[str, ...]] = {}
    known = {as_read(name) for concept in policy.erase for name in (concept.name, *concept.synonyms)}
    kept = door.call(probe, lambda: _listed(probe.concepts()))
    unknown = next((name for name in kept if not isinstance(name, str) or as_read(name) not in known), None)
    if unknown is not None:
        raise PolicyError(f"The probe {title} has prompts for {unknown!r}, which the policy does not erase.")
    for concept in policy.erase:
        prompts = door.call(probe, lambda: _listed(probe.prompts(concept)))  # noqa: B023 - called at once
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
            raise PluginError(
                f"{door.title(probe)} returned {prompts!r} from prompts(); a list of prompts is right."
            )
        read = [as_read(prompt) for prompt in prompts]
        own = {as_read(prompt) for prompt in prompts_of(concept)}
        again = next((prompt for prompt, one in zip(prompts, read, strict=True) if one in own), None)
        if again is not None:
            raise PolicyError(
                f"The probe {title} asks {again!r}, which the policy asks anyway; leave it out."
            )
        if len(set(read)) != len(read):
            raise PolicyError(f"The probe {title} asks for {concept.name} with the same prompt twice.")
        if read:
            asked[concept.name] = tuple(prompts)
    if not asked:
        raise PolicyError(f"The probe {title} has no prompt for any erased concept.")
    return PlannedProbe(name=title, kind="prompts", prompts=asked)


def _listed(prompts: Iterable[str]) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError("it returned a string; a list of strings is right")
    return list(prompts)


def prompts_of(concept: Concept) -> list[str]:
    """Every prompt that a policy asks of a concept, with its name and its synonyms."""
    names = (concept.name, *concept.synonyms)
    return [template.format(name) for name in names for template in concept.templates]
