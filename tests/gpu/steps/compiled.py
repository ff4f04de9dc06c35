"""Step 8: what compiling the denoiser is worth. Last, for it is the one that may not end."""

from __future__ import annotations

from dataclasses import replace

from tests.gpu.setting import Setting
from tests.gpu.steps.denoiser import inputs


def run(setting: Setting) -> None:
    """A large batch, then a small one with CUDA graphs."""
    import torch

    if setting.kind == "pretended":
        setting.write("compiled", None, "asked of a GPU or a CPU: what is compiled cannot be pretended")
        return
    model = setting.model()
    with torch.no_grad():
        for latents, mode in ((32, "default"), (4, "reduce-overhead")):
            latents = setting.few(latents)
            given = inputs(setting, model, latents)
            eager = model.predict(*given)
            before = setting.seconds(lambda g=given: model.predict(*g), setting.few(10))
            backend = {"backend": "eager"} if setting.small else {"mode": mode}
            made = torch.compile(model.denoiser, **backend)
            own = replace(model, parts=model.parts | {model.family.denoiser: made})
            name = f"{latents} latents, {mode}"
            took = setting.seconds(lambda m=own, g=given: m.predict(*g))
            setting.within(f"seconds to compile, {name}", took, 20, 100)
            result = own.predict(*given).clone()
            after = setting.seconds(lambda m=own, g=given: m.predict(*g), setting.few(10))
            setting.within(f"times as fast as eager, {name}", before / after, 1.1, 3)
            difference = float((result - eager).abs().max() / eager.abs().max())
            setting.write(
                f"largest difference to eager, {name}", difference, "at most 0.05", difference <= 0.05
            )
