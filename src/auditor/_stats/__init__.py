"""Intervals, tests and multiplicity: pure functions on numbers, without torch and without anything else of
ours."""
