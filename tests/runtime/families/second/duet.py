"""An invented family that differs from Stable Diffusion in everything that a row can describe, and a model in NumPy.

It has two text encoders of different widths, a denoiser that is not a U-Net, a VAE with a shift, and flow matching. The
denoiser also takes a pooled embedding and the image's size. All inputs and outputs have names of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdrt.families import DenoiserSpec, Family, IndexEntry, RowConditions, Task, TextEncoderSpec, VaeSpec
from sdrt.schedulers import FlowNoiseSchedule

Array = np.ndarray[Any, np.dtype[np.float32]]

CHANNELS, FACTOR, SCALE, SHIFT = 6, 4, 0.75, 0.125
WIDTHS, POOLED = (5, 3), 4
VOCABULARY = 600
TIME_SHIFT = 3.0


def _size(row: RowConditions) -> Array:
    return np.array([row.height / 64, row.width / 64], np.float32)


def _phrase(row: RowConditions) -> Array:
    assert row.pooled is not None
    return row.pooled


DUET = Family(
    name="duet",
    title="Duet",
    index={
        "words": IndexEntry(library="transformers", classes=frozenset({"DuetWords"})),
        "phrases": IndexEntry(library="transformers", classes=frozenset({"DuetPhrases"})),
        "tokenizer": IndexEntry(library="transformers", classes=frozenset({"CLIPTokenizer"})),
        "tokenizer_2": IndexEntry(library="transformers", classes=frozenset({"CLIPTokenizer"})),
        "painter": IndexEntry(library="diffusers", classes=frozenset({"DuetPainter"})),
        "codec": IndexEntry(library="diffusers", classes=frozenset({"DuetCodec"})),
        "scheduler": None,
    },
    text_encoders=(
        TextEncoderSpec(component="words"),
        TextEncoderSpec(component="phrases", tokenizer="tokenizer_2", embeds="penultimate", pooled="summary"),
    ),
    denoiser=DenoiserSpec(
        component="painter",
        sample="noisy",
        timestep="when",
        embeds="text",
        extra={"phrase": _phrase, "size": _size},
        output="velocity",
        embeds_width="text_width",
        levels=None,
    ),
    vae=VaeSpec(
        checkpoint="codec",
        encoder="codec_encoder",
        decoder="codec_decoder",
        image="pixels",
        parameters="moments",
        latents="code",
        decoded="pixels",
        shifts=True,
    ),
    tasks=(
        Task(
            name="text to image",
            pipeline="DuetPipeline",
            guidance_scale=4.0,
            refuses=("image_guidance_scale", "noise_level"),
        ),
    ),
    default_size=32,
    noise_schedules=(FlowNoiseSchedule,),
)


def weights() -> dict[str, Array]:
    """Return every weight of the model."""
    random = np.random.default_rng(7)

    def draw(*shape: int) -> Array:
        return random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[0]))

    return {
        "words": draw(VOCABULARY, WIDTHS[0]) * 20,
        "phrases": draw(VOCABULARY, WIDTHS[1]) * 20,
        "summary": draw(WIDTHS[1], POOLED),
        "text": draw(sum(WIDTHS), CHANNELS),
        "phrase": draw(POOLED, CHANNELS),
        "size": draw(2, CHANNELS),
        "mix": draw(CHANNELS, CHANNELS),
        "decode": draw(CHANNELS, 3 * FACTOR**2),
        "encode": draw(3 * FACTOR**2, 2 * CHANNELS),
    }


class Painter:
    """The model in NumPy. It computes the same as the graphs below."""

    def __init__(self) -> None:
        self.weights = weights()

    def encode(self, words_ids: Sequence[int], phrases_ids: Sequence[int]) -> tuple[Array, Array]:
        """Return the embeddings [length, width] and the pooled embedding [width] of one text."""
        words, phrases = self.weights["words"][list(words_ids)], self.weights["phrases"][list(phrases_ids)]
        return np.concatenate([words, phrases], axis=-1), phrases.mean(0) @ self.weights["summary"]

    def velocity(self, x: Array, timestep: float, text: tuple[Array, Array], size: tuple[int, int]) -> Array:
        """Return the velocity of latents [C, h, w]. `size` is (height, width) in pixels."""
        embeds, pooled = text
        condition = np.array([size[0] / 64, size[1] / 64], np.float32) @ self.weights["size"]
        condition = condition + embeds.mean(0) @ self.weights["text"] + pooled @ self.weights["phrase"]
        mixed = np.einsum("chw,cd->dhw", x, self.weights["mix"])
        return np.asarray(mixed + condition[:, None, None] * np.float32(timestep / 1000), dtype=np.float32)

    def decode(self, latents: Array) -> Array:
        """Decode latents [C, h, w] to an image [H, W, 3] in 0..1."""
        code = latents / np.float32(SCALE) + np.float32(SHIFT)
        flat = np.einsum("chw,cd->hwd", code, self.weights["decode"])
        height, width, _ = flat.shape
        blocks = flat.reshape(height, width, FACTOR, FACTOR, 3).transpose(0, 2, 1, 3, 4)
        image = blocks.reshape(height * FACTOR, width * FACTOR, 3)
        return np.asarray((image / 2 + 0.5).clip(0, 1), dtype=np.float32)

    def moments(self, image: Array) -> tuple[Array, Array]:
        """Encode an image [H, W, 3] in -1..1 to mean and log variance, each [C, h, w]."""
        height, width = image.shape[0] // FACTOR, image.shape[1] // FACTOR
        blocks = image.reshape(height, FACTOR, width, FACTOR, 3).transpose(0, 2, 1, 3, 4)
        made = blocks.reshape(height, width, -1) @ self.weights["encode"]
        mean, log_variance = np.split(np.moveaxis(made, -1, 0), 2)
        return mean, log_variance


def _graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: dict[str, Sequence[int | str]],
    constants: dict[str, np.ndarray[Any, Any]],
) -> None:
    graph = helper.make_graph(
        list(nodes),
        path.parent.name,
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_model(folder: Path, tokenizer: Path) -> None:
    """Write the model folder. `tokenizer` is the first tokenizer. The second one has a token for "cat" too."""
    folder.mkdir(parents=True)
    shutil.copytree(tokenizer, folder / "tokenizer")
    _write_second_tokenizer(tokenizer, folder / "tokenizer_2")
    _write_configs(folder)
    arrays = weights()
    node, ids = helper.make_node, {"input_ids": (TensorProto.INT64, ("batch", "length"))}
    _graph(
        folder / "words" / "model.onnx",
        [node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        ids,
        {"last_hidden_state": ("batch", "length", WIDTHS[0])},
        {"table": arrays["words"]},
    )
    _graph(
        folder / "phrases" / "model.onnx",
        [
            node("Gather", ["table", "input_ids"], ["penultimate"]),
            node("ReduceMean", ["penultimate", "axis"], ["mean"], keepdims=0),
            node("MatMul", ["mean", "summary.weight"], ["summary"]),
        ],
        ids,
        {"penultimate": ("batch", "length", WIDTHS[1]), "summary": ("batch", POOLED)},
        {"table": arrays["phrases"], "axis": np.array([1]), "summary.weight": arrays["summary"]},
    )
    _write_painter(folder, arrays)
    depth = {"blocksize": FACTOR}
    _graph(
        folder / "codec_decoder" / "model.onnx",
        [
            node("Conv", ["code", "kernel"], ["flat"]),
            node("DepthToSpace", ["flat"], ["pixels"], mode="DCR", **depth),
        ],
        {"code": (TensorProto.FLOAT, (1, CHANNELS, "h", "w"))},
        {"pixels": (1, 3, "height", "width")},
        {"kernel": np.ascontiguousarray(arrays["decode"].T)[:, :, None, None]},
    )
    _graph(
        folder / "codec_encoder" / "model.onnx",
        [
            node("SpaceToDepth", ["pixels"], ["flat"], **depth),
            node("Conv", ["flat", "kernel"], ["moments"]),
        ],
        {"pixels": (TensorProto.FLOAT, (1, 3, "height", "width"))},
        {"moments": (1, 2 * CHANNELS, "h", "w")},
        {"kernel": np.ascontiguousarray(arrays["encode"].T)[:, :, None, None]},
    )


def _write_second_tokenizer(first: Path, folder: Path) -> None:
    """Write `first` with merges, so that it splits texts into fewer tokens."""
    shutil.copytree(first, folder, ignore=shutil.ignore_patterns("tokenizer.json"))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [("c", "a"), ("ca", "t</w>")]
    for one, other in merges:
        vocabulary[one + other] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_painter(folder: Path, arrays: dict[str, Array]) -> None:
    node = helper.make_node
    number = TensorProto.FLOAT
    _graph(
        folder / "painter" / "model.onnx",
        [
            node("ReduceMean", ["text", "axis"], ["mean"], keepdims=0),
            node("MatMul", ["mean", "text.weight"], ["of_words"]),
            node("MatMul", ["phrase", "phrase.weight"], ["of_phrase"]),
            node("MatMul", ["size", "size.weight"], ["of_size"]),
            node("Sum", ["of_words", "of_phrase", "of_size"], ["all"]),
            node("Div", ["when", "thousand"], ["share"]),
            node("Mul", ["all", "share"], ["now"]),
            node("Unsqueeze", ["now", "axes"], ["everywhere"]),
            node("Conv", ["noisy", "kernel"], ["mixed"]),
            node("Add", ["mixed", "everywhere"], ["velocity"]),
        ],
        {
            "text": (number, ("batch", "length", sum(WIDTHS))),
            "phrase": (number, ("batch", POOLED)),
            "noisy": (number, ("batch", CHANNELS, "h", "w")),
            "size": (number, ("batch", 2)),
            "when": (number, (1,)),
        },
        {"velocity": ("batch", CHANNELS, "h", "w")},
        {
            "axis": np.array([1]),
            "axes": np.array([2, 3]),
            "thousand": np.array(1000, np.float32),
            "kernel": np.ascontiguousarray(arrays["mix"].T)[:, :, None, None],
            **{f"{name}.weight": arrays[name] for name in ("text", "phrase", "size")},
        },
    )


def _write_configs(folder: Path) -> None:
    text = {"max_position_embeddings": 77, "vocab_size": VOCABULARY}
    codec = {
        "latent_channels": CHANNELS,
        "block_out_channels": [1, 1, 1],
        "scaling_factor": SCALE,
        "shift_factor": SHIFT,
    }
    configs: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": "DuetPipeline",
            "words": ["transformers", "DuetWords"],
            "phrases": ["transformers", "DuetPhrases"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "painter": ["diffusers", "DuetPainter"],
            "codec": ["diffusers", "DuetCodec"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        },
        "words/config.json": text | {"hidden_size": WIDTHS[0]},
        "phrases/config.json": text | {"hidden_size": WIDTHS[1]},
        "painter/config.json": {
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "text_width": sum(WIDTHS),
        },
        "codec_decoder/config.json": codec,
        "codec_encoder/config.json": codec,
        "scheduler/scheduler_config.json": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "shift": TIME_SHIFT,
        },
    }
    for name, config in configs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(config), encoding="utf-8")
