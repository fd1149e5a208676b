"""Every name of diffusers' pipelines is sdrt's, or has a row in the tables of foreign words."""

from __future__ import annotations

import inspect
import re
from typing import Any

import diffusers
import pytest
from diffusers.loaders.single_file import FromSingleFileMixin
from diffusers.pipelines.stable_diffusion.pipeline_onnx_stable_diffusion import OnnxStableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_onnx_stable_diffusion_img2img import (
    OnnxStableDiffusionImg2ImgPipeline,
)

import sdrt
from sdrt import StableDiffusionPipeline
from sdrt.foreign.arguments import CALLING, LOADING, SINGLE_FILE
from sdrt.foreign.imports import IMPORTS
from sdrt.foreign.pipeline import PIPELINE
from sdrt.foreign.word import find
from sdrt.schedulers.diffusers_classes import class_names

PIPELINES = (
    diffusers.StableDiffusionPipeline,
    diffusers.StableDiffusionImg2ImgPipeline,
    diffusers.StableDiffusionInpaintPipeline,
    diffusers.StableDiffusionUpscalePipeline,
    diffusers.StableDiffusionInstructPix2PixPipeline,
    OnnxStableDiffusionPipeline,
    OnnxStableDiffusionImg2ImgPipeline,
)
# Names that no user of a pipeline writes: helpers of its mixins.
INTERNAL = {
    *("config_name", "model_cpu_offload_seq", "has_compatibles", "ignore_for_config", "load_config"),
    *("extract_init_dict", "get_config_dict", "register_to_config", "register_for_auto_class"),
    *("to_json_file", "to_json_string", "text_encoder_name", "unet_name", "unet"),
}


@pytest.mark.parametrize("kind", PIPELINES, ids=lambda kind: kind.__name__)
def test_methods_and_attributes(kind: Any) -> None:
    names = {name for name in dir(kind) if not name.startswith("_")} - INTERNAL
    missing = {
        name for name in names if not hasattr(StableDiffusionPipeline, name) and find(name, PIPELINE) is None
    }
    assert not missing


@pytest.mark.parametrize("kind", PIPELINES, ids=lambda kind: kind.__name__)
def test_arguments_of_a_call(kind: Any) -> None:
    own = inspect.signature(StableDiffusionPipeline.__call__).parameters
    names = set(inspect.signature(kind.__call__).parameters) - {"self", "kwargs"}
    assert {name for name in names if name not in own and find(name, CALLING) is None} == set()


def test_arguments_of_loading() -> None:
    own = inspect.signature(StableDiffusionPipeline.from_pretrained).parameters
    source = inspect.getsource(diffusers.DiffusionPipeline.from_pretrained)
    names = set(re.findall(r'kwargs\.pop\(\s*"(\w+)"', source))
    names |= set(inspect.signature(diffusers.StableDiffusionPipeline.__init__).parameters) - {"self"}
    assert len(names) > 20
    assert {name for name in names if name not in own and find(name, LOADING) is None} == set()


def test_arguments_of_a_single_file() -> None:
    own = inspect.signature(StableDiffusionPipeline.from_single_file).parameters
    source = inspect.getsource(FromSingleFileMixin.from_single_file)
    names = set(re.findall(r'kwargs\.(?:pop|get)\(\s*"(\w+)"', source))
    names |= set(inspect.signature(FromSingleFileMixin.from_single_file).parameters) - {"kwargs"}
    assert len(names) > 10
    assert {name for name in names if name not in own and find(name, SINGLE_FILE) is None} == set()


def test_names_to_import() -> None:
    names = [name for name in dir(diffusers) if "StableDiffusion" in name or name.endswith("Scheduler")]
    names += [name for name in dir(diffusers) if name.startswith(("Auto", "Onnx", "ControlNet", "UNet"))]
    names = [name for name in names if not re.search("Modular|Blocks|Guid", name)]
    own = {*sdrt.__all__, *class_names()}
    without = {name for name in names if name not in own and find(name, IMPORTS) is None}
    assert without <= {"AutoModel", "AutoRoundConfig"}
    # What sdrt has is imported, and its name means the same.
    for name in class_names():
        assert hasattr(diffusers, name)
        assert getattr(sdrt, name).__name__ == name
