"""The first minutes on a GPU: ``make gpu`` (docs/gpu.md)."""
