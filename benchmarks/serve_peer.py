"""A server as many people write one: FastAPI around a pipeline of diffusers, one image at a time.

    python -m benchmarks.serve_peer

Its model has the embedded model's architecture with random weights, which take as long to run. It listens on a free
port and answers `/v1/images/generations` with PNG files in base64, as `sdrt serve` does.
"""

from __future__ import annotations

import base64
import io
import socket
import sys
import threading
from typing import Any

import torch
import uvicorn
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from fastapi import FastAPI
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import sdrt_models.shapes
from sdrt_models.shapes.architecture import SCHEDULER, TEXT_ENCODER, UNET, VAE

__all__ = ["main"]

_GUIDANCE = 3.0  # the embedded model's default


def _pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(f"{sdrt_models.shapes.__path__[0]}/model/tokenizer")
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER, vocab_size=len(tokenizer))).eval(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**UNET),
        scheduler=DPMSolverMultistepScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _app(pipeline: StableDiffusionPipeline) -> FastAPI:
    app, lock = FastAPI(), threading.Lock()

    @app.get("/readyz")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/images/generations")
    def generate(body: dict[str, Any]) -> dict[str, Any]:
        with lock:
            made = pipeline(
                body["prompt"],
                num_inference_steps=body["steps"],
                guidance_scale=_GUIDANCE,
                generator=torch.Generator().manual_seed(body["seed"]),
            )
        buffer = io.BytesIO()
        made.images[0].save(buffer, "PNG")
        return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}

    return app


def main() -> None:
    pipeline = _pipeline()
    pipeline.set_progress_bar_config(disable=True)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(_app(pipeline), log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
