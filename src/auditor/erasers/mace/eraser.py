"""The MACE eraser: refine, train one LoRA a concept, fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from auditor.errors import UsageError
from auditor.plugin import door
from auditor.plugin.contracts import Eraser, Erasure, MaskRequest, MaskSource, OptionsModel
from auditor.plugin.loader import make_plugin
from auditor.sets import ConceptNames
from auditor.templates import ERASURE_TEMPLATES

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

    from auditor.diffusion.model import TextToImage
    from auditor.erasers.closed_form import LowRank
    from auditor.policy import Concept

REFERENCE_ROWS = 47_491_059
"""Rows of the reference's prior Gram matrix (616,767 captions x 77 positions), which lambda1 is scaled to."""


class MaskUse(OptionsModel):
    """A mask source and its options."""

    use: str = "attention"
    """The mask source."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""


class MaceOptions(OptionsModel):
    """Defaults are the paper's for one celebrity on Stable Diffusion 1.4 where it gives one."""

    lambda1: float = Field(default=1e-4, ge=0)
    """Weight of the prior in refinement (Eq. 2), for a Gram matrix of as many rows as the reference's."""
    lambda2: float = Field(default=1e-4, ge=0)
    """Weight of the prior in fusion (Eq. 7), scaled likewise."""
    lambda_identity: float = Field(default=0.0, ge=0)
    """Weight of the squared change of the weights themselves, in both closed forms."""
    preserve: ConceptNames = ()
    """Concepts whose prompts make the prior, or a named set; the retained ones of the policy are always among them."""
    lora: bool = True
    """False: refinement only."""
    images: int = Field(default=8, ge=1)
    """Images of each concept that the base draws for its LoRA."""
    masks: MaskUse = MaskUse()
    """Where in its images the concept is."""
    steps: int = Field(default=50, ge=1)
    """Training steps of each LoRA."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of AdamW."""
    rank: int = Field(default=1, ge=1)
    """Of each LoRA."""
    batch: int = Field(default=1, ge=1)
    """Images a step."""
    importance_sampling: bool = True
    """Draw timesteps where the concept takes shape (section 4.2) instead of evenly."""
    mark_padding: bool = True
    """Mark end and padding tokens beside the phrase in the LoRA's loss, as the reference's code does (its paper does not)."""
    size: int = Field(default=512, ge=8)
    """Of the images, in pixels a side."""
    sampling_steps: int = Field(default=30, ge=1)
    """Denoising steps of each image."""
    sampling_guidance: float = Field(default=7.5, ge=1)
    """Classifier-free guidance of each image."""


class Mace(Eraser):
    """Closed-form cross-attention refinement, LoRAs against the concept's own attention, closed-form fusion."""

    name = "mace"
    summary = "mass concept erasure: refinement, masked-attention LoRA, fusion"
    source = "Lu et al. 2024, arXiv:2403.06135, Eq. 2, 3 and 7"

    Options: ClassVar[type[OptionsModel]] = MaceOptions

    def erase(self, erasure: Erasure) -> dict[str, Any]:
        """Edit keys and values of every cross-attention in place; every other weight stays bit for bit."""
        import torch

        from auditor.erasers.closed_form import fuse, refinement

        options: MaceOptions = self.options
        model = erasure.model
        for concept in erasure.concepts:
            _check(concept, model)
        projections = cross_attention_projections(model.unet)
        if not projections:
            raise UsageError("MACE edits cross-attention, and this model has none.")
        grams = {concept.name: _concept_gram(model, concept) for concept in erasure.concepts}
        prior = self._prior(erasure)
        mapping, prompts = _mapping_grams(model, erasure.concepts)
        refined = refinement(mapping, prompts, options.lambda1 * prior, options.lambda_identity)
        original = {name: weight.detach().double().cpu().clone() for name, weight in projections.items()}
        first = {name: weight @ refined.factor for name, weight in original.items()}
        record: dict[str, Any] = {"refinement": {"condition": refined.condition, "ridge": refined.ridge}}
        loras: list[dict[str, LowRank]] = []
        if options.lora:
            images = [self._images(erasure, concept) for concept in erasure.concepts]  # by the base, before it is edited
        _write(projections, first)
        erasure.on_step("refine", 1, 1)
        if not options.lora:
            return record
        record["loras"] = {}
        for number, concept in enumerate(erasure.concepts):
            lora, losses = self._lora(erasure, concept, images[number], number)
            loras.append(lora)
            record["loras"][concept.name] = {"loss_first": losses[0], "loss_last": losses[-1]}
        own = [grams[concept.name] for concept in erasure.concepts]
        fused = {}
        for name, weight in original.items():
            layer = name.removesuffix(".weight")
            parts = [_on_cpu(lora[layer]) for lora in loras]
            fused[name] = fuse(weight, first[name], parts, own, options.lambda2 * prior, options.lambda_identity)
        _write(projections, fused)
        erasure.on_step("fuse", 1, 1)
        change = sum(float((fused[name] - weight).square().sum()) for name, weight in original.items())
        size = sum(float(weight.square().sum()) for weight in original.values())
        record["relative_change"] = (change / size) ** 0.5
        torch.cuda.empty_cache()
        return record

    def _prior(self, erasure: Erasure) -> Tensor:
        """The Gram matrix of the prompts to preserve, scaled to the reference's number of rows."""
        import torch

        from auditor.erasers.closed_form import sum_grams

        erased = {name.casefold() for concept in erasure.concepts for name in (concept.name, *concept.synonyms)}
        listed = dict.fromkeys((*self.options.preserve, *(concept.name for concept in erasure.retain)))
        names = [name for name in listed if name.casefold() not in erased]
        model = erasure.model
        width = model.unet.config.cross_attention_dim
        if not names:
            return torch.zeros(width, width, dtype=torch.float64)
        templates = dict.fromkeys((*ERASURE_TEMPLATES, *(template for concept in erasure.retain for template in concept.templates)))
        captions = [template.format(name) for name in names for template in templates]
        batches = [model.text_states(captions[start : start + 256]) for start in range(0, len(captions), 256)]
        rows = len(captions) * batches[0].shape[1]
        return sum_grams(batches, width) * (REFERENCE_ROWS / rows)

    def _images(self, erasure: Erasure, concept: Concept) -> Any:
        from auditor.erasers.mace.lora import draw_masked
        from auditor.policy import Sampler
        from auditor.seeds import image_seed

        options: MaceOptions = self.options
        prompt = f"a photo of {concept.name}"
        sampler = Sampler(scheduler="dpm-solver++", steps=options.sampling_steps, guidance=options.sampling_guidance, size=options.size)
        seeds = [image_seed(str(erasure.seed), "mace", prompt, index) for index in range(options.images)]
        tokens = _phrase_tokens(erasure.model, prompt, concept.name)
        source: MaskSource = make_plugin("masks", options.masks.use, options.masks.options)

        def masks(images: Tensor, attention: Tensor) -> Tensor:
            found = door.call(source, source.masks, MaskRequest(concept, images, attention.clone()))
            if found.shape != attention.shape or not bool(found.flatten(1).any(1).all()):
                raise UsageError(f"The masks '{source.name}' of '{concept.name}' are empty in an image, or of another shape.")
            return found.to(attention)

        return draw_masked(erasure.model, prompt, tokens, seeds, sampler, masks)

    def _lora(self, erasure: Erasure, concept: Concept, images: Any, number: int) -> tuple[dict[str, LowRank], list[float]]:
        import torch

        from auditor.erasers.mace.lora import LoraSetting, train_lora

        options: MaceOptions = self.options
        model = erasure.model
        captions = [template.format(concept.name) for template in ERASURE_TEMPLATES]
        ids = model.token_ids(captions)
        marked = torch.zeros(ids.shape, device=ids.device)
        for row, caption in enumerate(captions):
            marked[row, _phrase_tokens(model, caption, concept.name)] = 1
        if options.mark_padding:
            end = (ids == model.tokenizer.eos_token_id).int().argmax(dim=1)
            marked[torch.arange(ids.shape[1], device=ids.device) >= end[:, None]] = 1
        setting = LoraSetting(options.steps, options.learning_rate, options.rank, options.batch, options.importance_sampling)

        def on_step(step: int) -> None:
            erasure.on_step(f"LoRA {concept.name}", step, options.steps)

        return train_lora(model, images, model.text_states(captions), marked, setting, erasure.seed + 7919 * number, on_step)


def cross_attention_projections(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The key and value weights of every cross-attention, by parameter name."""
    return {name: weight for name, weight in unet.named_parameters() if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))}


def _write(projections: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, weight in projections.items():
            weight.copy_(values[name])


def _on_cpu(lora: LowRank) -> LowRank:
    from auditor.erasers.closed_form import LowRank

    return LowRank(lora.up.cpu(), lora.down.cpu())


def _check(concept: Concept, model: TextToImage) -> None:
    if concept.mapping is None:
        raise UsageError(f"MACE needs a mapping concept for '{concept.name}'; give 'mapping' in the policy (\"a person\").")
    if concept.mapping.casefold() == concept.name.casefold():
        raise UsageError(f"The mapping of '{concept.name}' is the concept itself: nothing would be erased.")
    longest = max((template.format(concept.name) for template in ERASURE_TEMPLATES), key=len)
    if not _phrase_tokens(model, longest, concept.name):
        raise UsageError(f"'{concept.name}' is cut off by the text encoder's length in {longest!r}; give a shorter name.")


def _phrase_tokens(model: TextToImage, prompt: str, phrase: str) -> list[int]:
    from auditor.erasers.mace.align import phrase_positions

    inside = model.tokenizer(phrase).input_ids[1:-1]
    return phrase_positions(model.token_ids([prompt])[0].tolist(), inside)


def _concept_gram(model: TextToImage, concept: Concept) -> Tensor:
    """Gram matrix of all positions of the concept's prompts, for fusion."""
    from auditor.erasers.closed_form import sum_grams

    states = model.text_states([template.format(concept.name) for template in ERASURE_TEMPLATES])
    return sum_grams([states], states.shape[-1])


def _mapping_grams(model: TextToImage, concepts: tuple[Concept, ...]) -> tuple[Tensor, Tensor]:
    """(sum h e^T, sum e e^T) over the aligned tokens of every concept's prompts and their mappings'."""
    from auditor.erasers.closed_form import cross_gram, gram
    from auditor.erasers.mace.align import align_tokens

    length = model.tokenizer.model_max_length
    mapping: Any = 0
    prompts: Any = 0
    for concept in concepts:
        for template in ERASURE_TEMPLATES:
            pair = (template.format(concept.name), template.format(concept.mapping))
            old, new = (model.tokenizer(text, truncation=True, max_length=length).input_ids for text in pair)
            old_positions, new_positions = align_tokens(old, new, length)
            old_states, new_states = model.text_states(pair).cpu()
            mapping = mapping + cross_gram(new_states[new_positions], old_states[old_positions])
            prompts = prompts + gram(old_states[old_positions])
    return mapping, prompts
