"""Record `pipeline.npz`: results of transformers and diffusers with the weights of `tests/models/tiny`.

Usage, where the export extra is installed: python -m tools.goldens.record_pipeline
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from tools.goldens.pipeline_cases import CALLS, PROMPTS, component_inputs
from tools.goldens.random_pipeline import random_pipeline

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "pipeline.npz"
SEED = 5
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}


def texts(pipeline: Any) -> dict[str, NDArray[Any]]:
    arrays = {}
    for index, prompt in enumerate(PROMPTS):
        tokens = pipeline.tokenizer(
            prompt, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        arrays[f"ids/0/{index}"] = tokens[0].numpy()
        arrays[f"embeds/0/{index}"] = pipeline.text_encoder(tokens)[0][0].numpy()
    return arrays


def components(pipeline: Any) -> dict[str, NDArray[Any]]:
    inputs = {
        part: {k: torch.from_numpy(v) for k, v in row.items()} for part, row in component_inputs().items()
    }
    return {
        "unet": pipeline.unet(**inputs["unet"])[0].numpy(),
        "vae_decoder": pipeline.vae.decode(inputs["vae_decoder"]["latent_sample"])[0].numpy(),
        "vae_encoder": pipeline.vae.encode(inputs["vae_encoder"]["sample"]).latent_dist.parameters.numpy(),
    }


def images(pipeline: Any) -> dict[str, NDArray[Any]]:
    default, arrays = pipeline.scheduler, {}
    for name, call in CALLS.items():
        options = dict(call)
        kind, extra = SCHEDULERS.get(options.pop("scheduler", ""), ("", {}))
        pipeline.scheduler = (
            getattr(diffusers, kind).from_config(default.config, **extra) if kind else default
        )
        prompts = [options["prompt"]] if isinstance(options["prompt"], str) else options["prompt"]
        count = len(prompts) * options.get("num_images_per_prompt", 1)
        generators = [torch.Generator("cpu").manual_seed(SEED + index) for index in range(count)]
        images = pipeline(generator=generators, **options).images
        arrays[f"image/{name}"] = np.stack([np.asarray(image) for image in images])
    return arrays


def main() -> None:
    diffusers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        pipeline = random_pipeline("tiny", Path(folder))
        arrays = {**texts(pipeline), **components(pipeline), **images(pipeline)}
    np.savez_compressed(OUTPUT, **cast(dict[str, Any], arrays))
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
