"""The torch module of each component: made from a config, loaded with a checkpoint's tensors, and run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdrt.errors import ExportError
from sdrt.model_folder.graph_kind import ImageInput
from sdrt.model_folder.model import CONTROLNET, IMAGE_ENCODER, IP_ADAPTER
from sdrt_export.architectures.clip_text import ADDED, EOS_INDEX
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.usage import is_spare
from sdrt_export.components import Component, parts_of
from sdrt_export.components.component import Config, Inputs
from sdrt_export.tensors.array import Array

# At import, diffusers warns about optimum's packaging, which users cannot change.
logging.getLogger("diffusers.utils.import_utils").setLevel(logging.ERROR)

import diffusers  # noqa: E402
import transformers  # noqa: E402

__all__ = ["build", "load", "load_part", "run"]

_Torch = dict[str, Tensor]
_WAYS = ("down_blocks", "up_blocks", "mid_block")
_CHECKER, _PROJECTION, _T2I = "StableDiffusionSafetyChecker", "ImageProjection", "T2IAdapter"
# Errors that the libraries raise for a config that they cannot make a module from.
_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, AttributeError)


def build(component: Component, config: Config) -> nn.Module:
    """A module of the component's class, for inference, without memory for its weights.

    Raises:
        ExportError: the library cannot make one.
    """
    try:
        with torch.device("meta"):
            module = _made(component.class_name, dict(config))
    except _UNREADABLE as error:
        raise _refused(component, error) from error
    return module.eval().requires_grad_(False)


def _made(class_name: str, config: dict[str, Any]) -> nn.Module:
    module: nn.Module
    if class_name == _CHECKER:
        from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

        module = StableDiffusionSafetyChecker(transformers.CLIPConfig.from_dict(config))
    elif class_name == _PROJECTION:
        module = _projection(config)
    elif class_name.startswith("CLIPVision"):
        module = getattr(transformers, class_name)(transformers.CLIPVisionConfig.from_dict(config))
    elif hasattr(diffusers, class_name):
        module = getattr(diffusers, class_name).from_config(config)
    else:
        module = getattr(transformers, class_name)(transformers.CLIPTextConfig.from_dict(config))
    return module


def _projection(config: Mapping[str, int]) -> nn.Module:
    """The projection of an IP-Adapter."""
    from diffusers.models import embeddings

    embeds, width, tokens = config["embeds_width"], config["width"], config["tokens"]
    module: nn.Module
    if not config["layers"]:
        module = embeddings.ImageProjection(embeds, width, num_image_text_embeds=tokens)
        return module
    module = embeddings.IPAdapterPlusImageProjection(
        embed_dims=embeds,
        output_dims=width,
        hidden_dims=config["hidden"],
        depth=config["layers"],
        dim_head=64,
        heads=config["heads"],
        num_queries=tokens,
        ffn_ratio=config["inner"] / config["hidden"],
    )
    return module


def load(
    component: Component, config: Config, tensors: Mapping[str, Array], images: Sequence[ImageInput] = ()
) -> nn.Module:
    """The component's module with a checkpoint's weights, in float32 for inference.

    With `images`, it is a U-Net that sees them through IP-Adapters, whose weights are in `tensors` too.

    Raises:
        ExportError: names or shapes differ from those of the library's class.
    """
    module = build(component, config)
    if images:
        _see(module, images)
    own = module.state_dict()
    state = {name: _tensor(tensors[name]) for name in tensors if name in own or not is_spare(component, name)}
    try:
        # Nothing is copied: float32 stays mapped from the file.
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise _refused(component, error) from error
    _fill_buffers(module)
    return module.requires_grad_(False)


def _cross_attentions(unet: nn.Module) -> list[tuple[str, Any]]:
    """The cross-attentions with their names, in the order in which IP-Adapters count them: the middle is last."""
    found = [(name, one) for name, one in unet.named_modules() if name.endswith(".attn2")]
    return sorted(found, key=lambda row: _WAYS.index(row[0].partition(".")[0]))


def _see(unet: nn.Module, images: Sequence[ImageInput]) -> None:
    """Make a U-Net's cross-attentions those of diffusers' IP-Adapters, without memory for their weights."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    with torch.device("meta"):
        for _, attention in _cross_attentions(unet):
            processor = IPAdapterAttnProcessor2_0(
                attention.inner_dim, images[0].width, num_tokens=[1] * len(images)
            )
            attention.set_processor(processor)


def load_part(checkpoint: Checkpoint, part: str) -> nn.Module:
    """The module of a checkpoint's part ("text_encoder", "unet", "vae"), see `load`. It may be changed."""
    component = parts_of(checkpoint.family)[part][0]
    module = load(component, checkpoint.config(part), checkpoint.tensors(part))
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def _tensor(array: Array) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array, np.float32).reshape(array.shape))


def _fill_buffers(module: nn.Module) -> None:
    """Make the buffers that files do not hold. The only ones are CLIP's positions."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, key = name.rpartition(".")
            assert key == "position_ids", name
            values = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(key, values, persistent=False)


def _refused(component: Component, error: Exception) -> ExportError:
    reason = " ".join(str(error).split())
    return ExportError(
        f"{component.name}: the weights cannot be loaded as {component.class_name}: {reason[:400]}",
        component=component.name,
    )


def run(component: Component, module: nn.Module, inputs: Inputs) -> list[Array]:
    """The module's outputs, in the order of the component's names."""
    given = {name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()}
    with torch.no_grad():
        made = _RUN.get(_kind(component), _run_text_encoder)(module, given)
    return [one.numpy() for one in made]


def _kind(component: Component) -> str:
    """The component's name; that of the first one for further ControlNets and IP-Adapters."""
    return {"ControlNetModel": CONTROLNET, _T2I: _T2I, _PROJECTION: IP_ADAPTER}.get(
        component.class_name, component.name
    )


def _run_text_encoder(model: Any, inputs: _Torch) -> list[Tensor]:
    table = model.get_input_embeddings()
    longer = torch.cat([table.weight, inputs[ADDED]])
    longer_table = nn.Embedding(*longer.shape)
    longer_table.weight = nn.Parameter(longer, requires_grad=False)
    model.set_input_embeddings(longer_table)
    try:
        out = model(input_ids=inputs["input_ids"], output_hidden_states=True)
    finally:
        model.set_input_embeddings(table)
    norm, hidden = model.text_model.final_layer_norm, list(out.hidden_states)
    skipped = [norm(hidden[-1 - k]) for k in range(1, len(hidden) - 1)]
    return [out.last_hidden_state, _pooled(model, out, inputs), *hidden, *skipped]


def _pooled(model: Any, out: Any, inputs: _Torch) -> Tensor:
    """The state of the token that ends each text, projected if the model does so.

    With old configs, transformers takes the largest id for the end, but ids of added tokens are larger.
    """
    projected: Tensor | None = getattr(out, "text_embeds", None)
    ids = inputs["input_ids"]
    if not (ids >= model.config.vocab_size).any():
        found: Tensor = out.pooler_output if projected is None else projected
        return found
    rows: Tensor = out.last_hidden_state[torch.arange(len(ids)), inputs[EOS_INDEX]]
    return rows if projected is None else model.text_projection(rows)


def _run_unet(model: Any, inputs: _Torch) -> list[Tensor]:
    sizes = {name: inputs[name] for name in ("text_embeds", "time_ids") if name in inputs}
    given: dict[str, Any] = {name: value for name, value in inputs.items() if name not in sizes}
    down = [given.pop(name) for name in list(given) if name.startswith("down_block_additional_residual")]
    if down:
        given["down_block_additional_residuals"] = down
    features = [given.pop(name) for name in list(given) if "_intrablock_additional_residual" in name]
    if features:
        given["down_intrablock_additional_residuals"] = features
    tokens = [given.pop(name) for name in list(given) if name.startswith("image_tokens_")]
    scales = [given.pop(name) for name in list(given) if name.startswith("image_scales_")]
    if tokens:
        given["encoder_hidden_states"] = (given["encoder_hidden_states"], tokens)
        for layer, (_, attention) in enumerate(_cross_attentions(model)):
            attention.processor.scale = [float(one[layer]) for one in scales]
    return [model(**given, added_cond_kwargs=sizes or None, return_dict=False)[0]]


def _run_controlnet(model: Any, inputs: _Torch) -> list[Tensor]:
    """The residuals before their scale, times the given ones: torch's own scale is the same for all."""
    given: dict[str, Any] = {**inputs, "conditioning_scale": 1.0}
    sizes = {name: given.pop(name) for name in ("text_embeds", "time_ids") if name in given}
    # A mean over all pixels is spread over them here, as in the graph.
    pools = model.config.global_pool_conditions
    model.register_to_config(global_pool_conditions=False)
    down, middle = model(**given, added_cond_kwargs=sizes or None, return_dict=False)
    model.register_to_config(global_pool_conditions=pools)
    made = [one.mean((2, 3), keepdim=True).expand_as(one) if pools else one for one in (*down, middle)]
    return [one * scale for one, scale in zip(made, inputs["conditioning_scale"], strict=True)]


def _run_image_encoder(model: Any, inputs: _Torch) -> list[Tensor]:
    made = model(pixel_values=inputs["pixel_values"], output_hidden_states=True)
    return [made.image_embeds, made.hidden_states[-2]]


def _run_checker(model: Any, inputs: _Torch) -> list[Tensor]:
    """The cosines between images and concepts, and the thresholds."""
    from diffusers.pipelines.stable_diffusion.safety_checker import cosine_distance

    embeds = model.visual_projection(model.vision_model(inputs["clip_input"])[1])
    tables = (model.special_care_embeds, model.concept_embeds)
    cosines = [cosine_distance(embeds, table) for table in tables]
    return [*cosines, model.special_care_embeds_weights, model.concept_embeds_weights]


_RUN: Mapping[str, Callable[[Any, _Torch], list[Tensor]]] = {
    "unet": _run_unet,
    CONTROLNET: _run_controlnet,
    _T2I: lambda model, inputs: model(inputs["adapter_cond"]),
    "safety_checker": _run_checker,
    IMAGE_ENCODER: _run_image_encoder,
    IP_ADAPTER: lambda model, inputs: [model(inputs["image_embeds"])],
    "vae_encoder": lambda model, inputs: [model.encode(inputs["sample"]).latent_dist.parameters],
    "vae_decoder": lambda model, inputs: [model.decode(inputs["latent_sample"], return_dict=False)[0]],
    "taesd_decoder": lambda model, inputs: [model.decode(inputs["latent_sample"], return_dict=False)[0]],
}
