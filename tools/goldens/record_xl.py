"""Export `tests/models/tiny-xl`, and record `xl.npz`: results of transformers and diffusers with the same weights.

Usage, where the verify extra is installed: python -m tools.goldens.record_xl
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sdrt_export import export_model
from tests.parity.xl_checkpoints import make_xl_checkpoint
from tools.goldens.xl_cases import CALLS, PROMPTS, given_array

TESTS = Path(__file__).resolve().parents[2] / "tests"
OUTPUT, MODEL = TESTS / "goldens" / "xl.npz", TESTS / "models" / "tiny-xl"
VARIANT, SEED = "xl-golden", 5


def texts(pipeline: Any) -> dict[str, NDArray[Any]]:
    arrays = {}
    for index, prompt in enumerate(PROMPTS):
        for number, suffix in enumerate(("", "_2")):
            tokens = getattr(pipeline, f"tokenizer{suffix}")(
                prompt, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            made = getattr(pipeline, f"text_encoder{suffix}")(tokens, output_hidden_states=True)
            arrays[f"ids/{number}/{index}"] = tokens[0].numpy()
            arrays[f"embeds/{number}/{index}"] = made.hidden_states[-2][0].numpy()
        arrays[f"pooled/{index}"] = made[0][0].numpy()
    return arrays


def images(pipeline: Any) -> dict[str, NDArray[Any]]:
    other = diffusers.StableDiffusionXLImg2ImgPipeline(**pipeline.components)
    arrays = {}
    for name, call in CALLS.items():
        options = dict(call)
        if "image" in options:
            options["image"] = Image.fromarray(given_array())
        prompts = [options["prompt"]] if isinstance(options["prompt"], str) else options["prompt"]
        count = len(prompts) * options.get("num_images_per_prompt", 1)
        generators = [torch.Generator("cpu").manual_seed(SEED + index) for index in range(count)]
        made = (other if "image" in options else pipeline)(generator=generators, **options).images
        arrays[f"image/{name}"] = np.stack([np.asarray(image) for image in made])
    return arrays


def main() -> None:
    diffusers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        checkpoint = make_xl_checkpoint(Path(folder) / "tiny-xl", VARIANT)
        export_model(checkpoint, MODEL, force=True)
        pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(checkpoint)
        pipeline.set_progress_bar_config(disable=True)
        arrays = {**texts(pipeline), **images(pipeline)}
    np.savez_compressed(OUTPUT, **cast(dict[str, Any], arrays))
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
