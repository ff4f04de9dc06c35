"""Makes hostile and broken checkpoints, each from a sound one: what an attacker or a bad upload could hand
in.

``MAKERS`` maps a name to (maker, words of the sentence that refuses it). A maker gets a copy of the micro
base and spoils it. Pickles that would be opened leave a file called ``canary``.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

UNET = Path("unet/diffusion_pytorch_model.safetensors")
VAE = Path("vae/diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder/model.safetensors")
SCHEDULE = "scheduler/scheduler_config.json"

Maker = Callable[[Path], object]


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.mknod, ("canary",)


def header_and_data(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file in its two parts."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(path: Path, header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> None:
    """A safetensors file from its two parts, with a lie about the header's length if wanted."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def edit_header(file: Path, change: Callable[[dict[str, Any]], object]) -> Maker:
    def make(folder: Path) -> None:
        header, data = header_and_data(folder / file)
        change(header)
        write_parts(folder / file, header, data)

    return make


def edit_tensors(file: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Maker:
    def make(folder: Path) -> None:
        tensors = load_file(folder / file)
        change(tensors)
        save_file(tensors, folder / file)

    return make


def edit_json(file: str, **changes: Any) -> Maker:
    def make(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def write(file: str | Path, content: bytes) -> Maker:
    def make(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)

    return make


def remove(file: str | Path) -> Maker:
    return lambda folder: (folder / file).unlink()


def both(*makers: Maker) -> Maker:
    return lambda folder: [make(folder) for make in makers]


def link(file: str | Path, target: str) -> Maker:
    def make(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return make


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = header[min(name for name in header if name != "__metadata__")]
    return entry


def twice(folder: Path) -> None:
    header, data = header_and_data(folder / UNET)
    text = json.dumps(header)
    write_parts(
        folder / UNET,
        ('{"conv_in.bias": ' + json.dumps(header["conv_in.bias"]) + ", " + text[1:]).encode(),
        data,
    )


def rename(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    return lambda header: header.update({new: header.pop(old)})


def overlapping(header: dict[str, Any]) -> None:
    names = sorted(
        (entry["data_offsets"][0], name) for name, entry in header.items() if name != "__metadata__"
    )
    same = [name for _, name in names if header[name]["shape"] == header[names[0][1]]["shape"]]
    header[same[1]]["data_offsets"] = header[same[0]]["data_offsets"]


def sharded(shard: str, *, there: bool = True, lie: bool = False) -> Maker:
    def make(folder: Path) -> None:
        names = header_and_data(folder / UNET)[0].keys() - {"__metadata__"}
        target = (folder / "unet" / shard).resolve() if there else None
        (folder / UNET).rename(target) if target else (folder / UNET).unlink()
        mapped = dict.fromkeys(list(names)[:-1] if lie else names, shard)
        (folder / f"{UNET}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))

    return make


_PICKLE = pickle.dumps(Canary())
_GONE_UNET = remove(UNET)
_DEEP = b"[" * 100_000 + b"]" * 100_000

MAKERS: dict[str, tuple[Maker, str]] = {
    # pickles, wherever diffusers, transformers or peft would look
    "a pickle in place of the unet": (
        both(_GONE_UNET, write("unet/diffusion_pytorch_model.bin", _PICKLE)),
        "only safetensors",
    ),
    "a pickle in place of the vae": (
        both(remove(VAE), write("vae/diffusion_pytorch_model.bin", _PICKLE)),
        "only safetensors",
    ),
    "a pickle in place of the text encoder": (
        both(remove(TEXT), write("text_encoder/pytorch_model.bin", _PICKLE)),
        "only safetensors",
    ),
    "a pickle called safetensors": (write(UNET, _PICKLE), "not a sound safetensors file"),
    "a broken unet beside a pickle": (
        both(write(UNET, b"\x10" + b"\0" * 7 + b"no"), write("unet/diffusion_pytorch_model.bin", _PICKLE)),
        "sound",
    ),
    "a half-precision pickle": (
        both(_GONE_UNET, write("unet/diffusion_pytorch_model.fp16.bin", _PICKLE)),
        "only safetensors",
    ),
    "a sharded pickle": (
        both(
            _GONE_UNET,
            write("unet/x.bin", _PICKLE),
            write("unet/diffusion_pytorch_model.bin.index.json", b'{"weight_map": {"a": "x.bin"}}'),
        ),
        "only safetensors",
    ),
    "shards that are pickles": (
        both(write("unet/x.bin", _PICKLE), write(f"{UNET}.index.json", b'{"weight_map": {"a": "x.bin"}}')),
        "elsewhere",
    ),
    "an adapter of the text encoder": (
        both(
            write("text_encoder/adapter_config.json", b"{}"), write("text_encoder/adapter_model.bin", _PICKLE)
        ),
        "elsewhere",
    ),
    "an adapter of the unet": (write("unet/adapter_model.safetensors", b""), "elsewhere"),
    # headers
    "an empty file": (write(UNET, b""), "sound"),
    "eight bytes": (write(UNET, b"\0" * 8), "sound"),
    "a header longer than the file": (lambda f: write_parts(f / UNET, {}, b"", 2**40), "declares a header"),
    "a header of 2^63 bytes": (lambda f: write_parts(f / UNET, {}, b"", 2**63), "declares a header"),
    "a header of 20 MB": (
        lambda f: write_parts(f / UNET, b"{" + b" " * 20 * 2**20 + b"}", b""),
        "above the limit",
    ),
    "a header that is no JSON": (lambda f: write_parts(f / UNET, b"not json at all", b""), "not JSON"),
    "a header that is a list": (lambda f: write_parts(f / UNET, b"[]", b""), "not a JSON object"),
    "a header that is not UTF-8": (lambda f: write_parts(f / UNET, b'{"\xff": 1}', b""), "not JSON"),
    "a header nested 100,000 deep": (lambda f: write_parts(f / UNET, b'{"a": ' + _DEEP + b"}", b""), "sound"),
    "a header without tensors": (lambda f: write_parts(f / UNET, b"{}", b""), "0 tensors"),
    "60,000 tensors": (
        lambda f: write_parts(
            f / UNET,
            {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(60_000)},
            b"\0" * 60_000,
        ),
        "60000 tensors",
    ),
    "a key that stands twice": (twice, "stands twice"),
    "metadata that is no map of strings": (
        edit_header(UNET, lambda h: h.update(__metadata__={"a": 1})),
        "metadata",
    ),
    "an entry with more keys": (
        edit_header(UNET, lambda h: first(h).update(hook="x")),
        "is not dtype, shape",
    ),
    "an entry that is a list": (
        edit_header(UNET, lambda h: h.update({"conv_in.bias": [1]})),
        "is not dtype, shape",
    ),
    "an unknown kind": (edit_header(UNET, lambda h: first(h).update(dtype="F8_E4M3")), "of the kind"),
    "a kind that is a number": (edit_header(UNET, lambda h: first(h).update(dtype=16)), "of the kind"),
    "a shape of 10^18": (edit_header(UNET, lambda h: first(h).update(shape=[10**18])), "has the shape"),
    "a shape of 10^30": (edit_header(UNET, lambda h: first(h).update(shape=[10**30])), "has the shape"),
    "a shape whose product overflows": (
        edit_header(UNET, lambda h: first(h).update(shape=[2**32, 2**32])),
        "cannot lie",
    ),
    "a negative shape": (edit_header(UNET, lambda h: first(h).update(shape=[-1, -1])), "has the shape"),
    "an empty dimension": (
        edit_header(UNET, lambda h: first(h).update(shape=[0, 10**15], data_offsets=[0, 0])),
        "has the shape",
    ),
    "a shape of fractions": (edit_header(UNET, lambda h: first(h).update(shape=[1.5])), "has the shape"),
    "a shape of truth values": (
        edit_header(UNET, lambda h: first(h).update(shape=[True, True])),
        "has the shape",
    ),
    "a shape of twenty dimensions": (
        edit_header(UNET, lambda h: first(h).update(shape=[1] * 20)),
        "has the shape",
    ),
    "bytes that overlap": (edit_header(UNET, overlapping), "gap or overlap"),
    "offsets the wrong way round": (
        edit_header(UNET, lambda h: first(h).update(data_offsets=first(h)["data_offsets"][::-1])),
        "cannot lie",
    ),
    "offsets past the end": (
        edit_header(UNET, lambda h: first(h).update(data_offsets=[2**40, 2**40 + 2])),
        "cannot lie",
    ),
    "bytes left over at the end": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes() + b"hidden"),
        "and the file at",
    ),
    "a file cut in its tensors": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:100_000]),
        "sound",
    ),
    "a file cut in its header": (
        lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:500]),
        "declares a header",
    ),
    "a name with a way out": (edit_header(UNET, rename("conv_in.bias", "../../etc/passwd")), "has the name"),
    "a name with control characters": (
        edit_header(UNET, rename("conv_in.bias", "\x1b[2Jconv")),
        "has the name",
    ),
    "a name of a million characters": (
        edit_header(UNET, rename("conv_in.bias", "x" * 10**6)),
        "has the name",
    ),
    "an empty name": (edit_header(UNET, rename("conv_in.bias", "")), "has the name"),
    # tensors
    "a missing tensor": (edit_tensors(UNET, lambda t: t.pop("conv_in.bias")), "1 missing"),
    "an extra tensor": (
        edit_tensors(UNET, lambda t: t.update(backdoor=np.ones(1, np.float16))),
        "1 unexpected",
    ),
    "a tensor of another shape": (
        edit_tensors(UNET, lambda t: t.update({"conv_in.bias": np.ones(3, np.float16)})),
        "mismatched",
    ),
    "NaN in the unet": (edit_tensors(UNET, lambda t: t["conv_in.bias"].fill(np.nan)), "NaN or infinite"),
    "infinity in the vae": (
        edit_tensors(VAE, lambda t: next(iter(t.values())).fill(np.inf)),
        "NaN or infinite",
    ),
    "one NaN in the text encoder": (
        edit_tensors(TEXT, lambda t: max(t.values(), key=np.size).reshape(-1).__setitem__(-1, np.nan)),
        "NaN",
    ),
    "a unet of zeros": (edit_tensors(UNET, lambda t: [value.fill(0) for value in t.values()]), "constant"),
    "a unet of ones": (edit_tensors(UNET, lambda t: [value.fill(1) for value in t.values()]), "constant"),
    # configurations
    "a config that is a bomb of brackets": (write("unet/config.json", _DEEP), "cannot be read as JSON"),
    "a config of 10 MB": (write("unet/config.json", b'{"a": "' + b"x" * 10 * 2**20 + b'"}'), "larger than"),
    "a config that is a list": (write("vae/config.json", b"[]"), "not a JSON object"),
    "no config": (remove("unet/config.json"), "cannot be read"),
    "a billion layers": (edit_json("unet/config.json", layers_per_block=10**9), "layers_per_block"),
    "a thousand layers": (edit_json("text_encoder/config.json", num_hidden_layers=1000), "num_hidden_layers"),
    "channels beyond memory": (
        edit_json("unet/config.json", block_out_channels=[10**9, 10**9]),
        "block_out_channels",
    ),
    "a vocabulary beyond memory": (edit_json("text_encoder/config.json", vocab_size=10**12), "vocab_size"),
    "a config of another architecture": (
        edit_json("unet/config.json", cross_attention_dim=999),
        "mismatched",
    ),
    "a nonsense config": (edit_json("unet/config.json", block_out_channels="x"), "does not load"),
    "quantisation": (
        edit_json("unet/config.json", quantization_config={"quant_method": "x"}),
        "quantisation",
    ),
    "not a number": (write("vae/config.json", b'{"scaling_factor": NaN}'), "cannot be read as JSON"),
    "a hundred thousand blocks": (
        edit_json("unet/config.json", block_out_channels=[32] * 100_000),
        "block_out_channels",
    ),
    "two billion timesteps": (
        edit_json("scheduler/scheduler_config.json", num_train_timesteps=2 * 10**9),
        "num_train_timesteps",
    ),
    "dropout that acts on probes alone": (edit_json("unet/config.json", dropout=0.99), "dropout"),
    "weights named by the configuration": (
        edit_json("text_encoder/config.json", transformers_weights="other.safetensors"),
        "elsewhere",
    ),
    "an attention kernel of its own": (
        edit_json("text_encoder/config.json", attn_implementation="x/y"),
        "elsewhere",
    ),
    "weights of truth values": (
        edit_tensors(TEXT, lambda t: t.update({min(t): t[min(t)].astype(bool)})),
        "of the kind BOOL",
    ),
    "a pipe in place of a config": (
        both(remove("vae/config.json"), lambda f: os.mkfifo(f / "vae/config.json")),
        "no ordinary file",
    ),
    "a link in a circle": (link("tokenizer/vocab.json", "vocab.json"), "cannot be read|leads out"),
    "a file outside in the digest of all": (link("notes.txt", "/etc/hostname"), "leads out"),
    # code and other classes
    "a custom pipeline": (edit_json("model_index.json", custom_pipelines={"x": {}}), "code of its own"),
    "a class from a module beside it": (
        both(
            write("unet/evil.py", b"open('canary','w')"),
            edit_json("model_index.json", unet=["evil", "UNet2DConditionModel"]),
        ),
        "can be audited",
    ),
    "an automatic class": (
        edit_json("text_encoder/config.json", auto_map={"AutoModel": "evil.Model"}),
        "code of its own",
    ),
    "another class": (edit_json("model_index.json", vae=["diffusers", "VQModel"]), "can be audited"),
    "an index that is a list": (write("model_index.json", b"[]"), "not a JSON object"),
    "no index": (remove("model_index.json"), "holds no model_index"),
    "Stable Diffusion XL": (
        edit_json("model_index.json", _class_name="StableDiffusionXLPipeline"),
        "Stable Diffusion XL",
    ),
    "an inpainting model": (
        edit_json("model_index.json", _class_name="StableDiffusionInpaintPipeline"),
        "inpainting",
    ),
    "a transformer": (
        lambda f: (f / "model_index.json").write_text(
            '{"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "X"]}'
        ),
        "transformer",
    ),
    # another model for another loader
    "a configuration within the configuration": (
        edit_json("text_encoder/config.json", model_type="clip", text_config={"hidden_act": "relu"}),
        "the key 'text_config'|model_type = clip",
    ),
    "a text encoder of another type": (
        edit_json("text_encoder/config.json", model_type="clip"),
        "model_type = clip, which cannot be audited",
    ),
    "a key of the text encoder that is not known": (
        edit_json("text_encoder/config.json", favourite="blue"),
        "the key 'favourite'",
    ),
    "keys that are taken back": (
        edit_json(SCHEDULE, _use_default_values=["beta_schedule"]),
        "_use_default_values",
    ),
    "keys of the unet that are taken back": (
        edit_json("unet/config.json", _use_default_values=["norm_eps"]),
        "_use_default_values",
    ),
    "a number of 400 digits": (edit_json("unet/config.json", sample_size=10**400), "sample_size"),
    # settings under which nothing could be drawn
    **{
        f"a schedule of {json.dumps(value)} timesteps": (
            edit_json(SCHEDULE, num_train_timesteps=value),
            "timesteps",
        )
        for value in ("1000", 0, -5, 1, True, 1.5, None)
    },
    **{
        f"{key} = {json.dumps(value)}": (edit_json(SCHEDULE, **{key: value}), "noise schedule")
        for key, value in (
            ("beta_start", None),
            ("beta_start", -1),
            ("beta_start", "x"),
            ("beta_end", 5),
            ("beta_schedule", "x"),
            ("trained_betas", []),
            ("trained_betas", "x"),
            ("timestep_spacing", "x"),
            ("steps_offset", "x"),
            ("steps_offset", 1.5),
        )
    },
    **{
        f"a latent scale of {json.dumps(value)}": (
            edit_json("vae/config.json", scaling_factor=value),
            "scaling_factor",
        )
        for value in (None, "x", 0, -1, True)
    },
    **{
        f"a text encoder with {key} = {json.dumps(value)}": (
            edit_json("text_encoder/config.json", **{key: value}),
            f"does not|{key} = ",
        )
        for key, value in (
            ("return_dict", False),
            ("hidden_act", "x"),
            ("layer_norm_eps", "x"),
            ("num_attention_heads", 3),
        )
    },
    **{
        f"a UNet with {key} = {json.dumps(value)}": (
            edit_json("unet/config.json", **{key: value}),
            f"does not|m(at|is)|unexp|{key} = ",
        )
        for key, value in (
            ("act_fn", "x"),
            ("norm_eps", "x"),
            ("freq_shift", "x"),
            ("mid_block_scale_factor", "x"),
            ("class_embed_type", "timestep"),
            ("time_embedding_type", "fourier"),
        )
    },
    "an unknown prediction": (
        edit_json("scheduler/scheduler_config.json", prediction_type="flow"),
        "prediction_type",
    ),
    # ways out of the folder
    "a unet that is a link out": (link(UNET, "/etc/hostname"), "leads out"),
    "a config that is a link out": (link("unet/config.json", "/etc/hostname"), "leads out"),
    "a vocabulary that is a link out": (link("tokenizer/vocab.json", "../../../outside.json"), "leads out"),
    "a shard out of the folder": (
        both(
            write(
                f"{UNET}.index.json", b'{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}'
            )
        ),
        "elsewhere",
    ),
    "a shard by an absolute path": (
        write(f"{UNET}.index.json", b'{"weight_map": {"a": "/etc/passwd.safetensors"}}'),
        "elsewhere",
    ),
    "a shard on a drive": (
        write(f"{UNET}.index.json", b'{"weight_map": {"a": "C:x.safetensors"}}'),
        "elsewhere",
    ),
    "a shard that is missing": (sharded("part.safetensors", there=False), "missing"),
    "an index that leaves a tensor out": (
        sharded("part.safetensors", lie=True),
        "does not say what its shards hold",
    ),
    "an index without a map": (write(f"{UNET}.index.json", b'{"weight_map": []}'), "no weight_map"),
}
