"""The plan of a bundle: all that a loop must know, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.families.specs import TextEncoderSpec
from sdrt.model_folder.folder import ModelFolder
from sdrt.run.planned import PlannedRequest
from sdrt.schedulers.linear_steps import HISTORY, LinearStep, linear_steps
from sdrt.text.tokenizer import Tokenizer
from sdrt.vae.latent_scale import LatentScale
from sdrt_export.bundle.step_graph import FACTORS, factors_of

__all__ = ["VERSION", "plan_of"]

VERSION = 1
# torch draws fewer values in another way, which programs need not know.
_LEAST_NOISE = 16
_TYPES = {TensorProto.FLOAT: "float32", TensorProto.INT32: "int32", TensorProto.INT64: "int64"}


def plan_of(planned: PlannedRequest, model: ModelFolder) -> dict[str, Any]:
    """The plan for text to image with these settings.

    Raises:
        RequestError: the scheduler's steps are not sums.
        UnsupportedModelError: the model has inputs that a bundle does not provide.
    """
    text, denoiser, vae, request = (
        _text_encoder(model),
        model.family.denoiser,
        model.family.vae,
        planned.request,
    )
    guided = request.guidance_scale > 1
    scheduler = planned.passes[0].scheduler
    plan = scheduler.plan(request.num_inference_steps)
    steps = linear_steps(scheduler, plan, eta=request.eta)
    tokenizer = Tokenizer(
        model.tokenizer_folder(text.tokenizer),
        max_positions=model.component_config(text.component)["max_position_embeddings"],
    )
    frame = tokenizer.framed(())
    scale = LatentScale.of(model.component_config(vae.decoder), vae.decoder, vae, model.capabilities.task)
    height, width = request.size
    size = _latents_size(model, height, width)
    of_text = _types(model.component(text.component))
    of_unet = _types(model.component(denoiser.component))
    timestep = of_unet[denoiser.timestep]
    return {
        "version": VERSION,
        "model": model.name,
        "scheduler": scheduler.display_name,
        "width": width,
        "height": height,
        "tokenizer": {
            "file": "tokenizer.json",
            "length": tokenizer.length,
            "start": int(frame[0]),
            "end": int(frame[1]),
            "padding": int(frame[-1]),
        },
        "text_encoder": {
            "graph": f"{text.component}/model.onnx",
            "input": "input_ids",
            "input_type": of_text["input_ids"],
            "output": text.embeds,
        },
        "unet": {
            "graph": f"{denoiser.component}/model.onnx",
            "sample": denoiser.sample,
            "timestep": denoiser.timestep,
            "timestep_type": timestep,
            "text": denoiser.embeds,
            "output": denoiser.output,
        },
        "step": {
            "graph": "step.onnx",
            "data": [],
            "history": HISTORY - 1,
            "factors": list(FACTORS),
        },
        "vae_decoder": {
            "graph": f"{vae.decoder}/model.onnx",
            "input": vae.latents,
            "output": vae.decoded,
            "factor": 1 / scale.factor,
            "shift": scale.shift,
        },
        "latents": size,
        "guidance_scale": float(request.guidance_scale) if guided else None,
        "initial_scale": float(plan.init_scale),
        "first_scale": steps[0].scale,
        "final_scale": float(plan.latents_scale(plan.sigmas[plan.num_evaluations])),
        "steps": _step_entries(steps, is_whole=timestep.startswith("int")),
    }


def _text_encoder(model: ModelFolder) -> TextEncoderSpec:
    """The model's only text encoder. Raises `UnsupportedModelError` if it has others, or further inputs."""
    family, denoiser = model.family, model.family.denoiser
    inputs = denoiser.inputs(model.component_config(denoiser.component))
    if len(family.text_encoders) == 1 and set(inputs) == {
        denoiser.sample,
        denoiser.timestep,
        denoiser.embeds,
    }:
        return family.text_encoders[0]
    raise UnsupportedModelError.advised(
        f"{model.name} is {family.title}, and its U-Net takes {', '.join(inputs)}",
        "bundles are for models of Stable Diffusion 1 and 2 with one text encoder and no further inputs so far",
        joint="; ",
        component=denoiser.component,
    )


def _latents_size(model: ModelFolder, height: int, width: int) -> list[int]:
    """Channels, height and width of an image's latents. Raises `RequestError` if they are too few."""
    factor = model.capabilities.vae_scale_factor
    size = [model.capabilities.latent_channels, height // factor, width // factor]
    if math.prod(size) < _LEAST_NOISE:
        raise RequestError.advised(
            f"an image of {width}x{height} has only {math.prod(size)} latent values",
            f"choose a larger one, with at least {_LEAST_NOISE}",
            argument="width",
        )
    return size


def _step_entries(steps: Sequence[LinearStep], *, is_whole: bool) -> list[dict[str, Any]]:
    """The plan's entry of each step. With `is_whole`, the U-Net takes whole timesteps."""
    return [
        {
            "timestep": float(np.rint(step.timestep)) if is_whole else step.timestep,
            "factors": factors_of(step, following),
            "draws_noise": step.noise is not None,
        }
        for step, following in zip(steps, [*steps[1:], None], strict=True)
    ]


def _types(path: Path) -> dict[str, str]:
    """The types of a graph's inputs, as NumPy and JavaScript's ONNX Runtime call them.

    Raises:
        UnsupportedModelError: a program could not make such an input.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    inputs = {one.name: one.type.tensor_type.elem_type for one in graph.input}
    odd = [name for name, kind in inputs.items() if kind not in _TYPES]
    if odd:
        raise UnsupportedModelError.advised(
            f"{path} has the input {odd[0]}, which is neither float32 nor a whole number",
            "export the checkpoint with sdrt export",
            path=path,
        )
    return {name: _TYPES[kind] for name, kind in inputs.items()}
