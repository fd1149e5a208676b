"""Record `lora_files.npz`: what diffusers with PEFT makes of LoRA files of many programs, attached to tiny models.

Usage, in an environment of its own, because sdrt needs no PEFT:

    pip install diffusers==0.39.0 peft==0.21.2 "transformers<5" torch==2.13.0 safetensors accelerate
    PYTHONPATH=runtime:export python -m tools.goldens.record_lora_files

Some files are written here by those libraries themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdrt_export.architectures.published import ARCHITECTURES
from tools.goldens.effective_weights import effective
from tools.goldens.lora_file_cases import MODULES, READ, SAMPLED, base_of

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "lora_files.npz"
Arrays = dict[str, NDArray[Any]]
_PIPELINES = {"tiny": StableDiffusionPipeline, "tiny-xl": StableDiffusionXLPipeline}


def made(model: str) -> dict[str, torch.nn.Module]:
    """The parts of a tiny model, with known numbers in the modules that files change."""
    configs = ARCHITECTURES[model]
    parts: dict[str, torch.nn.Module] = {"unet": UNet2DConditionModel.from_config(dict(configs["unet"]))}
    classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for name, kind in classes.items():
        if name in configs:
            parts[name] = kind(CLIPTextConfig.from_dict(dict(configs[name])))
    for component, modules in MODULES[model].items():
        for module in modules:
            fill(f"{component}.{module}", parts[component].get_submodule(module))
    return parts


@torch.no_grad()
def fill(name: str, layer: torch.nn.Module) -> None:
    """Give a layer known numbers."""
    for part, parameter in layer.named_parameters():
        parameter.copy_(torch.from_numpy(base_of(f"{name}.{part}", tuple(parameter.shape))))


def pipeline(model: str, parts: Mapping[str, Any]) -> Any:
    """A pipeline of the parts that have adapters."""
    rest = {"vae": None, "tokenizer": None, "scheduler": None}
    if model == "tiny":
        return StableDiffusionPipeline(
            **parts, **rest, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    return StableDiffusionXLPipeline(**parts, **rest, tokenizer_2=None, add_watermarker=False)


def record(case: str, model: str, path: Path, parts: Mapping[str, torch.nn.Module], arrays: Arrays) -> None:
    """Record a file, and the weights of every layer that has something attached."""
    arrays[f"{case}|{model}|file"] = np.frombuffer(path.read_bytes(), np.uint8)
    count = 0
    for component, modules in MODULES[model].items():
        for module, shape in modules.items():
            attached = parts[component].get_submodule(module)
            if isinstance(attached, BaseTunerLayer):
                count += 1
                weight = effective(attached, shape)["weight"]
                arrays[f"{case}|{model}|{component}|{module}"] = weight.reshape(-1)[::SAMPLED].copy()
    print(f"{case}: {count} layers")


def read_by_diffusers(arrays: Arrays, folder: Path) -> None:
    """The files of other programs, read by diffusers."""
    for case, (model, tensors) in READ.items():
        path = folder / f"{case}.safetensors"
        save_file({key: torch.from_numpy(value.copy()) for key, value in tensors().items()}, path)
        parts = made(model)
        pipeline(model, parts).load_lora_weights(str(path), low_cpu_mem_usage=False)
        record(case, model, path, parts, arrays)


@torch.no_grad()
def attach(part: Any, component: str, config: LoraConfig) -> None:
    """Attach a random adapter of PEFT's."""
    part.add_adapter(config)
    for name, parameter in part.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.copy_(torch.from_numpy(base_of(f"{component}.{name}", tuple(parameter.shape))))
        elif "magnitude" in name:
            parameter.mul_(1.5)


def written_by_diffusers(arrays: Arrays, folder: Path, case: str, **options: Any) -> None:
    """What `save_lora_weights` writes, with the config in the metadata."""
    parts = made("tiny")
    for component, modules in MODULES["tiny"].items():
        attach(parts[component], component, LoraConfig(r=2, target_modules=list(modules), **options))
    states = {f"{name}_lora_layers": get_peft_model_state_dict(part) for name, part in parts.items()}
    states["unet_lora_layers"] = states.pop("unet_lora_layers")
    StableDiffusionPipeline.save_lora_weights(
        folder / case, **states, **_collate_lora_metadata(parts), safe_serialization=True
    )
    record(case, "tiny", folder / case / "pytorch_lora_weights.safetensors", parts, arrays)


@torch.no_grad()
def written_by_peft(arrays: Arrays, folder: Path, case: str, **options: Any) -> None:
    """What PEFT's own `save_pretrained` writes, with the config beside the file."""
    parts = made("tiny")
    config = LoraConfig(r=2, target_modules=list(MODULES["tiny"]["unet"]), **options)
    model = get_peft_model(parts["unet"], config)
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.copy_(torch.from_numpy(base_of(name, tuple(parameter.shape))))
    model.save_pretrained(folder / case)
    arrays[f"{case}|tiny|config"] = np.frombuffer(
        (folder / case / "adapter_config.json").read_bytes(), np.uint8
    )
    record(case, "tiny", folder / case / "adapter_model.safetensors", parts, arrays)


def main() -> None:
    """Record every file."""
    arrays: Arrays = {}
    patterns = {
        "lora_alpha": 5,
        "rank_pattern": {"attn1.to_q": 3, "mlp.fc2": 1},
        "alpha_pattern": {"attn1.to_q": 1.5, "self_attn.q_proj": 7, "down_blocks.0.resnets.0.conv1": 0.5},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read_by_diffusers(arrays, folder)
        written_by_diffusers(arrays, folder, "saved by diffusers", **patterns)
        written_by_diffusers(
            arrays, folder, "saved by diffusers, rank-stabilised", lora_alpha=3, use_rslora=True
        )
        written_by_diffusers(arrays, folder, "saved by diffusers, dora", lora_alpha=3, use_dora=True)
        written_by_peft(arrays, folder, "saved by peft", **patterns)
        written_by_peft(arrays, folder, "saved by peft, dora", lora_alpha=3, use_dora=True)
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)
    print(f"{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
