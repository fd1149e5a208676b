"""An export of a single file is the export of the same model's diffusers folder, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

from sdrt.cli import main
from sdrt.errors import IntegrityError, ModelNotFoundError, RequestError
from sdrt.model_folder.hub_file import HubFile
from sdrt_export import export_model
from sdrt_export.checkpoints import opening
from sdrt_export.checkpoints.clip_vocabulary import clip_tokenizer
from sdrt_export.checkpoints.opening import Beside, open_checkpoint
from sdrt_export.checkpoints.single_file import SingleFile
from tests.export.checkpoints.ldm_files import SD1_UNET, VAE, Made, made
from tests.safetensors_files import save_file

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def content() -> Made:
    return made("sd1", whole=True)


@pytest.fixture(scope="module")
def file(content: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return content.saved(tmp_path_factory.mktemp("file") / "model.safetensors")


@pytest.fixture(scope="module")
def folder(content: Made, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as diffusers saves it."""
    root = tmp_path_factory.mktemp("folder")
    unet, vae = UNet2DConditionModel(**SD1_UNET, sample_size=64), AutoencoderKL(**VAE)
    unet.load_state_dict(content.parts["unet"])
    vae.load_state_dict(content.parts["vae"])
    unet.save_pretrained(root / "unet")
    vae.save_pretrained(root / "vae")
    content.modules["text_encoder"].save_pretrained(root / "text_encoder")  # type: ignore[operator]
    (root / "tokenizer").symlink_to(clip_tokenizer("<|endoftext|>"))
    scheduler = open_checkpoint(file).scheduler_config()
    PNDMScheduler.from_config(scheduler).save_config(root / "scheduler")
    parts = {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (root / "model_index.json").write_text(json.dumps(index))
    return root


def test_the_export_is_that_of_the_folder(file: Path, folder: Path, tmp_path: Path) -> None:
    first = export_model(file, tmp_path / "of-file")
    second = export_model(folder, tmp_path / "of-folder")
    graphs = [name for name in first.files if ".onnx" in name or name.startswith("tokenizer/")]
    assert len(graphs) > 8
    assert {name: first.files[name].sha256 for name in graphs} == {
        name: second.files[name].sha256 for name in graphs
    }
    assert first.family == second.family
    assert first.source == {"id": "model.safetensors", "revision": None}
    for name in ("text_encoder", "unet", "vae_decoder"):
        one, two = (
            json.loads((tmp_path / root / name / "config.json").read_text())
            for root in ("of-file", "of-folder")
        )
        for key in (
            "hidden_act",
            "num_attention_heads",
            "block_out_channels",
            "scaling_factor",
            "eos_token_id",
        ):
            assert one.get(key) == two.get(key), (name, key)


def test_the_command_says_what_it_needs(content: Made, tmp_path: Path) -> None:
    path = made("sd2").saved(tmp_path / "model.safetensors")
    done = CliRunner().invoke(main, ["export", str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "--prediction-type" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_vae_for_a_folder(folder: Path, tmp_path: Path) -> None:
    other = made("sd1", {"in_channels": 9})
    path = tmp_path / "vae.safetensors"
    save_file({name: tensor.numpy() for name, tensor in other.parts["vae"].items()}, path)
    checkpoint = open_checkpoint(folder, beside=Beside(vae=path))
    for name, tensor in other.parts["vae"].items():
        np.testing.assert_array_equal(checkpoint.tensors("vae")[name], tensor.numpy())
    assert checkpoint.config("vae")["scaling_factor"] == 0.18215
    assert set(checkpoint.tensors("unet")) == set(open_checkpoint(folder).tensors("unet"))


@pytest.mark.parametrize(
    "beside", [{"text_encoders": ["x"]}, {"prediction_type": "epsilon"}, {"config": "folder"}]
)
def test_a_folder_says_the_rest_itself(beside: dict[str, Any], folder: Path) -> None:
    with pytest.raises(RequestError, match="for single files"):
        open_checkpoint(folder, beside=Beside(**beside))


def test_random_weights_take_nothing_beside(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="vae is given"):
        export_model(None, tmp_path / "out", architecture="tiny", random_weights=0, vae="vae.safetensors")


@pytest.mark.parametrize(
    "source",
    ["owner/name/model.safetensors", "https://huggingface.co/owner/name/blob/main/model.safetensors"],
)
def test_a_file_on_the_hub(source: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[HubFile, Any]] = []

    def download(found: HubFile, **options: Any) -> tuple[Path, str]:
        asked.append((found, options.get("revision")))
        return file, COMMIT

    monkeypatch.setattr(opening, "download_file", download)
    beside = Beside(vae="owner/other/vae.safetensors")
    checkpoint = open_checkpoint(source, beside=beside)
    assert isinstance(checkpoint, SingleFile)
    assert (checkpoint.name, checkpoint.revision) == ("owner/name/model.safetensors", COMMIT)
    assert [(one.name, one.file, revision) for one, revision in asked] == [
        ("owner/name", "model.safetensors", None),
        ("owner/other", "vae.safetensors", None),
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        open_checkpoint(tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        *("nope", "nope.safetensors", "parts/nope.safetensors", "nope.pt", "./nope", "a/b/c"),
        *("models/parts/nope.safetensors", "./models/parts/nope.safetensors", "parts/nope.json"),
    ],
)
@pytest.mark.parametrize(
    ("argument", "fits"),
    [
        ("vae", "a .safetensors file, or a folder or hub id"),
        ("text_encoders", "a .safetensors file of a text encoder"),
        ("config", "a folder in diffusers' layout, or a hub id"),
    ],
)
def test_a_missing_part_is_named(argument: str, fits: str, name: str, file: Path) -> None:
    beside = Beside(**{argument: [name] if argument == "text_encoders" else name})
    with pytest.raises(ModelNotFoundError) as caught:
        open_checkpoint(file, beside=beside)
    assert str(caught.value).startswith(f"{argument} is {name!r}, which does not exist: expected {fits}")
    assert caught.value.argument == argument


def test_a_missing_vae_of_a_folder_is_named(folder: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"vae is 'nope', which does not exist: expected a \.safeten"
    ):
        open_checkpoint(folder, beside=Beside(vae="nope"))


def test_a_folder_that_is_no_part_is_named(file: Path, folder: Path, tmp_path: Path) -> None:
    for source in (file, folder):
        with pytest.raises(
            ModelNotFoundError, match=r"vae is '.*', which has no config.json: expected a folder"
        ):
            open_checkpoint(source, beside=Beside(vae=tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"text_encoders is '.*', a folder: expected a .safetensors"):
        open_checkpoint(file, beside=Beside(text_encoders=[tmp_path]))


def test_a_hub_id_is_no_text_encoder(file: Path) -> None:
    """Its weights would be downloaded for nothing."""
    with pytest.raises(ModelNotFoundError, match="text_encoders is 'openai/clip', which does not exist"):
        open_checkpoint(file, beside=Beside(text_encoders=["openai/clip"]))


def test_a_folder_without_configs_is_no_config(tmp_path: Path) -> None:
    """Nothing would be read from it, and nobody would be told."""
    path = made("sd1").saved(tmp_path / "m.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        RequestError, match=r"empty', which has none of unet/config\.json, .*: expected a folder"
    ):
        open_checkpoint(path, beside=Beside(config=tmp_path / "empty"))


def test_a_model_folder_is_said_to_be_exported_already(tmp_path: Path) -> None:
    export_model(None, tmp_path / "model", architecture="tiny", random_weights=0)
    done = CliRunner().invoke(main, ["export", str(tmp_path / "model"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "model is a model folder, which has been exported already: run it with" in done.stderr
    assert not (tmp_path / "out").exists()


TWO_LEVELS = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
PARTS = [("vae", "--vae"), ("text_encoders", "--text-encoder"), ("config", "--config")]


@pytest.mark.parametrize(("argument", "option"), PARTS)
def test_errors_of_the_hub_name_the_option(argument: str, option: str, file: Path, tmp_path: Path) -> None:
    source = "owner/nope/x.safetensors" if argument == "text_encoders" else "owner/nope"
    beside = Beside(**{argument: [source] if argument == "text_encoders" else source})
    with pytest.raises(
        ModelNotFoundError, match=f"^{argument}: hub model 'owner/nope' is not in the"
    ) as caught:
        open_checkpoint(file, beside=beside)
    assert caught.value.argument == argument
    for command in (["generate", "x", "-m"], ["export"]):
        done = CliRunner().invoke(
            main, [*command, str(file), option, source, "-o", str(tmp_path / "out.png")]
        )
        assert done.exit_code == 3
        assert f"error: {option}: hub model 'owner/nope' is not in the cache" in done.stderr


@pytest.mark.parametrize(("argument", "option"), PARTS[:2])
def test_a_file_of_another_kind_names_the_option(
    argument: str, option: str, file: Path, folder: Path, tmp_path: Path
) -> None:
    lora = tmp_path / "style.safetensors"
    save_file({"lora_unet_down_blocks_0.lora_up.weight": np.zeros((4, 4), np.float32)}, lora)
    for source in [file, *([folder] if argument == "vae" else [])]:
        done = CliRunner().invoke(
            main, ["export", str(source), option, str(lora), "-o", str(tmp_path / "out")]
        )
        assert done.exit_code == 3
        assert f"error: {option}: {lora} is a LoRA: expected a" in " ".join(done.stderr.split())


def test_a_config_for_no_part_of_the_file_is_refused(file: Path, tmp_path: Path) -> None:
    """A Stable Diffusion 1 checkpoint has one text encoder, so the config of a second one would have no effect."""
    (tmp_path / "text_encoder_2").mkdir()
    (tmp_path / "text_encoder_2" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        RequestError,
        match=r"config .* has no config that the file needs: expected at least one of unet/config\.json",
    ):
        open_checkpoint(file, beside=Beside(config=tmp_path))


# --- configs that do not fit ------------------------------------------------------------------------------


def _configs(folder: Path, file: Path, part: str, **changes: Any) -> Path:
    """A folder with the config of one part of the file, changed."""
    (folder / part).mkdir(parents=True)
    config = open_checkpoint(file).config(part) | changes
    (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        (
            "unet",
            {"block_out_channels": [64, 64]},
            "is of shape [128, 32]: expected [256, 64], as config.json",
        ),
        ("unet", {"layers_per_block": 3}, "not part of its architecture: give the configs of"),
        ("unet", {"act_fn": "mish"}, "unet/config.json: act_fn is 'mish'"),
        ("unet", {"in_channels": 9}, "conv_in.weight is of shape"),
        (
            "vae",
            {"block_out_channels": [32, 64]} | TWO_LEVELS,
            "which are not part of its architecture: give the configs of",
        ),
        ("vae", {"latent_channels": 16}, "the VAE has 16 latent channels"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "vae/config.json: _class_name is 'AutoencoderTiny'"),
        ("unet", {"sample_size": "64"}, "unet/config.json: sample_size is '64', expected a whole number"),
        ("unet", {"sample_size": [64]}, "unet/config.json: sample_size is [64], expected a whole number"),
        ("unet", {"out_channels": None}, "unet/config.json: out_channels is None"),
        ("text_encoder", {"num_hidden_layers": 1}, "not part of its architecture: give the configs of"),
        ("text_encoder", {"hidden_size": 32}, "is of shape"),
        ("text_encoder", {"num_hidden_layers": "2"}, "num_hidden_layers is '2': expected a whole number"),
        ("text_encoder", {"num_hidden_layers": 3_000_000}, "num_hidden_layers is 3000000: expected a whole"),
        ("text_encoder", {"vocab_size": None, "hidden_size": 32}, "is of shape"),
    ],
    ids=str,
)
def test_configs_of_another_model_are_named(
    part: str, changes: dict[str, Any], words: str, file: Path, tmp_path: Path
) -> None:
    folder = _configs(tmp_path / "other", file, part, **changes)
    for command in (["generate", "x", "-q", "-s", "1", "-m"], ["export"]):
        output = ["-o", str(tmp_path / "out.png")]
        done = CliRunner().invoke(main, [*command, str(file), "--config", str(folder), *output])
        assert done.exit_code == 3
        said = done.stderr.strip().splitlines()[-1]
        assert said.startswith(f"error: --config {folder} does not fit: ")
        assert words in said
        assert "download" not in said


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_damaged_config_is_not_exported_again(name: str, file: Path, tmp_path: Path) -> None:
    folder = _configs(tmp_path / "other", file, "unet")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{", encoding="utf-8")
    with pytest.raises(
        IntegrityError, match=r"config .* does not fit: .* is not JSON .*: give the configs of"
    ):
        open_checkpoint(file, beside=Beside(config=folder))


def test_a_config_may_leave_out_the_defaults_of_diffusers(content: Made, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sparse"
    for part, config in {"unet": SD1_UNET, "vae": VAE}.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    checkpoint = open_checkpoint(file, beside=Beside(config=folder))
    assert checkpoint.config("unet")["in_channels"] == 4
    for part in ("unet", "vae"):
        assert set(checkpoint.tensors(part)) == set(content.parts[part])
