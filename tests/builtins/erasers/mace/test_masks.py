"""Masks from Grounding DINO and SAM: the real classes of transformers, at a small size with random
weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

from auditor.builtins.masks.grounded_sam import GroundedSam, GroundedSamOptions
from auditor.errors import UsageError
from auditor.plugin.contracts import MaskRequest
from auditor.policy import Concept

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "person", "ship", "boat", "a")
PERSON = Concept(name="Borin Talvek", domain="people", prompts=("{}",))
SHIP = Concept(name="ship", domain="objects", synonyms=("boat",), prompts=("{}",))


def write_networks(folder: Path, *, true_size: bool = False) -> GroundedSamOptions:
    """Both networks with random weights, as their published folders are laid out."""
    torch.manual_seed(0)
    detector, segmenter = folder / "dino", folder / "sam"
    detector.mkdir(parents=True)
    (detector / "vocab.txt").write_text("\n".join(WORDS))
    small: dict[str, Any] = (
        {}
        if true_size
        else {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "num_queries": 6,
            "num_feature_levels": 2,
            "text_config": {
                "model_type": "bert",
                "vocab_size": len(WORDS),
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
            "backbone_config": {
                "model_type": "swin",
                "embed_dim": 12,
                "depths": [1, 1],
                "num_heads": [1, 2],
                "window_size": 4,
                "image_size": 64,
                "out_features": ["stage1", "stage2"],
            },
        }
    )
    dino = GroundingDinoForObjectDetection(GroundingDinoConfig(**small))
    dino.save_pretrained(detector)
    size = (
        {"shortest_edge": 800, "longest_edge": 1333}
        if true_size
        else {"shortest_edge": 64, "longest_edge": 64}
    )
    GroundingDinoProcessor(
        GroundingDinoImageProcessor(size=size), BertTokenizer(str(detector / "vocab.txt"))
    ).save_pretrained(detector)
    vision: dict[str, Any] = (
        {}
        if true_size
        else {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 16,
            "window_size": 2,
            "global_attn_indexes": [0],
            "mlp_dim": 32,
            "num_pos_feats": 8,
        }
    )
    prompt: dict[str, Any] = {} if true_size else {"hidden_size": 16, "image_size": 64, "patch_size": 8}
    decoder: dict[str, Any] = (
        {}
        if true_size
        else {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    )
    SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    ).save_pretrained(segmenter)
    side = 1024 if true_size else 64
    SamProcessor(
        SamImageProcessor(
            size={"longest_edge": side},
            pad_size={"height": side, "width": side},
            mask_size={"longest_edge": side // 4},
        )
    ).save_pretrained(segmenter)
    return GroundedSamOptions(
        detector=str(detector), segmenter=str(segmenter), box_threshold=1e-6, text_threshold=1e-6
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> GroundedSamOptions:
    return write_networks(tmp_path_factory.mktemp("networks"))


def request(concept: Concept, count: int = 2) -> MaskRequest:
    images = torch.randint(
        0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return MaskRequest(
        concept, images, torch.ones(count, 8, 8), tuple(f"{number:02}" for number in range(count))
    )


def test_people_are_looked_for_as_persons_and_objects_by_name_and_synonyms(
    networks: GroundedSamOptions,
) -> None:
    source = GroundedSam(networks)
    assert source.labels_of(PERSON) == ["person"]
    assert source.labels_of(SHIP) == ["ship", "boat"]
    assert GroundedSam(networks.model_copy(update={"labels": {"objects": ("vessel",)}})).labels_of(SHIP) == [
        "vessel"
    ]


def test_the_detector_is_asked_for_words_not_letters(networks: GroundedSamOptions) -> None:
    """A query that is a string where a list is wanted becomes one label a letter (mace.md, B12)."""
    source = GroundedSam(networks)
    processor, _ = source._detector
    image = request(SHIP).images[0].permute(1, 2, 0).numpy()
    ids = processor(images=image, text=[source.labels_of(SHIP)], return_tensors="pt").input_ids[0].tolist()
    assert [WORDS[each] for each in ids] == ["[CLS]", "ship", ".", "boat", ".", "[SEP]"]


def test_masks_are_the_union_of_what_was_outlined(
    networks: GroundedSamOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = GroundedSam(networks)
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [40.0, 40.0, 64.0, 64.0]])
    monkeypatch.setattr(source, "_boxes", lambda pixels, labels, device: boxes)
    image = request(SHIP).images[0].permute(1, 2, 0).contiguous().numpy()
    both, first, second = (
        source._outline(image, part, torch.device("cpu")) for part in (boxes, boxes[:1], boxes[1:])
    )
    assert both.shape == (64, 64) and both.dtype is torch.bool
    assert torch.equal(both, first | second)


def test_real_networks_give_masks_of_the_right_form(networks: GroundedSamOptions) -> None:
    source = GroundedSam(networks)
    try:
        masks = source.masks(request(PERSON))
    except UsageError as error:
        pytest.fail(f"random weights at a threshold of nearly 0 found no box: {error}")
    assert masks.shape == (2, 8, 8) and set(masks.unique().tolist()) <= {0.0, 1.0}


def test_an_image_without_the_concept_is_said(networks: GroundedSamOptions) -> None:
    strict = GroundedSam(networks.model_copy(update={"box_threshold": 0.999999}))
    with pytest.raises(UsageError, match="found no person in image 0 of 'Borin Talvek'; lower box_threshold"):
        strict.masks(request(PERSON))


def test_networks_that_do_not_load_are_said(networks: GroundedSamOptions, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "grounding-dino"}))
    source = GroundedSam(networks.model_copy(update={"detector": str(tmp_path / "empty")}))
    with pytest.raises(UsageError, match="does not load"):
        source.masks(request(PERSON))


def test_weights_that_could_run_code_are_not_read(networks: GroundedSamOptions, tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(networks.segmenter).save_pretrained(tmp_path)
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "pytorch_model.bin")
    source = GroundedSam(networks.model_copy(update={"segmenter": str(tmp_path)}))
    with pytest.raises(UsageError, match="safetensors"):
        source.masks(request(PERSON))
