"""Studies: which erasures come undone, under what, and by how much.

``document`` what is asked · ``expand`` what that takes · ``work`` does it · ``store`` what is kept of it ·
``findings`` reads that · ``claims`` holds it against the paper · ``predictors`` what decides · ``figures``
and ``page`` show it.

A study estimates; it gives no verdict.
"""
