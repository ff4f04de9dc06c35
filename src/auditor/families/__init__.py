"""What a model family is: how its checkpoints lie on disk, how its parts work together, and what a call of
its denoiser costs."""
