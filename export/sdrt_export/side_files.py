"""The files beside the graphs: configs, tokenizer, schedulers, and ``model_index.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdrt.errors import ModelNotFoundError
from sdrt.families import Family, Task
from sdrt.model_folder.checker import FEATURE_EXTRACTOR, PREPROCESSOR, SAFETY_CHECKER
from sdrt.model_folder.index import INDEX_NAME
from sdrt_export import tokenizer
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.components import components_of

__all__ = ["SCHEDULER", "index", "index_of", "write_json", "write_side_files"]

SCHEDULER = "PNDMScheduler"
"""The class of a scheduler whose config names none."""
# The version of diffusers whose classes and config keys the exported folder has.
_DIFFUSERS_VERSION = "0.39.0"


def write_side_files(checkpoint: Checkpoint, staging: Path) -> None:
    """Write the tokenizer, the scheduler configs, and the index that optimum and diffusers read."""
    family, sources = checkpoint.family, checkpoint.tokenizer_folders()
    for spec in family.text_encoders:
        tokens = staging / spec.tokenizer
        shutil.rmtree(tokens, ignore_errors=True)
        if spec.tokenizer in sources:
            tokenizer.write_tokenizer(sources[spec.tokenizer], tokens)
        else:
            text = _config(staging, spec.component)
            tokenizer.write_byte_tokenizer(staging / "scratch", tokens, text["max_position_embeddings"])
    (staging / "scheduler").mkdir(exist_ok=True)
    write_json(staging / "scheduler" / "scheduler_config.json", checkpoint.scheduler_config())
    low_res = checkpoint.low_res_scheduler_config()
    entries = index_of(checkpoint, lambda component: _config(staging, component))
    if low_res is not None and "low_res_scheduler" in entries:
        (staging / "low_res_scheduler").mkdir()
        write_json(staging / "low_res_scheduler" / "scheduler_config.json", low_res)
    _write_preprocessor(checkpoint, staging)
    write_json(staging / INDEX_NAME, entries)


def _write_preprocessor(checkpoint: Checkpoint, staging: Path) -> None:
    """Write how images are prepared for the safety checker, if there is one."""
    checker = checkpoint.checker()
    if checker is not None and not checker.problem and (staging / SAFETY_CHECKER).is_dir():
        (staging / FEATURE_EXTRACTOR).mkdir(exist_ok=True)
        write_json(staging / FEATURE_EXTRACTOR / PREPROCESSOR, checker.preprocessor)


def index_of(checkpoint: Checkpoint, config: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``model_index.json`` for a checkpoint, whose components have these configs.

    Raises:
        ModelNotFoundError: an upscaler lacks its second scheduler.
    """
    family, scheduler = checkpoint.family, checkpoint.scheduler_config()
    entries = index(family, scheduler.get("_class_name", SCHEDULER))
    channels = config(family.vae.decoder)["latent_channels"]
    task = family.task_of(config(family.denoiser.component), channels)
    entries["_class_name"] = _pipeline(checkpoint, family, task)
    more = _low_res_entries(checkpoint) if task.has_noise_level else {}
    return entries | more | _options(checkpoint) | _checker_entries(checkpoint)


def _checker_entries(checkpoint: Checkpoint) -> dict[str, Any]:
    """The entries of a checkpoint that has a safety checker, whether it can be read or not."""
    if checkpoint.checker() is None:
        return {}
    return {
        SAFETY_CHECKER: ["stable_diffusion", "StableDiffusionSafetyChecker"],
        FEATURE_EXTRACTOR: ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": checkpoint.index().get("requires_safety_checker") is not False,
    }


def _pipeline(checkpoint: Checkpoint, family: Family, task: Task) -> str:
    """The class in the index: the task's, or the checkpoint's own if it reads the same settings in another way."""
    own = checkpoint.index().get("_class_name")
    return own if own in family.consistency_pipelines and task is family.tasks[0] else task.pipeline


def _options(checkpoint: Checkpoint) -> dict[str, bool]:
    """The options of the checkpoint's index that change images."""
    given = checkpoint.index()
    return {name: given[name] for name in checkpoint.family.options if isinstance(given.get(name), bool)}


def _config(folder: Path, component: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / component / "config.json").read_text(encoding="utf-8"))
    return config


def _low_res_entries(checkpoint: Checkpoint) -> dict[str, Any]:
    """The entries of an upscaler's index."""
    config = checkpoint.low_res_scheduler_config()
    if config is None:
        raise ModelNotFoundError.advised(
            f"{checkpoint.name} has the U-Net of an upscaler, but no low_res_scheduler",
            "download it again",
            component="low_res_scheduler",
        )
    entries: dict[str, Any] = {"low_res_scheduler": ["diffusers", str(config.get("_class_name"))]}
    most = checkpoint.index().get("max_noise_level")
    return entries | ({"max_noise_level": most} if isinstance(most, int) else {})


def index(family: Family, scheduler: str) -> dict[str, Any]:
    """``model_index.json``. Of the checkpoint's own names, it has only the class of its ``scheduler``."""
    classes = {row.checkpoint: [row.library, row.class_name] for row in components_of(family).values()}
    return {
        "_class_name": family.tasks[0].pipeline,
        "_diffusers_version": _DIFFUSERS_VERSION,
        "scheduler": ["diffusers", scheduler],
        **{name: ["transformers", "CLIPTokenizer"] for name in family.tokenizers},
        **family.absent,
        **classes,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object. Equal objects make equal files."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
