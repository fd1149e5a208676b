"""`write_bundle`: a model folder, a plan and a step graph in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx

from sdrt import StableDiffusionPipeline
from sdrt.common.messages import brief
from sdrt.common.notices import Notify
from sdrt.errors import IntegrityError, RequestError, UnsupportedModelError
from sdrt.model_folder.folder import ModelFolder, expand
from sdrt.onnx.composed import ATTENTION, PRODUCT, composed
from sdrt.onnx.graph_file import read_graph
from sdrt.pipeline import SchedulerLike
from sdrt.request.request import Request
from sdrt.text.clip_bpe import configured, load_bpe
from sdrt_export.bundle.plan import plan_of
from sdrt_export.bundle.step_graph import step_graph
from sdrt_export.bundle.web_runtime import FOLDER, WEB_BYTES, add_web_runtime
from sdrt_export.transaction import check_space, replace_folder

__all__ = ["write_bundle"]

_JAVASCRIPT = Path(__file__).parent / "javascript"


def write_bundle(
    model: str | Path,
    output: str | Path,
    *,
    web: bool = False,
    force: bool = False,
    notify: Notify | None = None,
    scheduler: SchedulerLike | None = None,
    spacing: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    max_size: int | None = None,
    eta: float = 0.0,
) -> Path:
    """Write the bundle of an exported or embedded model, whole or not at all. Returns the folder.

    Args:
        model: a model folder, or the name of an embedded model.
        output: the folder to write.
        web: add a page for browsers, and ONNX Runtime for them, which is downloaded from the npm registry.
        force: replace a folder that exists at ``output``.
        notify: receives messages for the user.
        scheduler, spacing, num_inference_steps, guidance_scale, width, height: as in a call of the pipeline. The
            model's own by default.
        max_size: the longest side to allow, in pixels. sdrt's limit by default.
        eta: the share of fresh noise, for DDIM.

    Raises:
        RequestError: a setting is wrong, the scheduler cannot be bundled, or ``output`` exists.
        UnsupportedModelError: the model is a checkpoint, or has inputs that a bundle does not provide.
        IntegrityError: a graph names weights outside of its folder.
        ExportError: the disk is full, or ONNX Runtime for browsers cannot be downloaded.
    """
    output = expand(output, "output", "a folder to write")
    request = Request(
        prompt="",
        seed=0,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        width=width,
        height=height,
        max_size=max_size,
        eta=eta,
    )
    with StableDiffusionPipeline.from_pretrained(
        model, provider="cpu", tune=False, notify=notify
    ) as pipeline:
        if not isinstance(pipeline.model, ModelFolder):
            raise UnsupportedModelError.advised(
                f"{pipeline.model.name} is a checkpoint",
                f"export it first: sdrt export {model} -o model/ --target portable",
            )
        folder = pipeline.model
        plan = plan_of(pipeline.plan(request, scheduler=scheduler, spacing=spacing), folder)
    files, made = _graphs(plan, folder)
    if output.resolve().is_relative_to(folder.path.resolve()):
        raise RequestError.advised(
            f"{output} is inside of the model {folder.path}",
            "choose another folder for the output",
            path=output,
        )
    with replace_folder(output, force, reading=folder.path, kind="bundle") as staging:
        size = sum(path.stat().st_size for path in files.values()) + sum(map(len, made.values()))
        check_space(output, size + (WEB_BYTES if web else 0))
        for name, path in files.items():
            target = staging / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        for name, content in made.items():
            (staging / name).write_bytes(content)
        onnx.save(step_graph(guided=plan["guidance_scale"] is not None), staging / "step.onnx")
        shutil.copyfile(_JAVASCRIPT / "sdrt.mjs", staging / "sdrt.mjs")
        if web:
            shutil.copyfile(_JAVASCRIPT / "index.html", staging / "index.html")
            add_web_runtime(staging / FOLDER)
        (staging / "tokenizer.json").write_text(_tokenizer(folder), encoding="utf-8")
        (staging / "plan.json").write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    return output


def _graphs(plan: dict[str, Any], folder: ModelFolder) -> tuple[dict[str, Path], dict[str, bytes]]:
    """The files to copy, and the graphs without fused attention to write, by their names. Adds them to the plan."""
    files: dict[str, Path] = {}
    made: dict[str, bytes] = {}
    for part in ("text_encoder", "unet", "vae_decoder"):
        place, name = plan[part]["graph"].split("/")
        path = folder.component(place)
        plan[part]["data"] = _weights(path)
        files[f"{place}/{name}"] = path
        files |= {f"{place}/{data}": path.parent / data for data in plan[part]["data"]}
        if (content := path.read_bytes()) != (apart := composed(content, path, (ATTENTION, PRODUCT))):
            plan[part]["composed"] = f"{place}/composed.onnx"
            made[plan[part]["composed"]] = apart
    return files, made


def _weights(path: Path) -> list[str]:
    """The names of the files beside a graph that hold its weights."""
    names = sorted(read_graph(path).external)
    for name in names:
        if Path(name).name != name:
            raise IntegrityError.advised(
                f"{path} has weights in {brief(name)}, which is not a file beside it",
                "export the model again",
                path=path,
            )
    return names


def _tokenizer(folder: ModelFolder) -> str:
    (text,) = folder.family.text_encoders
    place = folder.tokenizer_folder(text.tokenizer)
    config, special = configured(place)
    made: str = load_bpe(place, config, special, prefers_vocabulary=False).to_str()
    return made
