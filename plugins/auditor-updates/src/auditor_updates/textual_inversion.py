"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): one word's embedding is learnt, and nothing else.

The word must be one token of the model's vocabulary, as users who avoid resizing the vocabulary do it, and it
must stand in the probe's prompts; it changes images of those audited prompts that hold it, so put it into
some of the policy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from auditor.plugin import (
    ConceptNames,
    FineTune,
    OptionsModel,
    ProbeSetting,
    PromptTemplates,
    TrainingRequest,
    Update,
    UsageError,
)

if TYPE_CHECKING:
    from torch import Tensor


class TextualInversionOptions(OptionsModel):
    """Defaults are those of diffusers' example."""

    token: str
    """The word whose embedding is learnt."""
    candidates: ConceptNames = ()
    """Names to choose from, or a named set; erased and retained concepts are taken out."""
    prompts: PromptTemplates = ()
    """Templates with one {} each that hold the token."""
    names: int = Field(default=1, ge=1)
    """Concepts to learn from."""
    images_per_prompt: int = Field(default=5, ge=1)
    """Images that the base draws of each prompt."""
    folder: Path | None = None
    """A folder of captioned images (``metadata.jsonl`` with file_name and text) instead of ``candidates``."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Of AdamW."""
    batch: int = Field(default=4, ge=1)
    """Images a step."""


class TextualInversion(FineTune):
    """Learns one word's embedding from images of other concepts."""

    name = "textual-inversion"
    summary = "the embedding of one existing word is learnt, the rest stays"
    source = "Gal et al. 2022, arXiv:2208.01618"
    methods = ()
    Options: ClassVar[type[OptionsModel]] = TextualInversionOptions

    def choose(self, candidates: list[str], setting: ProbeSetting) -> list[str]:
        """A random sample."""
        return self.sample(candidates, setting)

    def changes(self, method: str) -> tuple[str, ...]:
        """The table of token embeddings."""
        return ("text_encoder.*token_embedding.weight",)

    def training_set(self, setting: ProbeSetting) -> list[TrainingRequest] | Path:
        """Images of a random concept of the candidates, with the token in their captions."""
        options: TextualInversionOptions = self.options
        without = [prompt for prompt in options.prompts if options.token not in prompt.split()]
        if options.folder is None and (without or not options.prompts):
            raise UsageError(
                f"textual-inversion needs 'prompts' with the word '{options.token}' in each; {without[:1]} "
                "has none."
            )
        return super().training_set(setting)

    def update(self, update: Update) -> Iterator[int]:
        """Train the one row, and yield at every dose."""
        import torch
        from torch.nn import functional

        from auditor.plugin import Condition, Passes, noised_prediction, training_draw

        options, model = self.options, update.model
        inside = model.tokenizer(options.token).input_ids[1:-1]
        if len(inside) != 1 or inside[0] == model.tokenizer.unk_token_id != model.tokenizer.eos_token_id:
            raise UsageError(
                f"'{options.token}' is {len(inside)} tokens of this model's text; textual-inversion needs a "
                "word of one."
            )
        ids = model.token_ids(update.captions)
        if not bool((ids == inside[0]).any(dim=1).all()):
            raise UsageError(
                f"A caption of textual-inversion's training set does not hold the word '{options.token}'."
            )
        means, deviations = model.encode(update.images)
        noising = model.noising()
        table = model.text_encoder.get_input_embeddings().weight
        others = (torch.arange(len(table), device=table.device) != inside[0])[:, None]
        model.denoiser.requires_grad_(False)
        model.text_encoder.requires_grad_(False)
        table.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            [table], lr=0.0 if update.sham else options.learning_rate, weight_decay=0.0
        )
        passes = Passes(options.batch, update.on_fewer)
        try:
            for step in range(1, update.doses[-1] + 1):
                rows, latents, noise, times = training_draw(
                    noising, means, deviations, options.batch, update.seed, step
                )

                def loss(
                    part: slice,
                    ids: Tensor = ids[rows],
                    latents: Tensor = latents,
                    noise: Tensor = noise,
                    times: Tensor = times,
                ) -> Tensor:
                    with torch.enable_grad(), model.autocast(training=True):
                        told = Condition({"states": model.text_encoder(ids[part]).last_hidden_state})
                        predicted, wanted = noised_prediction(
                            model, noising, latents[part], noise[part], times[part], told
                        )
                        return functional.mse_loss(predicted, wanted)

                passes.backward([table], loss)
                table.grad.masked_fill_(others, 0)  # Adam leaves a row alone that never had a gradient
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                update.on_step(step)
                if step in update.doses:
                    model.forget_text_states()
                    yield step
        finally:
            table.requires_grad_(False)
