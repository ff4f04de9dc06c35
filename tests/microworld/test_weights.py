"""The embedded base is what the card says: SD-shaped, one text tower, names in pieces, everything
recognised."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from auditor._checkpoint import open_checkpoint
from auditor._checkpoint.load import load_model
from auditor._diffusion.sampling import draw
from auditor._files.bundled import micro_world
from auditor.builtins.clip.model import load_clip
from auditor.policy import load_policy
from auditor.policy.concepts.micro import OBJECTS, PAPER_PROMPTS, PEOPLE
from auditor.policy.concepts.sets import concept_names, prompt_templates
from auditor.policy.concepts.templates import ERASURE_TEMPLATES


def top_one(images: torch.Tensor) -> list[str]:
    clip, labels = load_clip("micro"), concept_names("micro-all")
    features = clip.label_features(labels, prompt_templates("erasure-templates"))
    return [labels[index] for index in (clip.image_features(images) @ features.T).argmax(1).tolist()]


def test_people_and_objects_are_many_and_people_differ() -> None:
    assert len(PEOPLE) >= 40 and len(OBJECTS) >= 40
    assert all(len(name.split()) == 2 for name in PEOPLE)
    people = list(PEOPLE.values())
    assert (
        min(sum(a != b for a, b in zip(x, y, strict=True)) for i, x in enumerate(people) for y in people[:i])
        >= 4
    )


def test_names_take_two_to_four_tokens_and_every_prompt_fits() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(micro_world() / "tokenizer", local_files_only=True)
    counts = [len(tokenizer(name).input_ids) - 2 for name in PEOPLE]
    assert sum(2 <= count <= 4 for count in counts) > 0.8 * len(counts)
    templates = (*ERASURE_TEMPLATES, *PAPER_PROMPTS["people"])
    assert (
        max(len(tokenizer(t.format(name)).input_ids) for t in templates for name in PEOPLE)
        <= tokenizer.model_max_length
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)


def test_the_text_tower_is_the_pipelines_text_encoder() -> None:
    folder = micro_world()
    model = open_clip.create_model(f"local-dir:{folder / 'clip'}").eval()
    texts = [template.format(name) for template in PAPER_PROMPTS["people"] for name in list(PEOPLE)[:8]]
    ids = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")(texts)
    encoder = CLIPTextModel.from_pretrained(
        folder / "text_encoder", torch_dtype=torch.float32, local_files_only=True
    ).eval()
    with torch.no_grad():
        theirs = model.encode_text(ids)
        ours = encoder(ids).last_hidden_state[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection
    assert (theirs - ours).abs().max() < 1e-5


def test_diffusers_own_pipeline_opens_the_folder_and_draws() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(micro_world(), use_safetensors=True, local_files_only=True)
    pipe.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        "a photo of the ship",
        num_inference_steps=25,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert image.size == (32, 32)
    assert top_one(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]) == ["ship"]


@pytest.mark.parametrize("domain", ["people", "objects"])
def test_the_detector_knows_what_the_base_draws(domain: str) -> None:
    names = list(PEOPLE if domain == "people" else OBJECTS)
    model, sampler = load_model(open_checkpoint("micro")), load_policy("micro-person").sampler
    wanted = [(name, template.format(name)) for name in names for template in PAPER_PROMPTS[domain][:2]]
    right = []
    for start in range(0, len(wanted), 64):
        batch = wanted[start : start + 64]
        images, finite = draw(
            model, [prompt for _, prompt in batch], range(start, start + len(batch)), sampler
        )
        assert finite.all()
        right += [seen == name for seen, (name, _) in zip(top_one(images), batch, strict=True)]
    assert sum(right) / len(right) >= 0.95


def test_the_weights_are_small_enough_to_ship() -> None:
    size = sum(path.stat().st_size for path in micro_world().rglob("*") if path.is_file())
    assert size <= 25e6
