"""The systems to compare: what each one needs, which folder it loads, and how it makes an image.

A row imports nothing until its process runs it, so this table works on machines that lack most systems.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ALL", "OURS", "SYSTEMS", "Loaded", "Made", "System", "Work", "class_of", "for_machine"]

OURS = "sdrt"
PROMPT = "a lighthouse on a cliff at dusk"
SEED, GUIDANCE_SCALE = 0, 7.5
ALL = ("cpu", "cuda")
OnStep = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of every system: one image with sides of `size` pixels in `steps` Euler steps, with guidance.

    It runs in float16 on "cuda" and in float32 on "cpu", unless the name of a system says another dtype.
    """

    device: str
    size: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Made:
    """A PIL image, and the seconds of each call of the U-Net in its engine, if the system reports them."""

    image: Any
    unet: tuple[float, ...] = ()


def _nothing_to_wait_for() -> None:
    """Nothing: work on the host has ended when its call returns."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A loaded system. `generate` calls its argument after every step, and `synchronize` waits for the device."""

    generate: Callable[[OnStep], Made]
    synchronize: Callable[[], None] = _nothing_to_wait_for


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table.

    Attributes:
        about: what the system is.
        pipeline: its class as "module:name". The import is timed.
        needs: the modules that it needs.
        folder: a row of `folders.FOLDERS`.
        load: makes it ready, from its class, its folder and the work.
        devices: where it runs.
        architectures: what it can run, None for all.
        compiles: whether its first run at a size compiles for minutes and keeps the result.
        library: a file that one of the modules must contain.
    """

    about: str
    pipeline: str
    needs: tuple[str, ...]
    folder: str
    load: Callable[[Any, Path, Work], Loaded]
    devices: tuple[str, ...] = ALL
    architectures: tuple[str, ...] | None = None
    compiles: bool = False
    library: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.pipeline.startswith(f"{OURS}:")


def class_of(system: System) -> Any:
    """Import the class of the pipeline."""
    module, _, name = system.pipeline.partition(":")
    return getattr(importlib.import_module(module), name)


def _sdrt(
    provider: str | None = None, scheduler: str | None = None, **options: str
) -> Callable[[Any, Path, Work], Loaded]:
    """sdrt on `provider`, by default the device's. `scheduler` is a folder of another scheduler, beside the model's."""

    def load(pipeline_class: Any, folder: Path, work: Work) -> Loaded:
        pipeline = pipeline_class.from_pretrained(
            folder, provider=provider or work.device, provider_options=options
        ).load()
        if scheduler is not None:
            pipeline.scheduler = folder.parent / scheduler

        def generate(on_step: OnStep) -> Made:
            from sdrt.common.spans import listening

            calls: list[float] = []

            # Only the engine's call counts as U-Net. Transfers, guidance and the scheduler are outside.
            def listen(name: str, start: float, end: float) -> None:
                if name == "unet":
                    calls.append(end - start)

            with listening(listen):
                result = pipeline(callback_on_step_end=_callback(on_step), seed=SEED, **_arguments(work))
            return Made(image=result.images[0], unet=tuple(calls))

        return Loaded(generate=generate)

    return load


def _diffusers(pipeline_class: Any, folder: Path, work: Work) -> Loaded:
    """diffusers, eager. Its default attention is `scaled_dot_product_attention`."""
    import torch

    dtype = {"cpu": torch.float32, "cuda": torch.float16}[work.device]
    pipeline = pipeline_class.from_pretrained(folder, torch_dtype=dtype).to(work.device)
    return _of_diffusers(pipeline, work)


def _compiled(mode: str) -> Callable[[Any, Path, Work], Loaded]:
    """diffusers' own recipe: channels last, the U-Net compiled as one graph, the VAE's decoder compiled."""

    def load(pipeline_class: Any, folder: Path, work: Work) -> Loaded:
        import torch

        dtype = {"cpu": torch.float32, "cuda": torch.float16}[work.device]
        pipeline = pipeline_class.from_pretrained(folder, torch_dtype=dtype).to(work.device)
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet, mode=mode, fullgraph=True)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, fullgraph=True)
        return _of_diffusers(pipeline, work)

    return load


_ORT = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def _optimum(pipeline_class: Any, folder: Path, work: Work) -> Loaded:
    import onnxruntime

    if work.device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    pipeline = pipeline_class.from_pretrained(folder, provider=_ORT[work.device])
    used = pipeline.unet.session.get_providers()[0]
    if used != _ORT[work.device]:  # ONNX Runtime only warns
        raise RuntimeError(f"ONNX Runtime took {used} instead of {_ORT[work.device]}")
    return _of_diffusers(pipeline, work)


def _openvino(precision: str) -> Callable[[Any, Path, Work], Loaded]:
    """OpenVINO in "f32" or "bf16", with a fixed shape, as its guide recommends.

    By default, OpenVINO uses bfloat16 on CPUs that have it.
    """

    def load(pipeline_class: Any, folder: Path, work: Work) -> Loaded:
        hint = {"INFERENCE_PRECISION_HINT": precision}
        pipeline = pipeline_class.from_pretrained(folder, compile=False, ov_config=hint)
        pipeline.reshape(batch_size=1, height=work.size, width=work.size, num_images_per_prompt=1)
        pipeline.compile()
        return _of_diffusers(pipeline, work)

    return load


def _of_diffusers(pipeline: Any, work: Work) -> Loaded:
    """A loaded system with the interface of diffusers' pipelines."""
    import torch

    pipeline.set_progress_bar_config(disable=True)

    def generate(on_step: OnStep) -> Made:
        generator = torch.Generator().manual_seed(SEED)
        result = pipeline(callback_on_step_end=_callback(on_step), generator=generator, **_arguments(work))
        return Made(image=result.images[0])

    on_gpu = work.device == "cuda"
    return Loaded(generate=generate, synchronize=torch.cuda.synchronize if on_gpu else _nothing_to_wait_for)


def _stable_diffusion_cpp(model_class: Any, folder: Path, work: Work) -> Loaded:
    # By default, it uses half of the cores.
    model = model_class(model_path=str(folder), wtype="f32", n_threads=os.cpu_count(), verbose=False)

    def generate(on_step: OnStep) -> Made:
        def progress(step: int, steps: int, _seconds: float) -> None:
            if steps == work.steps and step:  # it also reports loading, decoding and the start
                on_step()

        images = model.generate_image(
            prompt=PROMPT,
            width=work.size,
            height=work.size,
            seed=SEED,
            sample_steps=work.steps,
            sample_method="euler",
            cfg_scale=GUIDANCE_SCALE,
            progress_callback=progress,
        )
        return Made(image=images[0])

    return Loaded(generate=generate)


def _arguments(work: Work) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "height": work.size,
        "width": work.size,
        "num_inference_steps": work.steps,
        "guidance_scale": GUIDANCE_SCALE,
    }


def _callback(on_step: OnStep) -> Callable[..., dict[str, Any]]:
    def on_step_end(_pipeline: Any, _index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors

    return on_step_end


_TORCH = ("torch", "diffusers", "transformers", "accelerate")
_DIFFUSERS = "diffusers:StableDiffusionPipeline"
_OPTIMUM = "optimum.onnxruntime:ORTStableDiffusionPipeline"

SYSTEMS: Mapping[str, System] = {
    "sdrt": System(
        about="sdrt",
        pipeline="sdrt:StableDiffusionPipeline",
        needs=("onnxruntime",),
        folder="sdrt",
        load=_sdrt(),
    ),
    "sdrt-cuda-graph": System(
        about="sdrt, with the U-Net's kernels recorded once and replayed",
        pipeline="sdrt:StableDiffusionPipeline",
        needs=("onnxruntime",),
        folder="sdrt",
        load=_sdrt(enable_cuda_graph="true"),
        devices=("cuda",),
    ),
    "sdrt-tensorrt": System(
        about="sdrt, with ONNX Runtime's TensorRT provider",
        pipeline="sdrt:StableDiffusionPipeline",
        needs=("onnxruntime", "tensorrt"),
        library="onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
        folder="sdrt-portable",
        load=_sdrt(provider="tensorrt"),
        devices=("cuda",),
    ),
    "sdrt-int8": System(
        about="sdrt, with convolutions and linear layers in 8 bits",
        pipeline="sdrt:StableDiffusionPipeline",
        needs=("onnxruntime",),
        folder="sdrt-int8",
        # Its export comes from the architecture, which has another scheduler than the checkpoint.
        load=_sdrt(scheduler="checkpoint/scheduler"),
        devices=("cpu",),
    ),
    "diffusers": System(
        about="diffusers, eager, with SDPA",
        pipeline=_DIFFUSERS,
        needs=_TORCH,
        folder="checkpoint",
        load=_diffusers,
    ),
    "diffusers-compile": System(
        about="diffusers, torch.compile (reduce-overhead), channels last",
        pipeline=_DIFFUSERS,
        needs=_TORCH,
        folder="checkpoint",
        load=_compiled("reduce-overhead"),
        compiles=True,
    ),
    "diffusers-max-autotune": System(
        about="diffusers, torch.compile (max-autotune), channels last",
        pipeline=_DIFFUSERS,
        needs=(*_TORCH, "triton"),
        folder="checkpoint",
        load=_compiled("max-autotune"),
        devices=("cuda",),
        compiles=True,
    ),
    "optimum": System(
        about="optimum's pipeline on ONNX Runtime, its own export",
        pipeline=_OPTIMUM,
        needs=(*_TORCH, "onnxruntime", "optimum.onnxruntime"),
        folder="optimum",
        load=_optimum,
    ),
    "ort-fused": System(
        about="the same export, fused by onnxruntime.transformers' optimize_pipeline",
        pipeline=_OPTIMUM,
        needs=(*_TORCH, "onnxruntime.transformers", "optimum.onnxruntime"),
        folder="fused",
        load=_optimum,
    ),
    "openvino": System(
        about="optimum-intel's pipeline on OpenVINO",
        pipeline="optimum.intel:OVStableDiffusionPipeline",
        needs=(*_TORCH, "openvino", "optimum.intel"),
        folder="openvino",
        load=_openvino("f32"),
        devices=("cpu",),
    ),
    "openvino-bf16": System(
        about="the same in bfloat16",
        pipeline="optimum.intel:OVStableDiffusionPipeline",
        needs=(*_TORCH, "openvino", "optimum.intel"),
        folder="openvino",
        load=_openvino("bf16"),
        devices=("cpu",),
    ),
    "stable-diffusion.cpp": System(
        about="stable-diffusion.cpp, by stable-diffusion-cpp-python",
        pipeline="stable_diffusion_cpp:StableDiffusion",
        needs=("stable_diffusion_cpp",),
        folder="checkpoint",
        load=_stable_diffusion_cpp,
        devices=("cpu",),
        architectures=("sd15",),
    ),
}


def for_machine(device: str) -> tuple[str, ...]:
    """The names of the systems that run on a kind of device, sdrt first."""
    return tuple(name for name, row in SYSTEMS.items() if device in row.devices)
