"""The embedded default: a small, real, Stable-Diffusion-shaped model, and the recipe that made its weights.

Where the weights lie says :func:`auditor._files.bundled.micro_world`.
"""
