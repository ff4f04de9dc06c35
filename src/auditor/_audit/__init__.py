"""An audit, in its order: plan, run (draw, train, score), evidence, verdict; and the folder that all of it
is kept in."""
