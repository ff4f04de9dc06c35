"""What the checkpoints of Stable Diffusion 1.x and 2.x are on disk, where admission asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from auditor._files.safetensors_header import Header
from auditor.families.clip import vocabulary
from auditor.families.on_disk import Configs, Form, OnDisk, Piece, Shapes, Words
from auditor.families.stable_diffusion import names, original_names, prediction, refusals
from auditor.families.stable_diffusion import single_file as single
from auditor.families.stable_diffusion.components import (
    ADAPTERS,
    COMPONENTS,
    CONFIGURATIONS,
    SCHEDULES,
    SINGLE_FILE_PARTS,
)

_VERSIONS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
_TOKENIZER = "tokenizer"


class StableDiffusionFiles(OnDisk):
    """A UNet, an autoencoder and one CLIP text encoder, in a diffusers folder or in the files of other
    programs."""

    name = "stable-diffusion"
    title = "Stable Diffusion"
    denoiser = "unet"
    text = ("text_encoder",)
    decoder = "vae"
    denoiser_title = "UNet"
    components = COMPONENTS
    configurations = CONFIGURATIONS
    schedules = SCHEDULES
    word_files = tuple(f"{_TOKENIZER}/{name}" for name in vocabulary.FILES)
    adapters = ADAPTERS
    known_tensors = single.KNOWN
    whole_denoiser = Form.UNET
    single_file = SINGLE_FILE_PARTS
    other_prefixes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unet": ("model.diffusion_model.", "diffusion_model.", ""),
        "text_encoder": ("text_encoder.",),
    }
    markers = prediction.MARKERS
    counters = single.COUNTERS

    def build(self, component: str, config: Mapping[str, Any]) -> Any:
        """Of diffusers, or CLIP's text model of transformers."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        if component == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict({**config, "attn_implementation": "sdpa"}))
        return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component].from_config(dict(config))

    def read_words(self, source: str, read: Callable[[str], bytes | None]) -> vocabulary.Vocabulary:
        """CLIP's."""
        return vocabulary.read_vocabulary(source, lambda name: read(f"{_TOKENIZER}/{name}"))

    def refuse_what_cannot_draw(
        self, source: str, words: Words, configs: Configs, schedule: Mapping[str, Any]
    ) -> None:
        """A prompt's words, and steps of every scheduler that is used."""
        assert isinstance(words, vocabulary.Vocabulary)
        refusals.refuse_what_cannot_draw(source, words, configs["text_encoder"], schedule)

    def refuse_index(self, source: str, index: Mapping[str, Any]) -> None:
        """Stable Diffusion XL and 3, Flux, inpainting."""
        refusals.refuse_by_name(source, index)

    def refuse_configs(self, source: str, configs: Configs) -> None:
        """Latents without a scale."""
        refusals.refuse_scale(source, configs["vae"])

    def refuse_denoiser(self, source: str, shapes: Shapes) -> None:
        """UNets of other families, and transformers."""
        refusals.refuse_unet(source, shapes)

    def plain_name(self, name: str) -> str:
        """Without the text model's prefix, attention as diffusers calls it today."""
        return names.plain_name(name)

    def is_buffer(self, name: str) -> bool:
        """Positions of tokens."""
        return names.is_buffer(name)

    def is_unused(self, component: str, name: str, config: Mapping[str, Any]) -> bool:
        """Skipped layers of the text encoder, and its projection."""
        return names.is_unused(component, name, config)

    def version(self, configs: Configs) -> str | None:
        """By the width of the text that the UNet reads."""
        return _version(configs["unet"].get("cross_attention_dim"))

    def native_size(self, configs: Configs) -> int | None:
        """Latents of the UNet's ``sample_size``, each level but one of the autoencoder twice as large."""
        latent, levels = configs["unet"].get("sample_size"), configs["vae"].get("block_out_channels")
        if type(latent) is not int or not isinstance(levels, list) or not levels:
            return None
        return int(latent * 2 ** (len(levels) - 1))

    def version_of_file(self, shapes: Shapes) -> str | None:
        """By the same width."""
        widths = (
            shape[1]
            for name, shape in shapes.items()
            if "attn2.to_k" in name and len(shape) == 2 and "lora" not in name
        )
        return _version(next(widths, None))

    def form_of(self, names: Iterable[str]) -> Form | None:
        """A whole model, a UNet, or some tensors."""
        return single.form_of(names)

    def other_names(self, part: str, names: Iterable[str]) -> Mapping[str, str]:
        """Those of the original UNet, and of transformers' older text model."""
        if part == "unet":
            return original_names.unet_names(names)
        return {name: f"text_model.{name}" for name in names} if part in self.text else {}

    def pieces(self, part: str, own: Iterable[str], names: Iterable[str]) -> Mapping[str, Piece]:
        """In the original names."""
        return single.pieces(part, own, names)

    def is_idle(self, name: str, declared: Mapping[str, Shapes], left: set[str]) -> bool:
        """The training's schedule, OpenCLIP's rest, counters."""
        return single.is_idle(name, declared, left)

    def said_prediction(self, source: str, header: Header) -> str | None:
        """``epsilon`` or ``v_prediction``."""
        return prediction.said_prediction(source, header)

    def refuse_other_noise(
        self, source: str, header: Header, schedule: Mapping[str, Any], where: str
    ) -> None:
        """Zero terminal SNR."""
        prediction.refuse_other_noise(source, header, schedule, where)


def _version(width: object) -> str | None:
    if not isinstance(width, int):
        return None
    return _VERSIONS.get(width, f"UNet with a text width of {width}")
