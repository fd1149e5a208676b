"""Finds out what a file of weights holds, by the names of its tensors. Only its header is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrt.common.safetensors_file import SafetensorsFile, read_header
from sdrt.errors import ModelError, ModelNotFoundError, UnsupportedModelError

__all__ = [
    "CHECKPOINT",
    "EMBEDDING",
    "LORA",
    "MODELS",
    "PICKLES",
    "SD1",
    "SD2",
    "SDXL",
    "WEIGHTS",
    "FileKind",
    "check_checkpoint_file",
    "check_header",
    "is_safetensors",
    "kind_of",
    "refusal_of_file",
    "refusal_of_pickle",
]

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
WEIGHTS = (".safetensors", ".gguf", *PICKLES)
"""The suffixes of files of weights."""
EMBEDDING, CHECKPOINT = "a textual inversion", "a single-file checkpoint"
UNET, TRANSFORMER = "a U-Net", "a diffusion transformer"
MODELS = (CHECKPOINT, UNET, TRANSFORMER)
"""The kinds that are a whole model or its denoiser."""
LORA = "a LoRA"
SD1, SD2, SDXL = "Stable Diffusion 1", "Stable Diffusion 2", "SDXL"
_UNKNOWN = "a safetensors file of an unknown kind"
_FOLDER = "a model folder: make one with sdrt export"
_CHECKPOINT_FILE = "a model folder, or a single-file checkpoint of Stable Diffusion 1, 2 or SDXL"


@dataclass(frozen=True)
class FileKind:
    """What a file is, such as "a LoRA", and the model that it is for; empty if its names do not tell."""

    what: str
    base: str = ""

    def __str__(self) -> str:
        """A phrase for messages: "a LoRA for SDXL"."""
        preposition = "of" if self.what in (CHECKPOINT, UNET, TRANSFORMER) else "for"
        return f"{self.what} {preposition} {self.base}" if self.base else self.what


# The first row counts whose pattern is found in the name of any tensor.
_KINDS: Sequence[tuple[str, str]] = (
    (EMBEDDING, r"^(emb_params|clip_[lg]|\*|string_to_param(\.\*)?|<[^<>]+>)$"),
    (
        "a ControlNet",
        r"^control_model\.|(^|\.)controlnet_(cond_embedding|down_blocks|mid_block|blocks|x_embedder)\b",
    ),
    ("a ControlNet", r"(^|\.)input_hint_block\.|^lora_controlnet$"),
    (LORA, r"^lora_(unet|te\d?|transformer|prior_unet)_|^(base_model\.model|lora)\.|(^|\.)dora_scale$"),
    (LORA, r"[._]lora\d?([._](up|down|mid)|_[AB]|_embedding_[AB]|_linear_layer|_magnitude_vector)(\.|$)"),
    (LORA, r"\.(hada_[wt][12](_[ab])?|lokr_[wt][12](_[ab])?|oft_(blocks|diag)|oft_R|boft_\w+)(\.|$)"),
    (LORA, r"\.(diff|diff_b|w_norm|b_norm|on_input|ia3_l)$"),
    ("an IP-Adapter", r"^(ip_adapter|image_proj(_model)?|adapter_modules)\."),
    ("a T2I-Adapter", r"^adapter\.(body|conv_in)\.|^body\.\d+\.(block1|block2|in_conv|resnets)\."),
    ("a motion module", r"(^|\.)motion_modules?\."),
    ("a hypernetwork", r"^\d{3,4}\.\d\.(linear|linear1)\."),
    (CHECKPOINT, r"^(model\.diffusion_model|cond_stage_model|conditioner\.embedders)\."),
    ("a VAE", r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|conv_out|mid_block|mid)\."),
    ("a small VAE (TAESD)", r"^(taesd_)?(encoder|decoder)\.(layers\.)?\d+\."),
    (UNET, r"^(unet\.)?(input_blocks|down_blocks|middle_block|mid_block|time_embed(ding)?)\."),
    (
        TRANSFORMER,
        r"^(transformer\.|model\.)?(double_blocks|single_blocks|joint_blocks|(single_)?transformer_blocks"
        r"|double_layers|single_layers|adaln_single|t_block|mlp_t5|cap_embedder|clip_txt_mapper|clip_mapper"
        r"|head\.modulation|cond_seq_linear)\b",
    ),
    ("a text encoder", r"(^|\.)(text_model|transformer\.resblocks)\.|^(shared\.weight$|encoder\.block\.\d)"),
    ("an upscaler", r"^(conv_first\.|model\.\d+\.(sub|weight)|RRDB_trunk\.|body\.\d+\.rdb\d)"),
)
# Models of other families, which share names with Stable Diffusion's. The first row counts.
_BASES: Sequence[tuple[str, str]] = (
    ("Chroma", r"(^|\.)distilled_guidance_layer\."),
    (
        "HunyuanVideo",
        r"(^|\.)txt_in\.individual_token_refiner\.|(^|\.)double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)\.",
    ),
    ("Flux 2", r"(^|\.)(single_stream_modulation|double_stream_modulation_img)\."),
    ("Stable Diffusion 2 with depth", r"^depth_model\."),
    ("Stable unCLIP", r"^(embedder\.model|noise_augmentor)\."),
    ("Stable Zero123", r"^cc_projection\."),
    (
        "Stable Video Diffusion",
        r"(^|\.)(time_stack|time_mix_blocks|time_mixer|temporal_transformer_blocks)\.",
    ),
    ("AltDiffusion", r"^cond_stage_model\.roberta\."),
    ("Playground 2.5", r"^edm_(mean|std)$"),
    ("CosXL", r"^edm_vpred\.sigma_(max|min)$"),
    (
        "Stable Cascade",
        r"(^|\.)(clip_txt_mapper|clip_mapper|effnet_mapper)\.|(^|\.)down_blocks\.\d+\.\d+\.channelwise\.",
    ),
    ("Kolors", r"(^|\.)encoder_hid_proj\."),
    ("LTX-Video", r"(^|\.)patchify_proj\."),
    ("PixArt", r"(^|\.)(adaln_single|t_block\.1|y_embedder\.y_(proj|embedding))\b"),
    ("AuraFlow", r"(^|\.)(double_layers|single_layers|cond_seq_linear)\."),
    ("HunyuanDiT", r"(^|\.)mlp_t5\."),
    ("Lumina", r"(^|\.)cap_embedder\."),
    ("Qwen-Image", r"(^|[._])transformer_blocks[._]\d+[._](img_mod|txt_mod|img_mlp|txt_mlp)[._]"),
    (
        "Wan",
        r"(^|\.)head\.modulation$|(^|[._])blocks[._]\d+[._](cross_attn|self_attn)[._](norm_k|[kqvo])[._]",
    ),
    (
        "Z-Image or Lumina 2",
        r"(^|[._])(noise_refiner|context_refiner)[._]|(^|[._]unet[._]|\.)layers[._]\d+[._](attention|feed_forward)[._]",
    ),
    ("Flux", r"(^|[._])(double_blocks|single_transformer_blocks)[._]"),
    ("Stable Diffusion 3", r"(^|[._])joint_(transformer_)?blocks[._]|^transformer\.transformer_blocks\."),
    (
        SDXL,
        r"^conditioner\.embedders\.1\.|^lora_te2_|(^|\.)text_encoder_2\.|(^|\.)add_embedding\.|(^|\.)label_emb\.0\.",
    ),
    (SDXL, r"transformer_blocks[._][2-9][._]attn|^clip_g$"),
    (SD2, r"^cond_stage_model\.model\."),
    (SD1, r"^cond_stage_model\.transformer\."),
)
# The width of the text embeddings that the network's cross-attention reads.
_WIDTHS = {768: SD1, 1024: SD2, 2048: SDXL}
# No model has longer names. The time of a pattern grows with the square of the length, and a header has megabytes.
_LONGEST_NAME = 256
_NUMBER = re.compile(r"\d{2,}", re.ASCII)
_READS_TEXT = re.compile(r"attn2[._].*to_k(?!.*([._]up\.|_up\.|lora_B))")


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like a safetensors file, with the length of a JSON object, under any name.

    The file may still be damaged. Pipes and devices are not read.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start, size = file.read(9), os.fstat(file.fileno()).st_size
    except OSError:
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < size


def kind_of(file: SafetensorsFile) -> FileKind | None:
    """Tell what a file holds; None for an unknown kind."""
    names = _distinct(name for name in file.tensors if len(name) <= _LONGEST_NAME)
    what = _first(_KINDS, names)
    if what is not None:
        return FileKind(what, _first(_BASES, names) or _base_of_width(file))
    # Programs name the one tensor of a textual inversion as they like.
    shapes = [entry.shape for entry in file.tensors.values()]
    return FileKind(EMBEDDING) if len(shapes) == 1 and 1 <= len(shapes[0]) <= 2 else None


def _distinct(names: Iterable[str]) -> list[str]:
    """The names that patterns can tell apart. Of numbers with several digits, no pattern reads more than how many."""
    return list(dict.fromkeys(_NUMBER.sub(lambda found: "1" * len(found[0]), name) for name in names))


def _first(rows: Iterable[tuple[str, str]], names: Sequence[str]) -> str | None:
    for what, pattern in rows:
        compiled = re.compile(pattern)
        if any(map(compiled.search, names)):
            return what
    return None


def _base_of_width(file: SafetensorsFile) -> str:
    for name, entry in file.tensors.items():
        if len(entry.shape) > 1 and len(name) <= _LONGEST_NAME and _READS_TEXT.search(name):
            return _WIDTHS.get(entry.shape[1], "")
    return ""


# Files of weights that no part of sdrt reads, and archives.
_OTHER_FILES = {
    ".gguf": "a GGUF file of quantised weights",
    ".h5": "an HDF5 file of Keras",
    ".msgpack": "a file of Flax",
    ".tflite": "a TensorFlow Lite file",
    ".mlmodel": "a Core ML file",
    ".engine": "an engine of TensorRT",
    ".json": "a config",
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), "an archive, which must be unpacked first"),
}


def check_checkpoint_file(path: Path) -> SafetensorsFile:
    """Read the header of a file that should be a whole model of Stable Diffusion 1, 2 or SDXL, or its U-Net.

    Raises:
        ModelNotFoundError: there is no such file, or it holds something else, such as a LoRA. The error says what.
        UnsupportedModelError: it is a pickle, damaged, or a model of another family, which the error names.
    """
    if path.suffix.lower() != ".safetensors":
        raise refusal_of_file(path)
    try:
        file = read_header(path)
    except OSError as error:
        raise _no_model(path, f"cannot be read ({error.strerror or error})", _CHECKPOINT_FILE) from None
    check_header(file)
    return file


def check_header(file: SafetensorsFile) -> None:
    """Check what a file holds, by its header. See `check_checkpoint_file`."""
    path, kind = file.path, kind_of(file)
    if kind is None or kind.what not in MODELS:
        raise _no_model(path, f"is {kind or _UNKNOWN}, not a whole model", _CHECKPOINT_FILE)
    if kind.base not in ("", SD1, SD2, SDXL) or kind.what == TRANSFORMER:
        raise UnsupportedModelError.expected(
            f"{path} is {kind}, which is not supported", f"a model of {SD1}, 2 or {SDXL}", path=path
        )
    if kind.what == UNET and not any(name.startswith("input_blocks.") for name in file.tensors):
        raise _no_model(
            path,
            f"is {kind} in diffusers' names, not a whole model",
            "the folder of a model in diffusers' layout, with this file as its unet",
        )


def refusal_of_file(path: Path) -> ModelError:
    """Return the error for a file that was given in place of a model's folder. It says what the file is."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _refusal_of_weights(path)
    if path.is_file() and (error := _refusal_of_misnamed(path)) is not None:
        return error
    if suffix in PICKLES:
        return refusal_of_pickle(path)
    if suffix == ".onnx":
        return _no_model(path, "is one graph of a model", "the folder of the model")
    if not path.is_file():
        return _no_model(path, "is a pipe or a device", _FOLDER)
    return _no_model(path, f"is {_OTHER_FILES.get(suffix, 'a file')}", _FOLDER)


def refusal_of_pickle(path: Path) -> ModelError:
    """Return the error for a file of weights that is a pickle, by its name."""
    return UnsupportedModelError.advised(
        f"{path} is a pickle, which runs code when it is read",
        "take the .safetensors file of the same model, or, if you trust it, convert it with diffusers' "
        "StableDiffusionPipeline.from_single_file(…).save_pretrained(DIR), then sdrt export DIR -o model/",
        path=path,
    )


def _refusal_of_misnamed(path: Path) -> ModelError | None:
    """The error for a safetensors file with another suffix, or none. None for other files."""
    try:
        kind = kind_of(read_header(path))
    except (UnsupportedModelError, OSError):
        return None
    if kind is None or kind.what not in MODELS:
        return _no_model(path, f"is {kind or _UNKNOWN}, not a whole model", _CHECKPOINT_FILE)
    name = path.with_suffix(".safetensors") if path.suffix.lower() in PICKLES else f"{path}.safetensors"
    return UnsupportedModelError.advised(
        f"{path} is {kind}, but its name does not end in .safetensors", f"rename it to {name}", path=path
    )


def _refusal_of_weights(path: Path) -> ModelError:
    try:
        check_checkpoint_file(path)
    except ModelError as error:
        return error
    return UnsupportedModelError.advised(
        f"{path} is {CHECKPOINT}, not a model folder",
        f"make one with sdrt export {path} -o model/",
        path=path,
    )


def _no_model(path: Path, problem: str, fits: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{path} {problem}, expected {fits}", argument="model", path=path, fits=fits)
