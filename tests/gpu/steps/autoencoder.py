"""Step 5: encoding and decoding: memory, time, and whether large batches compute the same."""

from __future__ import annotations

from typing import Any

from tests.gpu.setting import Setting


def run(setting: Setting) -> None:
    """By default first, then in other batches."""
    import torch

    model = setting.model()
    many = setting.few(64, 4)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 255, (many, 3, setting.pixels, setting.pixels), dtype=torch.uint8, generator=generator
    )
    setting.within(
        f"GiB to encode {many} images by default", setting.peak_gib(lambda: model.encode(images)), 0, 4
    )
    found = {}
    for size in (4, 16, 64)[: setting.few(3)]:
        took = setting.seconds(lambda n=size: found.update({n: _encoded(model, images, n)}))
        setting.write(f"ms an image to encode, {size} at once", 1000 * took / many)
        peak = setting.peak_gib(lambda n=size: _encoded(model, images, n))
        setting.within(f"GiB to encode {size} at once", peak, size * 0.5, size * 0.8)
    sizes = sorted(found)
    difference = max(float((found[size] - found[sizes[0]]).abs().max()) for size in sizes)
    setting.write(
        "largest difference of latents, in other batches", difference, "at most 0.01", difference <= 0.01
    )
    finite = all(bool(each.isfinite().all()) for each in found.values())
    setting.write("all latents are finite", finite, "True", finite)
    for size in (2, 16, 32)[: setting.few(3)]:
        latents = torch.randn(size, *model.latent_shape(setting.pixels), generator=generator).to(
            setting.device
        )
        took = setting.seconds(lambda given=latents: model.decode(given))
        setting.write(f"ms an image to decode, {size} at once", 1000 * took / size)
        setting.within(
            f"GiB to decode {size} at once",
            setting.peak_gib(lambda given=latents: model.decode(given)),
            0,
            size * 0.9,
        )


def _encoded(model: Any, images: Any, size: int) -> Any:
    """Latents of ``images``, ``size`` of them through the autoencoder at once: more than auditor would."""
    import torch

    with torch.no_grad():
        parts = (part.to(model.device, torch.float32) / 127.5 - 1 for part in images.split(size))
        return torch.cat([model.family.encode(model.parts, pixels)[0] for pixels in parts])
