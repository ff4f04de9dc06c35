"""Edits of weights: from a base to an erased checkpoint, with its provenance."""
