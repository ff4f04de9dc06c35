"""From what a user names to a model in memory: resolve, admit, digest, load."""

from auditor.checkpoint.admit import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
