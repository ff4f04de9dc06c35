"""The torch that probes, erasers and the sampler share: text states, latents, sampling, fine-tuning."""
