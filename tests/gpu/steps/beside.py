"""Step 6: what the CPU does beside the drawing: pictures, digests, CLIP, the weights of a model state."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.gpu.setting import Setting

if TYPE_CHECKING:
    from torch import Tensor

_CLIP = "ViT-B-32-quickgelu"


def run(setting: Setting) -> None:
    """One thread, then eight."""
    import torch

    generator = torch.Generator().manual_seed(0)
    many = setting.few(16, 4)
    small = torch.randint(0, 255, (many, 3, 8, 8), generator=generator).float()
    images = torch.nn.functional.interpolate(small, size=setting.pixels, mode="bicubic").clamp(0, 255).byte()
    _pictures(setting, images)
    _clip(setting, images)
    _weights(setting)


def _pictures(setting: Setting, images: Tensor) -> None:
    from auditor._files.images import PictureStore, flaw_of, to_png

    many = len(images)
    took = setting.seconds(lambda: [to_png(image) for image in images])
    setting.within("ms of a PNG", 1000 * took / many, 5, 80)
    contents = [to_png(image) for image in images]
    setting.write("bytes of a PNG", sum(map(len, contents)) // many)
    took = setting.seconds(lambda: [hashlib.sha256(content).hexdigest() for content in contents])
    setting.write("ms of sha256", 1000 * took / many)
    took = setting.seconds(lambda: [flaw_of(image, True) for image in images])
    setting.within("ms of looking for flaws", 1000 * took / many, 0, 15)
    for threads in (1, 8):
        store = PictureStore(setting.work / f"pictures-{threads}")
        with ThreadPoolExecutor(threads) as pool:
            took = setting.seconds(lambda s=store, p=pool: list(p.map(s.save, images)))
        setting.write(f"ms to save an image, {threads} threads", 1000 * took / many)
    took = setting.seconds(lambda: _synced(setting.work / "synced", contents[0]), setting.few(10))
    setting.write("ms of fsync", 1000 * took)


def _synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _clip(setting: Setting, images: Tensor) -> None:
    """A CLIP of the detector's shape, with random weights."""
    from auditor.builtins.clip.model import Clip

    clip = Clip("micro") if setting.small else Clip(f"local-dir:{_random_clip(setting.work / 'clip')}")
    clip.image_features(images)
    took = setting.seconds(lambda: clip.image_features(images))
    setting.within("ms an image of CLIP, resized on the CPU", 1000 * took / len(images), 1, 20)


def _random_clip(folder: Path) -> Path:
    import json

    import open_clip
    from safetensors.torch import save_file

    model: Any = open_clip.create_model(_CLIP)
    folder.mkdir()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": open_clip.get_model_config(_CLIP), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _weights(setting: Setting) -> None:
    """The digest of a model state, and keeping one that was fine-tuned in full."""
    from auditor._audit.run_folder.arms import ArmStore, digest_of_arm

    model = setting.model()
    setting.within("seconds of a model state's digest", setting.seconds(lambda: digest_of_arm(model)), 0, 6)
    tensors = {f"unet.{name}": value for name, value in model.denoiser.state_dict().items()}
    kept: list[bool] = []
    took = setting.seconds(
        lambda: kept.append(ArmStore(setting.work / "arms").keep(model, tensors, "0" * 64))
    )
    setting.within("seconds to keep a full fine-tune", took, 0, 12)
    setting.write("it was kept", kept[0], "True", kept[0])
