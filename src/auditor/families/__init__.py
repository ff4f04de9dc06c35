"""What a model family is: its components, their files, classes and sizes, and what a call of its denoiser
costs."""
