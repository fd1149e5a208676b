"""Record `full_size_xl.npz`: what diffusers makes with SDXL's full-size architecture and random weights.

Usage, where the test extra is installed (4 minutes, 13 GB of memory, 7 GB of disk):
python -m tools.goldens.record_full_size_xl
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.checkpoints import write_single_file
from sdrt_export.checkpoints.clip_vocabulary import clip_tokenizer
from sdrt_export.components import parts_of
from tools.goldens.full_size_xl_cases import RUN, SEED, SOURCE, TEXTS, kept

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "full_size_xl.npz"

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]


def converted(path: Path, part: str) -> Any:
    """A part of the file as a torch module in float32. diffusers' own converters name the tensors."""
    from diffusers.loaders import single_file_utils as diffusers
    from safetensors import safe_open

    from sdrt_export.verify.modules import build, load

    component, config = parts_of(SOURCE.family)[part][0], SOURCE.config(part)
    prefix, convert = {
        "text_encoder": ("conditioner.embedders.0.", diffusers.convert_ldm_clip_checkpoint),
        "text_encoder_2": (
            "conditioner.embedders.1.",
            lambda state: diffusers.convert_open_clip_checkpoint(
                build(component, config), state, prefix="conditioner.embedders.1.model."
            ),
        ),
        "unet": (
            "model.diffusion_model.",
            lambda state: diffusers.convert_ldm_unet_checkpoint(state, build(component, config).config),
        ),
        "vae": (
            "first_stage_model.",
            lambda state: diffusers.convert_ldm_vae_checkpoint(state, build(component, config).config),
        ),
    }[part]
    with safe_open(path, "pt") as file:
        state = convert(
            {name: file.get_tensor(name) for name in sorted(file.keys()) if name.startswith(prefix)}
        )
    return load(component, config, {name: tensor.numpy() for name, tensor in state.items()})


def diffusers_pipeline(**parts: Any) -> Any:
    import diffusers

    absent = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"} - set(parts)
    made = diffusers.StableDiffusionXLPipeline(
        **dict.fromkeys(absent),
        **parts,
        scheduler=diffusers.EulerDiscreteScheduler.from_config(SOURCE.scheduler_config()),
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def encode(path: Path) -> tuple[tuple[np.ndarray, ...], Arrays]:
    """diffusers' token ids, and its embeddings of `TEXTS` by its pipeline's arguments."""
    from transformers import CLIPTokenizer

    pads = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    tokenizers = {name: CLIPTokenizer.from_pretrained(clip_tokenizer(pad)) for name, pad in pads.items()}
    encoders = {name: converted(path, name) for name in ("text_encoder", "text_encoder_2")}
    found = diffusers_pipeline(**tokenizers, **encoders).encode_prompt(**TEXTS, device="cpu")
    kinds = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    ids = [
        one(TEXTS["prompt"], padding="max_length", return_tensors="np").input_ids[0]
        for one in tokenizers.values()
    ]
    return tuple(ids), {name: tensor.numpy() for name, tensor in zip(kinds, found, strict=True)}


def generate(path: Path, embeddings: Arrays) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """What diffusers' U-Net gets in the first step, and the latents and the image that its pipeline makes."""
    import torch

    pipeline = diffusers_pipeline(unet=converted(path, "unet"), vae=converted(path, "vae"))
    told: list[dict[str, Any]] = []
    latents: list[np.ndarray] = []
    forward = pipeline.unet.forward

    def listen(*values: Any, **named: Any) -> Any:
        told.append({**named["added_cond_kwargs"], "encoder_hidden_states": named["encoder_hidden_states"]})
        return forward(*values, **named)

    def keep(_pipeline: Any, _index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents.append(tensors["latents"].numpy())
        return tensors

    pipeline.unet.forward = listen
    images = pipeline(
        **{name: torch.from_numpy(array) for name, array in embeddings.items()},
        **RUN,
        generator=torch.Generator("cpu").manual_seed(SEED),
        callback_on_step_end=keep,
        output_type="np",
    ).images
    return {name: tensor.numpy() for name, tensor in told[0].items()}, latents[-1], images[0]


def apart(function: Callable[..., T], *values: Any) -> T:
    """Call the function in a process of its own, so that all its memory is freed."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sdxl.safetensors"
        write_single_file(SOURCE, path)
        ids, embeddings = apart(encode, path)
        told, latents, image = apart(generate, path, embeddings)
    made = {**told, "latents": latents, "image": image, "ids": np.stack(ids)}
    arrays: dict[str, Any] = {name: kept(name, array) for name, array in made.items()}
    np.savez_compressed(OUTPUT, **arrays)


if __name__ == "__main__":
    main()
