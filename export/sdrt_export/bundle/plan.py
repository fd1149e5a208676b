"""The plan of a bundle: all that a loop must know, as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.model_folder.folder import ModelFolder
from sdrt.run.planned import PlannedRequest
from sdrt.schedulers.linear_steps import HISTORY, linear_steps
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
    family = model.family
    (text,) = family.text_encoders if len(family.text_encoders) == 1 else (None,)
    denoiser, vae, request = family.denoiser, family.vae, planned.request
    config = model.component_config(denoiser.component)
    wanted = {denoiser.sample, denoiser.timestep, denoiser.embeds}
    if text is None or set(denoiser.inputs(config)) != wanted or planned.passes[0].scheduler is None:
        raise UnsupportedModelError.advised(
            f"{model.name} is {family.title}, and its U-Net takes {', '.join(denoiser.inputs(config))}",
            "bundles are for models of Stable Diffusion 1 and 2 with one text encoder and no further inputs so far",
            joint="; ",
            component=denoiser.component,
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
    width, height = request.size[::-1]
    factor = model.capabilities.vae_scale_factor
    size = [model.capabilities.latent_channels, height // factor, width // factor]
    if math.prod(size) < _LEAST_NOISE:
        raise RequestError.advised(
            f"an image of {width}x{height} has only {math.prod(size)} latent values",
            f"choose a larger one, with at least {_LEAST_NOISE}",
            argument="width",
        )
    of_text = _types(model.component(text.component))
    of_unet = _types(model.component(denoiser.component))
    timestep = of_unet[denoiser.timestep]
    rounded = (lambda value: float(np.rint(value))) if timestep.startswith("int") else float
    following = [*steps[1:], None]
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
            "composed": "step.onnx",
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
        "steps": [
            {
                "timestep": rounded(step.timestep),
                "factors": factors_of(step, after),
                "draws_noise": step.noise is not None,
            }
            for step, after in zip(steps, following, strict=True)
        ],
    }


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
