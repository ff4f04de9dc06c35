"""Files that programs of the field write, one row each: who writes it, how it is written here, what is right.

The documentation's table is made of these rows, and each row is tested:
:mod:`tests.checkpoint.wild.test_forms`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from tests.checkpoint.originals import original_unet_name, write_single_file
from tests.checkpoint.wild import world as worlds
from tests.checkpoint.wild.world import Tensors, World, flat, settings, write

Written = tuple[Path, Tensors | None]
"""A file, and the tensors that it has to make of the base's (None: it is refused)."""


@dataclass(frozen=True)
class Row:
    """A form of file: the program that writes it, whether it is read, and the words that a refusal holds."""

    form: str
    program: str
    make: Callable[[World, Path], Written]
    refused: str = ""
    why: str = ""
    """Why it is refused, for the table."""


ROWS: list[Row] = []


def row(
    form: str, program: str, refused: str = "", why: str = ""
) -> Callable[..., Callable[[World, Path], Written]]:
    def add(make: Callable[[World, Path], Written]) -> Callable[[World, Path], Written]:
        ROWS.append(Row(form, program, make, refused, why))
        return make

    return add


def _bare(world: World, layer: str, rank: int = 4) -> Tensors:
    """A LoRA of one layer in the names that a UNet saves itself."""
    up, down = world.pair(layer, rank)
    return {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}


def _product(up: Tensor, down: Tensor) -> Tensor:
    return up.double().flatten(1) @ down.double().flatten(1)


# -- diffusers and peft --------------------------------------------------------------------------------------


@row("LoRA, bare names, settings in the metadata", "diffusers: UNet.save_lora_adapter")
def diffusers_adapter(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    named = _bare(world, query)
    path = write(out / "a.safetensors", named, settings(r=4, lora_alpha=16, target_modules=[query]))
    return path, worlds.by_diffusers_unet(world, path)


@row("LoRA, rank-stabilised (rslora)", "diffusers: UNet.save_lora_adapter")
def diffusers_rslora(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    named = _bare(world, query)
    meta = settings(r=4, lora_alpha=16, use_rslora=True, target_modules=[query])
    path = write(out / "a.safetensors", named, meta)
    return path, worlds.by_diffusers_unet(world, path)


@row("LoRA, rank and alpha patterns", "diffusers: UNet.save_lora_adapter")
def diffusers_patterns(world: World, out: Path) -> Written:
    query, key = world.layer("unet", "attn1.to_q"), world.layer("unet", "attn2.to_k")
    named = {}
    for layer, rank in ((query, 4), (key, 8)):
        named |= _bare(world, layer, rank)
    patterns = {"rank_pattern": {key: 8}, "alpha_pattern": {key: 2.0}}
    meta = settings(r=4, lora_alpha=8, target_modules=[query, key], **patterns)
    path = write(out / "a.safetensors", named, meta)
    return path, worlds.by_diffusers_unet(world, path)


@row(
    "LoRA of UNet and text encoder, settings in the metadata",
    "diffusers: save_lora_weights, its training scripts",
)
def diffusers_pipeline(world: World, out: Path) -> Written:
    query, text = world.layer("unet", "attn1.to_q"), world.layer("text_encoder", "self_attn.q_proj")
    up, down = world.pair(query, 4)
    named = {f"unet.{query}.lora_A.weight": down, f"unet.{query}.lora_B.weight": up}
    meta = settings("unet.", r=4, lora_alpha=16, target_modules=[query])
    more = settings("text_encoder.", r=2, lora_alpha=6, target_modules=[text])
    both = json.loads(meta["lora_adapter_metadata"]) | json.loads(more["lora_adapter_metadata"])
    up, down = world.pair(text, 2, "text_encoder")
    named |= {f"text_encoder.{text}.lora_A.weight": down, f"text_encoder.{text}.lora_B.weight": up}
    path = write(out / "a.safetensors", named, {"format": "pt", "lora_adapter_metadata": json.dumps(both)})
    return path, worlds.by_diffusers_pipeline(world, path)


@row("LoRA without settings (strength 1 is assumed)", "diffusers before it wrote metadata")
def diffusers_plain(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {f"unet.{query}.lora.down.weight": down, f"unet.{query}.lora.up.weight": up}
    path = write(out / "a.safetensors", named)
    return path, worlds.by_diffusers_pipeline(world, path)


@row("LoRA in the names of attention processors", "diffusers' first form")
def diffusers_processors(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    named, added = {}, {}
    for end, layer in (("to_q", query), ("to_out", query.replace("to_q", "to_out.0"))):
        up, down = world.pair(layer, 4)
        start = f"unet.{query.removesuffix('.to_q')}.processor.{end}_lora"
        named |= {f"{start}.down.weight": down, f"{start}.up.weight": up}
        added[f"unet.{layer}.weight"] = _product(up, down)
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


@row("DoRA", "diffusers and peft (use_dora)")
def diffusers_dora(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {
        f"{query}.lora_A.weight": down,
        f"{query}.lora_B.weight": up,
        f"{query}.lora_magnitude_vector": world.random(world.shape(query)[0]).abs() + 0.5,
    }
    meta = settings(r=4, lora_alpha=8, use_dora=True, target_modules=[query])
    path = write(out / "a.safetensors", named, meta)
    return path, worlds.by_diffusers_unet(world, path)


@row("LoRA with biases of its own", "peft (lora_bias)")
def peft_bias(world: World, out: Path) -> Written:
    layer = world.layer("unet", "attn1.to_out.0")
    up, down = world.pair(layer, 4)
    bias = world.random(world.shape(layer)[0])
    named = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up, f"{layer}.lora_B.bias": bias}
    meta = settings(r=4, lora_alpha=8, lora_bias=True, target_modules=[layer])
    path = write(out / "a.safetensors", named, meta)
    return path, worlds.by_diffusers_unet(world, path)


@row("adapter_model.safetensors with adapter_config.json", "peft: save_pretrained")
def peft_folder(world: World, out: Path) -> Written:
    torch.manual_seed(6)
    config = LoraConfig(
        r=4, lora_alpha=16, init_lora_weights=False, target_modules=["attn2.to_k", "conv1", "proj_in"]
    )
    get_peft_model(world.modules()["unet"], config).save_pretrained(out / "peft")
    return out / "peft", worlds.by_peft(world, out / "peft")


@row("a model's own state with its adapter on (base_layer)", "peft, saved by hand")
def peft_state(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {
        name.removeprefix("unet.").replace(f"{query}.", f"{query}.base_layer."): value * 1.01
        for name, value in world.weights.items()
        if name.startswith("unet.")
    }
    named |= {f"{query}.lora_A.default.weight": down, f"{query}.lora_B.default.weight": up}
    added = {name: 0.01 * value.double() for name, value in world.weights.items() if name.startswith("unet.")}
    added[f"unet.{query}.weight"] = added[f"unet.{query}.weight"] + _product(up, down)
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


# -- kohya and LyCORIS ---------------------------------------------------------------------------------------


@row("LoRA of UNet and text encoder, an alpha a layer", "kohya: sd-scripts")
def kohya(world: World, out: Path) -> Written:
    named = {}
    layers = [("unet", end, 4, 1.0) for end in ("attn1.to_q", "ff.net.0.proj", "conv1", "proj_in", "conv_in")]
    layers += [("unet", end, 8, 16.0) for end in ("attn2.to_k", "time_emb_proj", "conv_out")]
    layers += [("text_encoder", end, 4, 2.0) for end in ("self_attn.q_proj", "mlp.fc1")]
    for part, end, rank, alpha in layers:
        layer = world.layer(part, end)
        up, down = world.pair(layer, rank, part)
        name = flat(layer, part)
        named |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        named[f"{name}.alpha"] = torch.tensor(alpha)
    return write(out / "a.safetensors", named), worlds.by_lycoris(world, named)


@row("LoRA of which one layer has no alpha (there it is the rank)", "kohya: sd-scripts, merged by others")
def kohya_one_alpha(world: World, out: Path) -> Written:
    query, key = world.layer("unet", "attn1.to_q"), world.layer("unet", "attn2.to_k")
    named, added = {}, {}
    for layer, rank, alpha in ((query, 4, 1.0), (key, 8, None)):
        up, down = world.pair(layer, rank)
        named |= {f"{flat(layer)}.lora_up.weight": up, f"{flat(layer)}.lora_down.weight": down}
        if alpha is not None:
            named[f"{flat(layer)}.alpha"] = torch.tensor(alpha)
        added[f"unet.{layer}.weight"] = _product(up, down) * (alpha or rank) / rank
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


@row("LoRA in the original block names (input_blocks)", "sd-scripts, ComfyUI (diffusion_model.)")
def original_blocks(world: World, out: Path) -> Written:
    unet = world.model.unet
    attended = {block: hasattr(unet.up_blocks[block], "attentions") for block in range(len(unet.up_blocks))}
    named, added = {}, {}
    layers = [
        world.layer("unet", end)
        for end in ("attn1.to_q", "conv1", "upsamplers.0.conv", "time_embedding.linear_1")
    ]
    for number, layer in enumerate(layers):
        other = original_unet_name(f"{layer}.weight", unet.config.layers_per_block, attended).removesuffix(
            ".weight"
        )
        up, down = world.pair(layer, 4)
        start = f"lora_unet_{other.replace('.', '_')}" if number % 2 else f"diffusion_model.{other}"
        ends = (
            (".lora_up.weight", ".lora_down.weight") if number % 2 else (".lora_B.weight", ".lora_A.weight")
        )
        named |= {f"{start}{ends[0]}": up, f"{start}{ends[1]}": down, f"{start}.alpha": torch.tensor(2.0)}
        added[f"unet.{layer}.weight"] = _product(up, down) / 2
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


@row("alpha tensors beside diffusers' names", "ComfyUI, OneTrainer")
def alpha_beside(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {f"unet.{query}.lora_A.weight": down, f"unet.{query}.lora_B.weight": up}
    named[f"unet.{query}.alpha"] = torch.tensor(1.0)
    return write(out / "a.safetensors", named), worlds.by_hand(
        world, {f"unet.{query}.weight": _product(up, down) / 4}
    )


@row("flat LoRA of a 1 x 1 convolution", "sd-scripts, for a base with linear projections")
def flat_projection(world: World, out: Path) -> Written:
    layer = world.layer("unet", "proj_in")
    wide = world.shape(layer)[0]
    up, down = world.random(wide, 4), world.random(4, wide)
    named = {f"{flat(layer)}.lora_up.weight": up, f"{flat(layer)}.lora_down.weight": down}
    return write(out / "a.safetensors", named), worlds.by_hand(
        world, {f"unet.{layer}.weight": _product(up, down)}
    )


@row("SPM (rank 1), as a plain LoRA at strength 1", "SPM")
def spm(world: World, out: Path) -> Written:
    named, added = {}, {}
    for end in ("attn2.to_k", "attn2.to_v"):
        layer = world.layer("unet", end)
        up, down = world.pair(layer, 1)
        named |= {f"{flat(layer)}.lora_up.weight": up, f"{flat(layer)}.lora_down.weight": down}
        named[f"{flat(layer)}.alpha"] = torch.tensor(1.0)
        added[f"unet.{layer}.weight"] = _product(up, down)
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


def _lycoris(world: World, out: Path, named: Tensors) -> Written:
    return write(out / "a.safetensors", named), worlds.by_lycoris(world, named)


@row("LoCon with CP decomposition (lora_mid)", "LyCORIS")
def locon_cp(world: World, out: Path) -> Written:
    layer = world.layer("unet", "conv1")
    rows, columns, *kernel = world.shape(layer)
    name = flat(layer)
    named = {
        f"{name}.lora_up.weight": world.random(rows, 4, 1, 1),
        f"{name}.lora_mid.weight": world.random(4, 4, *kernel),
        f"{name}.lora_down.weight": world.random(4, columns, 1, 1),
        f"{name}.alpha": torch.tensor(2.0),
    }
    return _lycoris(world, out, named)


@row("LoHa, linear and convolution", "LyCORIS")
def loha(world: World, out: Path) -> Written:
    named, added = {}, {}
    for end in ("attn1.to_q", "conv1"):
        rows, columns, *kernel = world.shape(layer := world.layer("unet", end))
        wide = columns * (kernel[0] * kernel[1] if kernel else 1)
        parts = [world.random(4, wide), world.random(rows, 4), world.random(4, wide), world.random(rows, 4)]
        for role, value in zip(("w1_b", "w1_a", "w2_b", "w2_a"), parts, strict=True):
            named[f"{flat(layer)}.hada_{role}"] = value
        named[f"{flat(layer)}.alpha"] = torch.tensor(2.0)
        added[f"unet.{layer}.weight"] = worlds.lycoris_function("loha")(*parts, None, None, gamma=0.5)
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


@row("LoHa with Tucker decomposition", "LyCORIS")
def loha_tucker(world: World, out: Path) -> Written:
    rows, columns, *kernel = world.shape(layer := world.layer("unet", "conv1"))
    parts = [world.random(4, columns), world.random(4, rows), world.random(4, columns), world.random(4, rows)]
    parts += [world.random(4, 4, *kernel), world.random(4, 4, *kernel)]
    roles = ("w1_b", "w1_a", "w2_b", "w2_a", "t1", "t2")
    named = {f"{flat(layer)}.hada_{role}": value for role, value in zip(roles, parts, strict=True)}
    named[f"{flat(layer)}.alpha"] = torch.tensor(2.0)
    added = worlds.lycoris_function("loha")(*parts, gamma=0.5)
    return write(out / "a.safetensors", named), worlds.by_hand(world, {f"unet.{layer}.weight": added})


@row("LoKr: whole, low-rank and Tucker factors", "LyCORIS")
def lokr(world: World, out: Path) -> Written:
    named: Tensors = {}
    added: Tensors = {}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    (rows, columns), (more, wide), (tall, deep, *kernel) = (
        world.shape(world.layer("unet", end)) for end in ("attn1.to_q", "attn2.to_k", "conv1")
    )
    shapes["attn1.to_q"] = {"w1": (4, 4), "w2": (rows // 4, columns // 4)}
    shapes["attn2.to_k"] = {"w1_a": (4, 2), "w1_b": (2, 4), "w2_a": (more // 4, 2), "w2_b": (2, wide // 4)}
    shapes["conv1"] = {"w1": (2, 2), "w2_a": (2, tall // 2), "w2_b": (2, deep // 2), "t2": (2, 2, *kernel)}
    for end, own in shapes.items():
        layer = world.layer("unet", end)
        held = {role: world.random(*shape) for role, shape in own.items()}
        named |= {f"{flat(layer)}.lokr_{role}": value for role, value in held.items()}
        named[f"{flat(layer)}.alpha"] = torch.tensor(0.5)
        roles = [held.get(role) for role in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")]
        added[f"unet.{layer}.weight"] = worlds.lycoris_function("lokr", "kron_weight")(
            *roles, scale=1.0 if end == "attn1.to_q" else 0.25
        )
    return write(out / "a.safetensors", named), worlds.by_hand(world, added)


@row("DoRA in kohya's names (dora_scale)", "LyCORIS, OneTrainer")
def dora_scale(world: World, out: Path) -> Written:
    named = {}
    for end in ("attn1.to_q", "conv1"):
        layer = world.layer("unet", end)
        up, down = world.pair(layer, 4)
        rows, _, *kernel = world.shape(layer)
        named |= {f"{flat(layer)}.lora_up.weight": up, f"{flat(layer)}.lora_down.weight": down}
        named[f"{flat(layer)}.alpha"] = torch.tensor(2.0)
        named[f"{flat(layer)}.dora_scale"] = world.random(rows, 1, *[1] * len(kernel)).abs() + 0.5
    return _lycoris(world, out, named)


@row("DoRA with a magnitude a column", "LyCORIS before 3.2, kohya")
def dora_columns(world: World, out: Path) -> Written:
    layer = world.layer("unet", "attn1.to_q")
    up, down = world.pair(layer, 4)
    scale = world.random(1, world.shape(layer)[1]).abs() + 0.5
    named = {f"{flat(layer)}.lora_up.weight": up, f"{flat(layer)}.lora_down.weight": down}
    named |= {f"{flat(layer)}.alpha": torch.tensor(4.0), f"{flat(layer)}.dora_scale": scale}
    before = world.weights[f"unet.{layer}.weight"].double()
    after = before + _product(up, down)
    after = after * scale.double() / after.norm(dim=0, keepdim=True)
    return write(out / "a.safetensors", named), worlds.by_hand(
        world, {f"unet.{layer}.weight": after - before}
    )


@row("whole differences and norms", "LyCORIS (full, norm), ComfyUI")
def differences(world: World, out: Path) -> Written:
    layer, norm = world.layer("unet", "attn1.to_out.0"), world.layer("unet", "norm1")
    named = {
        f"{flat(layer)}.diff": world.random(*world.shape(layer)),
        f"{flat(layer)}.diff_b": world.random(world.shape(layer)[0]),
        f"{flat(norm)}.w_norm": world.random(*world.shape(norm)),
        f"{flat(norm)}.b_norm": world.random(*world.shape(norm)),
    }
    return _lycoris(world, out, named)


@row("(IA)^3", "LyCORIS")
def ia3(world: World, out: Path) -> Written:
    layer = world.layer("unet", "attn2.to_k")
    scale = world.random(world.shape(layer)[0])
    named = {f"{flat(layer)}.weight": scale, f"{flat(layer)}.on_input": torch.tensor(0)}
    before = world.weights[f"unet.{layer}.weight"].double()
    added = before * scale.double()[:, None]
    return write(out / "a.safetensors", named), worlds.by_hand(world, {f"unet.{layer}.weight": added})


# -- erasers' own results ------------------------------------------------------------------------------------


def _some(world: World, out: Path, chosen: Callable[[str], bool], start: str = "") -> Written:
    held = {
        name.removeprefix("unet."): (value.float() * 1.02).bfloat16()
        for name, value in world.weights.items()
        if name.startswith("unet.") and chosen(name)
    }
    added = {
        f"unet.{name}": value.double() - world.weights[f"unet.{name}"].double()
        for name, value in held.items()
    }
    path = write(out / "a.safetensors", {f"{start}{name}": value for name, value in held.items()})
    return path, worlds.by_hand(world, added)


def _is_layer(world: World) -> Callable[[str], bool]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = {name for name, module in world.model.unet.named_modules() if isinstance(module, kinds)}
    return lambda name: name.removeprefix("unet.").rpartition(".")[0] in layers


@row("changed tensors: every linear layer and convolution", "ESD (esd-all)")
def esd_all(world: World, out: Path) -> Written:
    return _some(world, out, _is_layer(world))


@row("changed tensors: all but cross-attention", "ESD (esd-u)")
def esd_u(world: World, out: Path) -> Written:
    inside = _is_layer(world)
    return _some(world, out, lambda name: inside(name) and "attn2" not in name)


@row("changed tensors: cross-attention", "ESD (esd-x), UCE, MACE")
def esd_x(world: World, out: Path) -> Written:
    return _some(world, out, lambda name: "attn2" in name)


@row("changed tensors under unet.", "UCE, others")
def prefixed(world: World, out: Path) -> Written:
    return _some(world, out, lambda name: "attn2" in name, "unet.")


@row("a whole UNet", "diffusers")
def whole_unet(world: World, out: Path) -> Written:
    return _some(world, out, lambda name: True)


@row("a UNet in the original names", "CompVis, ESD's first code")
def original_unet(world: World, out: Path) -> Written:
    unet = world.model.unet
    attended = {block: hasattr(unet.up_blocks[block], "attentions") for block in range(len(unet.up_blocks))}
    path, wanted = _some(world, out, lambda name: True)
    from safetensors.torch import load_file

    named = {
        f"model.diffusion_model.{original_unet_name(name, unet.config.layers_per_block, attended)}": value
        for name, value in load_file(path).items()
    }
    return write(out / "b.safetensors", named), wanted


# -- whole models --------------------------------------------------------------------------------------------


def _single(world: World, out: Path) -> Tensors:
    from safetensors.torch import load_file

    write_single_file(world.model, out / "whole.safetensors")
    return load_file(out / "whole.safetensors")


@row("a whole model in the original names", "CompVis, WebUI, ComfyUI")
def single_file(world: World, out: Path) -> Written:
    schedule = {"alphas_cumprod": torch.rand(1000), "betas": torch.rand(1000)}
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return write(out / "a.safetensors", _single(world, out) | schedule | counters), dict(world.weights)


@row("a whole model with a text encoder in OpenCLIP's names", "Stable Diffusion 2's own files")
def open_clip_file(world: World, out: Path) -> Written:
    tensors = {name: value for name, value in _single(world, out).items() if "cond_stage_model" not in name}
    start, layers = "cond_stage_model.model.", 0
    held = {
        name.removeprefix("text_encoder."): value
        for name, value in world.weights.items()
        if "unet." not in name
    }
    for name, value in held.items():
        plain = name.removeprefix("text_model.")
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", plain)
        if found is None:
            other = {
                "embeddings.token_embedding.weight": "token_embedding.weight",
                "embeddings.position_embedding.weight": "positional_embedding",
            }
            tensors[start + other.get(plain, plain.replace("final_layer_norm", "ln_final"))] = value
            continue
        number, layer, kind = found.groups()
        layers = max(layers, int(number) + 1)
        block = f"{start}transformer.resblocks.{number}."
        if layer == "self_attn.q_proj":
            parts = [held[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            tensors[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
        elif layer not in ("self_attn.k_proj", "self_attn.v_proj"):
            names = {
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }
            tensors[f"{block}{names.get(layer, layer.replace('self_attn', 'attn'))}.{kind}"] = value
    tensors[f"{start}text_projection"] = world.random(
        8, 8
    )  # no program draws with it, nor with the last layer
    tensors[f"{start}transformer.resblocks.{layers}.ln_1.weight"] = world.random(8)
    return write(out / "a.safetensors", tensors), dict(world.weights)


@row(
    "a whole model with adapter layers inside",
    "GLIGEN, IP-Adapter",
    "beside the model's own.*adapter",
    "named",
)
def adapters_inside(world: World, out: Path) -> Written:
    tensors = _single(world, out)
    query = next(name for name in tensors if name.endswith("attn2.to_q.weight"))
    more = {query.replace("to_q.weight", "to_k_ip.weight"): world.random(4, 4)}
    return write(out / "a.safetensors", tensors | more), None


@row(
    "a whole model with averages beside (model_ema)",
    "CompVis",
    "beside the model's own",
    "programs differ in which they take",
)
def averages(world: World, out: Path) -> Written:
    tensors = _single(world, out)
    name = next(name for name in tensors if name.startswith("model.diffusion_model."))
    return write(
        out / "a.safetensors", tensors | {f"model_ema.{name.replace('.', '')}.x": tensors[name].clone()}
    ), None


@row("a whole model without one part", "–", "has no vae", "by that tensor's name")
def without_vae(world: World, out: Path) -> Written:
    tensors = {name: value for name, value in _single(world, out).items() if "first_stage_model" not in name}
    return write(out / "a.safetensors", tensors), None


@row(
    "a whole model without one tensor",
    "–",
    "has no model.diffusion_model.out.2.weight",
    "by that tensor's name",
)
def without_a_tensor(world: World, out: Path) -> Written:
    tensors = _single(world, out)
    del tensors["model.diffusion_model.out.2.weight"]
    return write(out / "a.safetensors", tensors), None


# -- refused -------------------------------------------------------------------------------------------------


def _beside(world: World, out: Path, more: dict[str, Any], less: str = "") -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {f"{flat(query)}.lora_up.weight": up, f"{flat(query)}.lora_down.weight": down, **more}
    named.pop(f"{flat(query)}.{less}", None)
    return write(out / "a.safetensors", named), None


@row("one half of a LoRA", "–", r"holds one half .* is missing", "a factor is missing")
def half(world: World, out: Path) -> Written:
    return _beside(world, out, {}, less="lora_up.weight")


@row(
    "a layer that the base has not", "a LoRA of another family", r"no layer for unet\.down_blocks\.9", "named"
)
def other_layer(world: World, out: Path) -> Written:
    return _beside(world, out, {"unet.down_blocks.9.attn1.to_q.lora_B.weight": world.random(4, 4)})


@row("a tensor that is no part of any kind", "–", r"has no place in what is merged", "by that tensor's name")
def unknown(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    return _beside(world, out, {f"{flat(query)}.scalar": torch.tensor(2.0)})


@row(
    "two adapters in one file",
    "peft, saved by hand",
    "several adapters",
    "one is merged",
)
def two_adapters(world: World, out: Path) -> Written:
    query, key = world.layer("unet", "attn1.to_q"), world.layer("unet", "attn2.to_k")
    named = {}
    for layer, adapter in ((query, "default"), (key, "other")):
        up, down = world.pair(layer, 4)
        named |= {f"{layer}.lora_A.{adapter}.weight": down, f"{layer}.lora_B.{adapter}.weight": up}
    return write(out / "a.safetensors", named), None


@row("a bundled embedding", "OneTrainer, WebUI", "bundled embedding", "it changes words too")
def bundle(world: World, out: Path) -> Written:
    return _beside(world, out, {"bundle_emb.cat.emb_params": world.random(2, 128)})


@row("OFT, GLoRA", "LyCORIS", "which is not merged", "not computed here")
def oft(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    return _beside(world, out, {f"{flat(query)}.oft_blocks": world.random(2, 4, 4)})


@row("a LoRA of Stable Diffusion XL", "sd-scripts", "for Stable Diffusion XL", "another family")
def of_xl(world: World, out: Path) -> Written:
    return _beside(
        world, out, {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": world.random(4, 4)}
    )


@row("alpha 0", "–", "which programs read in different ways", "programs disagree")
def alpha_zero(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    return _beside(world, out, {f"{flat(query)}.alpha": torch.tensor(0.0)})


@row("two strengths of one layer", "–", "says two strengths", "alpha and settings disagree")
def two_strengths(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    up, down = world.pair(query, 4)
    named = {
        f"{query}.lora_A.weight": down,
        f"{query}.lora_B.weight": up,
        f"{query}.alpha": torch.tensor(1.0),
    }
    return write(out / "a.safetensors", named, settings(r=4, lora_alpha=4, target_modules=[query])), None


@row("settings of other layers", "–", "not among the target_modules", "programs would not load them")
def other_targets(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    named = _bare(world, query)
    return write(out / "a.safetensors", named, settings(r=4, lora_alpha=4, target_modules=["to_v"])), None


@row(
    "a LoRA begun from the base's singular values",
    "peft (PiSSA, OLoRA)",
    "begun by changing",
    "its base is another",
)
def pissa(world: World, out: Path) -> Written:
    query = world.layer("unet", "attn1.to_q")
    named = _bare(world, query)
    meta = settings(r=4, lora_alpha=4, init_lora_weights="pissa", target_modules=[query])
    return write(out / "a.safetensors", named, meta), None


@row("integers as weights", "ComfyUI (int8)", r"of the kind I8", "no weights without their scale")
def integers(world: World, out: Path) -> Written:
    key = world.layer("unet", "attn2.to_k")
    return write(
        out / "a.safetensors", {f"{key}.weight": torch.ones(world.shape(key), dtype=torch.int8)}
    ), None


@row(
    "adapter layers beside the UNet's own",
    "Receler, GLIGEN, IP-Adapter",
    "which the base has not",
    "by that tensor's name",
)
def adapter_layers(world: World, out: Path) -> Written:
    key = world.layer("unet", "attn2.to_k")
    named = {
        f"{key}.weight": world.random(*world.shape(key)),
        f"{key.removesuffix('to_k')}to_k_ip.weight": world.random(4, 4),
    }
    return write(out / "a.safetensors", named), None


@row(
    "a file that says v-prediction over a base that says noise",
    "sd-scripts, NovelAI's markers",
    "--prediction",
    "unless chosen with --prediction",
)
def v_prediction(world: World, out: Path) -> Written:
    key = world.layer("unet", "attn2.to_k")
    named = {f"{key}.weight": world.random(*world.shape(key)), "v_pred": torch.empty(0)}
    return write(out / "a.safetensors", named), None


@row("adapter_config.json of another kind", "peft (LoHa, OFT, …)", "adapter of the kind", "not computed here")
def other_kind(world: World, out: Path) -> Written:
    path, _ = peft_folder(world, out)
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    (path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}), encoding="utf-8")
    shutil.move(path, out / "other")
    return out / "other", None


def table() -> str:
    """The documentation's table of these rows, in Markdown."""
    lines = [
        "# Which files are read",
        "",
        "This page is a table of the files that programs of the field write, and of what auditor makes of "
        "each.",
        "",
        "One file over a base (`--base`), as programs of the field write it. The table is made from the "
        "tests, which "
        "write each",
        "file and compare what is loaded with the loader that defines its form (largest relative error "
        "1e-6), or with "
        "the refusal's",
        "reason: `python -m tests.checkpoint.wild.forms > docs/forms.md`. Every tensor of a file has a "
        "place in what is "
        "loaded, or the",
        "file is refused with that tensor's name; how strongly an adapter is added is in the report.",
        "",
        "| form | written by | read? |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {row.form} | {row.program} | {f'refused: {row.why}' if row.refused else 'read'} |" for row in ROWS
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
