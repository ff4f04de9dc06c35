"""One LoRA a concept: trained in groups, kept as each group ends, read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from auditor.builtins.erasers.mace.job import IMAGE_OPTIONS, LORA_OPTIONS, Job
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.closed_form import LowRank
    from auditor.builtins.erasers.mace.kept import ConceptFolder
    from auditor.builtins.erasers.mace.lora import LoraTask, TrainedLora
    from auditor.policy import Concept


def train(job: Job, kept: list[ConceptFolder], belongs: str) -> dict[str, Any]:
    """A LoRA for every concept that has none, written as each group ends; what is recorded of all of
    them."""
    from auditor._diffusion.memory import in_parts
    from auditor._diffusion.room import free_bytes
    from auditor.builtins.erasers.mace.kept import lora_tensors
    from auditor.builtins.erasers.mace.lora import concepts_at_once, train_loras

    model, setting = job.erasure.model, job.setting()
    record: dict[str, Any] = {}
    waiting: list[tuple[Concept, ConceptFolder]] = []
    for concept, place in zip(job.erasure.concepts, kept, strict=True):
        earlier = job.earlier(concept, belongs)
        if earlier is None:
            waiting.append((concept, place))
            continue
        tensors, made = earlier
        if made["refined"] != belongs:
            made |= {"reused_for": belongs}
        own = place.load("loras")
        if own is None or own[1] != made:
            place.save("loras", tensors, made)
        record[concept.name] = made["losses"] | (
            {} if made["refined"] == belongs else {"trained_on": made["refined"]}
        )
    size = 1
    if len(waiting) > 1:
        free = free_bytes(model.device) if model.device.type == "cuda" else None
        size = concepts_at_once(model, _task(job, *waiting[0]), setting, job.options.memory(free))

    def make(part: slice) -> None:
        group = waiting[part]

        def progress(step: int) -> None:
            done = part.start * setting.steps + step * len(group)
            job.erasure.on_step("LoRA", done, len(waiting) * setting.steps)

        all_trained = train_loras(model, [_task(job, *each) for each in group], setting, progress)
        for trained, (concept, place) in zip(all_trained, group, strict=True):
            losses = _ends(trained)
            made = {
                "from": job.made_from(concept, IMAGE_OPTIONS + LORA_OPTIONS),
                "refined": belongs,
                "losses": losses,
            }
            place.save("loras", lora_tensors(trained.lora), made)
            record[concept.name] = losses
        model.forget_text_states()

    in_parts(make, len(waiting), size)
    return record


def _task(job: Job, concept: Concept, place: ConceptFolder) -> LoraTask:
    import torch

    from auditor._files.digest import seed_of
    from auditor.builtins.erasers.mace.lora import LoraTask
    from auditor.builtins.erasers.mace.prompts import marks

    model, images = job.erasure.model, job.images_of(concept, place)
    assert images is not None
    captions = [template.format(concept.name) for template in ERASURE_TEMPLATES]
    marked = torch.stack([marks(model, caption, concept.name, job.options.mark) for caption in captions])
    return LoraTask(
        images, model.text_states(captions), marked, seed_of(job.erasure.seed, "lora", concept.name)
    )


def read_loras(kept: list[ConceptFolder]) -> Iterator[tuple[Tensor, dict[str, LowRank]]]:
    """Each concept's Gram matrix and LoRA, from disk, one at a time."""
    from auditor.builtins.erasers.mace.kept import lora_of

    for place in kept:
        grams, lora = place.load("grams"), place.load("loras")
        assert grams is not None and lora is not None
        yield grams[0]["own"], lora_of(lora[0])


def add(projections: dict[str, Tensor], concepts: Iterator[tuple[Tensor, dict[str, LowRank]]]) -> None:
    """The LoRAs simply summed, for comparison."""
    import torch

    with torch.no_grad():
        for _, lora in concepts:
            for name, weight in projections.items():
                part = lora[name.removesuffix(".weight")]
                weight.add_((part.up @ part.down).to(weight))


def _ends(trained: TrainedLora) -> dict[str, float]:
    return {"loss_first": trained.losses[0], "loss_last": trained.losses[-1]}
