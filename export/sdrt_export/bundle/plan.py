"""The plan of a bundle: all that a loop must know, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdrt import StableDiffusionPipeline
from sdrt.errors import UnsupportedModelError
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.graph_file import read_graph
from sdrt.run.planned import PlannedRequest
from sdrt.schedulers.linear_steps import HISTORY, linear_steps
from sdrt.text.tokenizer import Tokenizer
from sdrt.vae.latent_scale import LatentScale
from sdrt_export.bundle.step_graph import FACTORS, factors_of

__all__ = ["VERSION", "plan_of"]

VERSION = 1
_INT_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(float)": "float32"}


def plan_of(pipeline: StableDiffusionPipeline, planned: PlannedRequest, model: ModelFolder) -> dict[str, Any]:
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
    timestep = _timestep_type(model, denoiser.component, denoiser.timestep)
    rounded = (lambda value: float(np.rint(value))) if timestep.startswith("int") else float
    factor = model.capabilities.vae_scale_factor
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
        "latents": [model.capabilities.latent_channels, height // factor, width // factor],
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


def _timestep_type(model: ModelFolder, component: str, name: str) -> str:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    path = model.component(component)
    read_graph(path)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds: Mapping[str, str] = {one.name: one.type for one in session.get_inputs()}
    return _INT_TYPES[kinds[name]]
