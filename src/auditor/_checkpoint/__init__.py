"""From what a user names to a model in memory: resolve, admit, digest, load."""

from auditor._checkpoint.admit import Checkpoint, Form, locate, open_checkpoint

__all__ = ["Checkpoint", "Form", "locate", "open_checkpoint"]
