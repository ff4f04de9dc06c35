"""The append-only record of a run: its lines, its file, its seal."""
