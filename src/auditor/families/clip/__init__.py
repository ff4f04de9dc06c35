"""CLIP's tokenizer, which several families read prompts with."""
