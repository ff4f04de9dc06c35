"""CLIP, which several built-in plugins share."""
