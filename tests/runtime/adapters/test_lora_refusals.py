"""Files that cannot be applied are refused in one line that names the tensor, what was expected and what helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt.adapters.lora.reader import open_adapter
from sdrt.errors import SdrtError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from tests.adapter_files import ATTENTION, CONV, SHAPES, TEXT, kohya, numbers, opened
from tests.safetensors_files import save_file, write_file

Array = np.ndarray[Any, Any]
KEY = kohya()
UP, DOWN = numbers(8, 2), numbers(2, 12)
SIGNALLING = np.full((8, 2), 0x7FF0000000000001, np.uint64).view(np.float64)
"""NaN that NumPy calls invalid when it is cast."""
PAIR = {f"{KEY}.lora_up.weight": UP, f"{KEY}.lora_down.weight": DOWN}
SD1 = {"unet": {f"{ATTENTION}.weight": (320, 768)}}
XL = {"unet": {f"{ATTENTION}.weight": (640, 2048)}}


def with_field(name: str, value: Any) -> dict[str, Array]:
    return {**PAIR, f"{KEY}.{name}": np.asarray(value)}


def infinite(value: float) -> Array:
    up = UP.copy()
    up[3, 1] = value
    return up


def refusal(folder: Path, tensors: dict[str, Array], **how: Any) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        opened(folder, tensors, **how)
    message = str(caught.value)
    assert message.startswith(str(folder / "adapter.safetensors"))
    assert "\n" not in message
    assert len(message) < 1000
    assert caught.value.path == folder / "adapter.safetensors"
    assert caught.value.fits
    return message


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({f"{KEY}.lora_up.weight": UP}, "lora_up.weight' has no down beside it"),
        ({f"{KEY}.lora_down.weight": DOWN}, "lora_down.weight' has no up beside it"),
        (with_field("lora_up.weight", infinite(np.nan)), "lora_up.weight' contains NaN or infinity"),
        (with_field("lora_up.weight", infinite(np.inf)), "contains NaN or infinity"),
        (with_field("lora_up.weight", infinite(np.nan).astype(np.float16)), "contains NaN or infinity"),
        (
            with_field("lora_up.weight", UP.astype(np.float64) * 1e300),
            "contains NaN or infinity",
        ),
        (with_field("lora_up.weight", SIGNALLING), "contains NaN or infinity"),
        (
            {f"{KEY}.lora_up.weight": numbers(8, 0), f"{KEY}.lora_down.weight": numbers(0, 12)},
            "has rank 0: expected 1 to 1036 in this layer",
        ),
        (
            {f"{KEY}.lora_up.weight": numbers(8, 2000), f"{KEY}.lora_down.weight": numbers(2000, 12)},
            "has rank 2000: expected 1 to 1036",
        ),
        (
            with_field("lora_up.weight", numbers(9, 2)),
            "is of shape [9, 2], and the model's weight is [8, 12]: expected [8, 2]",
        ),
        (with_field("lora_up.weight", numbers(8)), "is of shape [8], and"),
        (with_field("lora_down.weight", numbers(2, 768)), "choose a LoRA for this model"),
        (with_field("lora_down.weight", 1.0), "lora_down.weight' is of shape []: expected a matrix"),
        (with_field("lora_up.weight", UP.astype(np.int64)), "has the number type 'I64': expected float16"),
        (with_field("alpha", np.float32(np.nan)), "alpha' is nan: expected a finite number"),
        (with_field("alpha", np.float32(-np.inf)), "alpha' is -inf: expected a finite number"),
        (with_field("alpha", numbers(2)), "alpha' is of shape [2]: expected one number"),
        (with_field("alpha", numbers(0)), "alpha' is of shape [0]: expected one number"),
        (with_field("lora_mid.weight", numbers(2, 2, 3, 3)), "lora_mid.weight' is of shape [2, 2, 3, 3]"),
        (with_field("dora_scale", numbers(5, 1)), "a number for each row or column"),
        (with_field("dora_scale", numbers(8, 12)), "a number for each row or column"),
        (with_field("dora_scale", infinite(np.nan)[:, 1:]), "dora_scale' contains NaN"),
        (with_field("lora_magnitude_vector.weight", numbers(12)), "expected 8 numbers"),
        ({f"{KEY}.diff": numbers(8, 11)}, "is of shape [8, 11]"),
        ({f"{KEY}.hada_w1_a": UP, f"{KEY}.hada_w1_b": DOWN}, "has no hada_w2_a beside it"),
        (
            {
                **{f"{KEY}.hada_w1_a": UP, f"{KEY}.hada_w1_b": DOWN},
                **{f"{KEY}.hada_w2_a": numbers(8, 3), f"{KEY}.hada_w2_b": numbers(3, 12)},
            },
            "has rank 3: expected 2, as the other half has",
        ),
        ({f"{KEY}.lokr_w1": numbers(3, 3), f"{KEY}.lokr_w2": numbers(4, 8)}, "expected a factor of it"),
        ({f"{KEY}.lokr_w1": numbers(0, 3), f"{KEY}.lokr_w2": numbers(4, 8)}, "expected a factor of it"),
        ({f"{KEY}.lokr_w1": numbers(3), f"{KEY}.lokr_w2": numbers(4, 8)}, "expected a matrix"),
        ({f"{KEY}.lokr_w1": numbers(2, 2), f"{KEY}.lokr_w2": numbers(4, 8)}, "expected [4, 6]"),
        ({f"{KEY}.lokr_w1": numbers(2, 2)}, "has no lokr_w2_a beside it"),
        ({f"{KEY}.weight": numbers(7), f"{KEY}.on_input": np.array(0)}, "expected 8 numbers"),
        ({f"{KEY}.weight": numbers(8), f"{KEY}.on_input": np.array(1)}, "expected 12 numbers"),
        ({f"{kohya(CONV)}.diff_b": numbers(7)}, "diff_b' is of shape [7]"),
        ({**PAIR, f"unet.{ATTENTION}.lora_B.weight": UP}, "has the same tensor twice"),
        ({f"{KEY}.oft_blocks": numbers(2, 4, 4)}, "is an adapter of the kind OFT, which is not supported"),
        ({f"{KEY}.a1.weight": UP, f"{KEY}.a2.weight": UP}, "of the kind GLoRA, which is not supported"),
        ({f"base_model.model.{ATTENTION}.ia3_l": UP}, "PEFT's form of IA³, which is not supported"),
        ({}, "has no key that matches Stable Diffusion 1 or 2 (it is empty)"),
    ],
)
def test_a_damaged_layer(tensors: dict[str, Array], says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, tensors)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ("decoder.conv_in.weight", "is a VAE: expected a LoRA for Stable Diffusion 1"),
        ("model.diffusion_model.input_blocks.0.0.weight", "is a single-file checkpoint: expected a LoRA"),
        ("controlnet_cond_embedding.conv_in.weight", "is a ControlNet: expected a LoRA"),
        ("emb_params", "is a textual inversion: expected a LoRA"),
        ("down_blocks.0.resnets.0.conv1.weight", "is a U-Net: expected a LoRA"),
        ("image_proj.norm.weight", "is an IP-Adapter: expected a LoRA"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "is a LoRA for Flux: expected one for"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "is a LoRA for Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "is a LoRA for Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "is a LoRA for Stable Diffusion 3"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "is a LoRA for Wan"),
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", "is a LoRA for Wan"),
        ("diffusion_model.layers.0.attention.to_q.lora_A.weight", "is a LoRA for Z-Image or Lumina 2"),
        ("transformer_blocks.0.img_mlp.net.2.lora_A.weight", "is a LoRA for Qwen-Image"),
        ("diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight", "is a LoRA for HunyuanVideo"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "is a LoRA for SDXL: expected one"),
    ],
)
def test_other_files_are_called_what_they_are(tensors: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, {tensors: DOWN}, shapes=SD1)


@pytest.mark.parametrize(
    ("width", "shapes", "says"),
    [
        (2048, SD1, "is a LoRA for SDXL: expected one for Stable Diffusion 1, as the model is"),
        (1024, SD1, "is a LoRA for Stable Diffusion 2: expected one for Stable Diffusion 1, as the model is"),
        (768, XL, "is a LoRA for Stable Diffusion 1: expected one for SDXL, as the model is"),
    ],
)
def test_a_lora_of_another_width(width: int, shapes: Any, says: str, tmp_path: Path) -> None:
    family = STABLE_DIFFUSION_XL if shapes is XL else STABLE_DIFFUSION
    tensors = {f"{KEY}.lora_up.weight": numbers(320, 2), f"{KEY}.lora_down.weight": numbers(2, width)}
    assert says in refusal(tmp_path, tensors, shapes=shapes, family=family)


def test_keys_that_match_nothing_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    tensors = {f"lora_unet_x_{number}.lora_up.weight": UP for number in range(5000)}
    assert "and 4995 more" in refusal(tmp_path, tensors)
    adapter = opened(tmp_path, {**tensors, **PAIR})
    assert (len(adapter.left_over), [*adapter.changes["unet"]]) == (5000, [f"{ATTENTION}.weight"])


def test_keys_for_parameters_that_the_model_lacks_are_left_over(tmp_path: Path) -> None:
    """A Linear without a bias, a whole weight, a component that the model does not have, and what trainers bundle."""
    others = {
        f"{KEY}.diff_b": numbers(8),
        f"{kohya(CONV)}.weight": numbers(6),
        f"{kohya(CONV)}.alpha": np.float32(1).reshape(()),
        "bundle_emb.word.string_to_param.*": numbers(2, 12),
        "text_encoder.text_model.encoder.layers.9.mlp.fc1.lora_A.weight": DOWN,
    }
    assert list(opened(tmp_path, {**PAIR, **others}).left_over) == sorted(others)


@pytest.mark.parametrize("name", ["lora.ckpt", "lora.pt", "lora.bin", "lora.pth", "LORA.CKPT"])
def test_pickles_are_refused_unread(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(
        UnsupportedModelError, match=r"which runs code when it is read: take the \.safetensors"
    ):
        open_adapter(tmp_path / name, family=STABLE_DIFFUSION, shapes=SHAPES)


def test_a_pickle_with_another_name(tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UnsupportedModelError, match="a zip archive, as torch saves pickles"):
        open_adapter(tmp_path / "lora.safetensors", family=STABLE_DIFFUSION, shapes=SHAPES)


def test_a_safetensors_file_called_a_pickle(tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "lora.ckpt")
    with pytest.raises(UnsupportedModelError, match=r"rename it to .*lora\.safetensors"):
        open_adapter(tmp_path / "lora.ckpt", family=STABLE_DIFFUSION, shapes=SHAPES)


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("nothing.safetensors", ModelNotFoundError, "does not exist"),
        ("x" * 300, ModelNotFoundError, "cannot be read"),
        ("", ModelNotFoundError, "is a folder: expected the .safetensors file of a LoRA, such as"),
        ("a\0b", RequestError, "expected the .safetensors file of a LoRA"),
    ],
)
def test_paths_without_a_file(path: str, kind: type[SdrtError], says: str, tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "some.safetensors")
    with pytest.raises(kind) as caught:
        open_adapter(tmp_path / path if "\0" not in path else path, family=STABLE_DIFFUSION, shapes=SHAPES)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"])
def test_a_folder_of_diffusers_or_peft(name: str, tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / name)
    adapter = open_adapter(tmp_path, family=STABLE_DIFFUSION, shapes=SHAPES, name="mine")
    assert (adapter.name, adapter.path) == ("mine", tmp_path / name)


def test_a_file_that_changes_after_it_was_opened(tmp_path: Path) -> None:
    adapter = opened(tmp_path, PAIR)
    (change,) = adapter.changes["unet"].values()
    save_file({**PAIR, "more": UP}, adapter.path)
    with pytest.raises(UnsupportedModelError, match="changed while it was in use"):
        change.delta(numbers(8, 12), 1.0)


PEFT = {
    f"base_model.model.{TEXT}.lora_B.weight": numbers(12, 4),
    f"base_model.model.{TEXT}.lora_A.weight": numbers(4, 12),
}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[]", "the config of PEFT is not a JSON object"),
        ("{", "the config of PEFT is not a JSON object"),
        ("[" * 100000, "the config of PEFT is not a JSON object"),
        (json.dumps({"pad": "x" * (1 << 20)}), "the config of PEFT is not a JSON object"),
        ('{"lora_alpha": "8"}', "lora_alpha is '8': expected a number"),
        ('{"lora_alpha": true}', "lora_alpha is True: expected a number"),
        ('{"lora_alpha": NaN}', "lora_alpha is nan: expected a number"),
        ('{"lora_alpha": 1e999}', "lora_alpha is inf: expected a number"),
        ('{"lora_alpha": 1' + "0" * 400 + "}", "lora_alpha is 1000"),
        ('{"alpha_pattern": [1]}', "alpha_pattern is [1]: expected an object"),
        ('{"alpha_pattern": {"(a+)+$": 1}}', "the expression '(a+)+$': expected names of modules"),
        ('{"alpha_pattern": {"q_proj": null}}', "alpha_pattern of 'q_proj' is None: expected a number"),
    ],
)
def test_a_damaged_config_of_peft(config: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(UnsupportedModelError) as caught:
        opened(tmp_path, PEFT)
    assert says in str(caught.value)
    assert caught.value.path == tmp_path / "adapter_config.json"


@pytest.mark.parametrize("rank", ["0", "-3", "1.5", "NaN", '"8"', "1" + "0" * 400])
def test_a_damaged_rank_in_the_config_of_a_lokr(rank: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"peft_type": "LOKR", "alpha": 4, "r": {rank}}}')
    module = f"base_model.model.{TEXT}"
    with pytest.raises(UnsupportedModelError, match=r"the config of PEFT, .*expected a (whole )?number"):
        opened(tmp_path, {f"{module}.lokr_w1": numbers(3, 3), f"{module}.lokr_w2": numbers(4, 4)})


def test_a_file_of_peft_without_its_config_says_that_its_strength_is_unknown(tmp_path: Path) -> None:
    (note,) = opened(tmp_path, PEFT).notes
    assert note.startswith(
        f"{tmp_path / 'adapter.safetensors'} has no alpha, which PEFT writes into adapter_config.json"
    )


def test_a_damaged_config_in_the_metadata(tmp_path: Path) -> None:
    header = {"__metadata__": {"lora_adapter_metadata": "7"}}
    write_file(tmp_path / "a.safetensors", header)
    with pytest.raises(UnsupportedModelError, match="the config of PEFT is not a JSON object"):
        open_adapter(tmp_path / "a.safetensors", family=STABLE_DIFFUSION, shapes=SHAPES)


def test_a_file_of_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    """The file is sparse: reading it would take six gigabytes of memory."""
    rank = 1 << 27
    path = tmp_path / "large.safetensors"
    end = 2 * rank * 8
    header = {
        f"{KEY}.lora_up.weight": {"dtype": "F16", "shape": [8, rank], "data_offsets": [0, end]},
        f"{KEY}.lora_down.weight": {
            "dtype": "F16",
            "shape": [rank, 12],
            "data_offsets": [end, end + 2 * rank * 12],
        },
    }
    write_file(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + end + 2 * rank * 12)
    with pytest.raises(UnsupportedModelError, match="has rank 134217728: expected 1 to 1036"):
        open_adapter(path, family=STABLE_DIFFUSION, shapes=SHAPES)
