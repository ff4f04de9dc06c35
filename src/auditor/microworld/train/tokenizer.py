"""Stage 1: a byte-pair tokenizer in CLIP's format, small enough that most names take two to four tokens."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from auditor.policy.concepts.micro import (
    GENERIC_OBJECTS,
    GENERIC_PEOPLE,
    OBJECTS,
    PAPER_PROMPTS,
    PEOPLE,
    SCENES,
)
from auditor.policy.concepts.templates import ERASURE_TEMPLATES

CONTEXT_LENGTH = 16
_MERGES = 490
_WORD_REPEATS = 4  # template words count so much more than names that names stay in pieces


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Train the tokenizer, write ``vocab.json``, ``merges.txt`` and their configuration to ``folder``, and
    return it.

    ``<|startoftext|>`` and ``<|endoftext|>`` get the two highest ids: open_clip pools text at the highest id.
    """
    templates = [*ERASURE_TEMPLATES, *(prompt for prompts in PAPER_PROMPTS.values() for prompt in prompts)]
    words = [template.replace("{}", "the") for template in templates] * _WORD_REPEATS
    words += [*OBJECTS, *(synonym for thing in OBJECTS.values() for synonym in thing.synonyms)]
    words += [*GENERIC_PEOPLE, *GENERIC_OBJECTS, *SCENES, *(name.lower() for name in PEOPLE)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=_MERGES + 60, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]][:_MERGES]
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n", encoding="utf-8"
    )
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT_LENGTH, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
