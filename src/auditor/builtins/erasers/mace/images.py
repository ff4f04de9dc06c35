"""Training images and masks, drawn by the base before it is edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor._files.whole_files import write_whole
from auditor.builtins.erasers.mace.job import IMAGE_OPTIONS, Job
from auditor.errors import UsageError
from auditor.plugin import _door as door
from auditor.plugin.contracts import MaskRequest

if TYPE_CHECKING:
    from torch import Tensor

    from auditor._diffusion.model import DiffusionModel
    from auditor.builtins.erasers.mace.kept import ConceptFolder


def draw_images(job: Job, kept: list[ConceptFolder], belongs: str) -> None:
    """Training images and masks of every concept that has neither them nor a LoRA yet; several
    concepts at once where they fit."""
    import torch

    from auditor._diffusion.memory import in_parts
    from auditor._diffusion.sampling import batch_size
    from auditor._diffusion.seeds import image_seed
    from auditor.builtins.erasers.mace.attention import draw_with_attention
    from auditor.builtins.erasers.mace.prompts import marks

    options = job.options
    model, sampler = job.erasure.model, job.sampler()
    source = job.source
    missing = [
        (concept, place)
        for concept, place in zip(job.erasure.concepts, kept, strict=True)
        if job.earlier(concept, belongs) is None and job.images_of(concept, place) is None
    ]
    at_once = batch_size(model, sampler)
    step = max(1, at_once // options.images)
    for start in range(0, len(missing), step):
        group = missing[start : start + step]
        prompts = [f"a photo of {concept.name}" for concept, _ in group for _ in range(options.images)]
        names = [concept.name for concept, _ in group for _ in range(options.images)]
        seeds = [
            image_seed(str(job.erasure.seed), "mace", prompt, at % options.images)
            for at, prompt in enumerate(prompts)
        ]
        marked = torch.stack(
            [marks(model, prompt, name, "phrase") for prompt, name in zip(prompts, names, strict=True)]
        )

        def drawn_in(
            rows: slice, prompts: list[str] = prompts, marked: Tensor = marked, seeds: list[int] = seeds
        ) -> tuple[Tensor, Tensor]:
            return draw_with_attention(model, prompts[rows], marked[rows], seeds[rows], sampler)

        parts = in_parts(drawn_in, len(prompts), at_once)
        latents, attention = (torch.cat(part) for part in zip(*parts, strict=True))
        for (concept, place), own, drawn in zip(
            group, latents.split(options.images), attention.split(options.images), strict=True
        ):
            images = model.decode(own)[0]
            numbers = tuple(f"{number:02}" for number in range(options.images))
            masks = door.call(source, source.masks, MaskRequest(concept, images, drawn.clone(), numbers))
            if masks.shape != drawn.shape or not bool(masks.flatten(1).any(1).all()):
                raise UsageError(
                    f"The masks '{source.name}' of '{concept.name}' are empty in an image, or of another "
                    "shape."
                )
            place.save(
                "images",
                {"latents": own, "masks": masks.float()},
                job.made_from(concept, IMAGE_OPTIONS),
            )
        job.erasure.on_step("images", start + len(group), len(missing))
    if options.keep_images:
        for place in kept:
            save_pictures(model, place)


def save_pictures(model: DiffusionModel, place: ConceptFolder) -> None:
    """A concept's training images and masks as PNG, where it has any."""
    from auditor._files.images import to_png

    found = place.load("images")
    if found is None:
        return
    folder = place.path("images").with_suffix("")
    images, _ = model.decode(found[0]["latents"].to(model.device))
    for number, (image, mask) in enumerate(zip(images, found[0]["masks"], strict=True)):
        write_whole(folder / f"{number:02}.png", to_png(image))
        write_whole(folder / f"{number:02}.mask.png", to_png((mask * 255).byte().expand(3, -1, -1)))
