"""From what a user names to a model in memory: resolve, admit, digest, load."""

from auditor._checkpoint.admit import Checkpoint, open_checkpoint
from auditor._checkpoint.located import locate
from auditor.families.on_disk import Form

__all__ = ["Checkpoint", "Form", "locate", "open_checkpoint"]
