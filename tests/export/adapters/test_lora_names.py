"""Every spelling of a module's name leads to the model's own, for the published models."""

from __future__ import annotations

import re
from functools import cache

import pytest

from sdrt.adapters.lora.ldm_names import ldm_names
from sdrt.adapters.lora.modules import Module, ModuleNames
from sdrt_export.architectures.published import PUBLISHED
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.keys.unet import unet_rows
from sdrt_export.components import parts_of
from sdrt_export.components.outline import tensors_of

Shapes = dict[str, dict[str, tuple[int, ...]]]


@cache
def shapes_of(architecture: str) -> Shapes:
    row = PUBLISHED[architecture]
    parts = parts_of(row.family).items()
    return {part: tensors_of(of, row.configs[part]) for part, of in parts if part != "vae"}


def modules_of(parameters: dict[str, tuple[int, ...]]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_original_names_are_those_of_single_file_checkpoints(architecture: str) -> None:
    modules = modules_of(shapes_of(architecture)["unet"])
    rows = {row.to: row.of for row in unet_rows(UNetConfig.of(PUBLISHED[architecture].configs["unet"]))}
    expected = {}
    for module in modules:
        head = next(
            (
                head
                for head in (module.rsplit(".", n)[0] for n in range(module.count(".") + 1))
                if head in rows
            ),
            "",
        )
        if head:
            expected[module] = rows[head] + module.removeprefix(head)
    assert ldm_names(modules) == expected


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_every_module_is_found_by_its_names_in_all_programs(architecture: str) -> None:
    shapes = shapes_of(architecture)
    names = ModuleNames(shapes)
    prefixes = {
        "unet": ("lora_unet_", "lycoris_", "unet.", "diffusion_model.", "base_model.model.", ""),
        "text_encoder": ("lora_te_", "lora_te1_", "text_encoder."),
        "text_encoder_2": ("lora_te2_", "text_encoder_2."),
    }
    for component, parameters in shapes.items():
        for module in modules_of(parameters):
            for prefix in prefixes[component]:
                spelled = module if prefix.endswith(".") or not prefix else module.replace(".", "_")
                assert names.find(prefix + spelled) == Module(component, module)


@pytest.mark.parametrize(
    ("architecture", "name", "component", "module"),
    [
        # kohya's names of SDXL's U-Net
        (
            "sdxl",
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        (
            "sdxl",
            "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
            "unet",
            "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
        ),
        ("sdxl", "lora_unet_middle_block_1_proj_in", "unet", "mid_block.attentions.0.proj_in"),
        ("sdxl", "lora_unet_middle_block_2_in_layers_2", "unet", "mid_block.resnets.1.conv1"),
        ("sdxl", "lora_unet_output_blocks_2_2_conv", "unet", "up_blocks.0.upsamplers.0.conv"),
        ("sdxl", "lora_unet_output_blocks_5_2_conv", "unet", "up_blocks.1.upsamplers.0.conv"),
        (
            "sdxl",
            "lora_unet_output_blocks_8_0_skip_connection",
            "unet",
            "up_blocks.2.resnets.2.conv_shortcut",
        ),
        ("sdxl", "lora_unet_input_blocks_3_0_op", "unet", "down_blocks.0.downsamplers.0.conv"),
        ("sdxl", "lora_unet_input_blocks_1_0_emb_layers_1", "unet", "down_blocks.0.resnets.0.time_emb_proj"),
        ("sdxl", "lora_unet_label_emb_0_2", "unet", "add_embedding.linear_2"),
        ("sdxl", "lora_unet_time_embed_0", "unet", "time_embedding.linear_1"),
        ("sdxl", "lora_unet_out_2", "unet", "conv_out"),
        (
            "sdxl",
            "lora_te2_text_model_encoder_layers_31_mlp_fc2",
            "text_encoder_2",
            "text_model.encoder.layers.31.mlp.fc2",
        ),
        ("sdxl", "lora_te2_text_projection", "text_encoder_2", "text_projection"),
        # Stable Diffusion 1's, whose first block upwards has no attention
        ("sd15", "lora_unet_output_blocks_2_1_conv", "unet", "up_blocks.0.upsamplers.0.conv"),
        ("sd15", "lora_unet_output_blocks_3_1_proj_out", "unet", "up_blocks.1.attentions.0.proj_out"),
        ("sd15", "lora_unet_input_blocks_11_0_out_layers_3", "unet", "down_blocks.3.resnets.1.conv2"),
        # ComfyUI
        (
            "sdxl",
            "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        (
            "sdxl",
            "text_encoders.clip_g.transformer.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoder_2",
            "text_model.encoder.layers.3.self_attn.q_proj",
        ),
        # PEFT, and transformers 5, whose names lack `text_model`
        (
            "sd15",
            "base_model.model.text_model.encoder.layers.0.mlp.fc1",
            "text_encoder",
            "text_model.encoder.layers.0.mlp.fc1",
        ),
        (
            "sd15",
            "text_encoder.encoder.layers.0.mlp.fc1",
            "text_encoder",
            "text_model.encoder.layers.0.mlp.fc1",
        ),
        # diffusers before 0.20
        (
            "sd15",
            "text_encoder.text_model.encoder.layers.0.self_attn.to_q",
            "text_encoder",
            "text_model.encoder.layers.0.self_attn.q_proj",
        ),
    ],
)
def test_names_in_the_wild(architecture: str, name: str, component: str, module: str) -> None:
    assert ModuleNames(shapes_of(architecture)).find(name) == Module(component, module)


def test_a_text_encoder_without_a_prefix_is_not_guessed_among_two() -> None:
    names = ModuleNames(shapes_of("sdxl"))
    assert names.find("base_model.model.text_model.encoder.layers.0.mlp.fc1") is None


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_no_two_modules_have_the_same_name_with_underscores(architecture: str) -> None:
    shapes = shapes_of(architecture)
    for component, parameters in shapes.items():
        modules = modules_of(parameters)
        flat = [re.sub(r"\.", "_", name) for name in [*modules, *ldm_names(modules).values()]]
        same = {name for name in modules if ldm_names([name]).get(name) == name}
        assert len(set(flat)) == len(flat) - len(same), component
