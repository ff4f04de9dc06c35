"""LoRA and its kin, in every dialect that is published: read from names and shapes, merged by own
arithmetic."""
