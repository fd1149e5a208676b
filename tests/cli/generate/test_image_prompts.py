"""`sdrt generate --ip-adapter`: images as prompts, in metadata, plots and errors, with a tiny adapter for `shapes`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt.cli import main
from tests.cli.commands import told
from tests.safetensors_files import save_file

pytest.importorskip("onnx")

# The U-Net of `shapes`: the channels of its cross-attentions, in the order of an adapter's file, and its texts' width.
CHANNELS, WIDTH, EMBEDS = (128, 160, 160, 160, 128, 128, 160), 128, 20
CLIP = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}


def drawn(*shape: int, seed: int = 0, scale: float = 0.05) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def vision_tensors() -> dict[str, np.ndarray]:
    """The tensors of a vision encoder of transformers with images of 30 pixels in patches of 6."""
    root, width, inner = "vision_model", CLIP["hidden_size"], CLIP["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        f"{root}.embeddings.class_embedding": (width,),
        f"{root}.embeddings.patch_embedding.weight": (width, 3, 6, 6),
        f"{root}.embeddings.position_embedding.weight": (26, width),
        "visual_projection.weight": (EMBEDS, width),
    }
    norms = [f"{root}.pre_layrnorm", f"{root}.post_layernorm"]
    for index in range(CLIP["num_hidden_layers"]):
        layer = f"{root}.encoder.layers.{index}"
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        linear = dict.fromkeys(
            (f"self_attn.{one}" for one in ("q_proj", "k_proj", "v_proj", "out_proj")), (width, width)
        )
        for name, size in {**linear, "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}.items():
            shapes |= {f"{layer}.{name}.weight": size, f"{layer}.{name}.bias": size[:1]}
    made = {name: drawn(*shape, seed=seed, scale=0.5) for seed, (name, shape) in enumerate(shapes.items())}
    for name in norms:
        made |= {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapter a.safetensors, its encoder, and a few images."""
    made = tmp_path_factory.mktemp("prompts")
    tensors = {
        "image_proj.proj.weight": drawn(4 * WIDTH, EMBEDS, scale=1.0),
        "image_proj.proj.bias": np.zeros(4 * WIDTH, np.float32),
        "image_proj.norm.weight": np.ones(WIDTH, np.float32),
        "image_proj.norm.bias": np.zeros(WIDTH, np.float32),
    }
    for index, channels in enumerate(CHANNELS):
        for letter in "kv":
            name = f"ip_adapter.{2 * index + 1}.to_{letter}_ip.weight"
            tensors[name] = drawn(channels, WIDTH, seed=index)
    save_file(tensors, made / "a.safetensors")
    more = {f"other.{number}": drawn(1) for number in range(2)}
    save_file(tensors | more, made / "more.safetensors")
    name = "ip_adapter.1.to_k_ip.weight"
    save_file(tensors | {name: tensors[name].astype(np.int32)}, made / "whole.safetensors")
    (made / "image_encoder").mkdir()
    save_file(vision_tensors(), made / "image_encoder" / "model.safetensors")
    config = {**CLIP, "image_size": 30, "patch_size": 6, "projection_dim": EMBEDS}
    (made / "image_encoder" / "config.json").write_text(json.dumps(config))
    (made / "bad").mkdir()
    (made / "bad" / "config.json").write_text(json.dumps(config | {"hidden_act": "tanh"}))
    save_file(vision_tensors(), made / "bad" / "model.safetensors")
    Image.new("RGB", (64, 40), "red").save(made / "red.png")
    Image.new("RGB", (1, 20_000), "blue").save(made / "long.png")
    Image.new("L", (64, 64), 255).save(made / "white.png")
    Image.new("L", (64, 64), 0).save(made / "black.png")
    (made / "junk.png").write_bytes(b"junk")
    return made


def run(folder: Path, *arguments: str, command: str = "generate") -> Result:
    """Run a command in which words that begin with @ are files of `folder`."""
    words = [str(folder / one[1:]) if one.startswith("@") else one for one in arguments]
    return CliRunner().invoke(main, [command, *words])


ADAPTER = ("--ip-adapter", "@a.safetensors")
BASE = ("a red circle", "--seed", "0", "--steps", "2", "--force", "--quiet")


def made(folder: Path, path: Path, *arguments: str) -> np.ndarray:
    result = run(folder, *BASE, *arguments, "-o", str(path))
    assert result.exit_code == 0, result.stderr
    return np.asarray(Image.open(path)).astype(int)


def test_an_image_prompt_and_its_metadata(folder: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "a.png", tmp_path / "b.png"
    seen = made(folder, path, *ADAPTER, "--ip-image", "@red.png", "--ip-scale", "0.6")
    assert np.abs(seen - made(folder, again)).max() > 8
    settings = told(str(path)).settings
    assert (settings["IP-Adapter"], settings["IP-Adapter scale"]) == ("a", "0.6")
    arguments = ("--from", str(path), "--quiet", "--force", "-o", str(again))
    result = run(folder, *arguments)
    assert result.exit_code != 0
    assert "give that one with --ip-adapter, and the image with --ip-image" in result.stderr
    result = run(folder, *arguments, *ADAPTER, "--ip-image", "@red.png")
    assert result.exit_code == 0, result.stderr
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.full
def test_scales_of_blocks_come_back_from_metadata(folder: Path, tmp_path: Path) -> None:
    path, again = tmp_path / "a.png", tmp_path / "b.png"
    prompt, scale = (*ADAPTER, "--ip-image", "@red.png"), '{"up": {"block_0": [0, 1.5]}, "mid": 1}'
    seen = made(folder, path, *prompt, "--ip-scale", scale)
    assert np.abs(seen - made(folder, again, *prompt, "--ip-scale", "1")).max() > 4
    assert told(str(path)).settings["IP-Adapter scale"] == scale
    result = run(folder, "--from", str(path), "--quiet", "--force", "-o", str(again), *prompt)
    assert result.exit_code == 0, result.stderr
    assert again.read_bytes() == path.read_bytes()
    lines = tmp_path / "p.txt"
    lines.write_text(json.dumps({"prompt": "a red circle", "ip_scale": json.loads(scale)}))
    words = (
        "--prompts-file",
        str(lines),
        "--seed",
        "0",
        "--steps",
        "2",
        "--force",
        "-o",
        str(again),
        "--json",
    )
    result = run(folder, *words, *prompt)
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(again)).astype(int), seen)


def test_a_mask_is_needed_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    prompt = (*ADAPTER, "--ip-image", "@red.png")
    made(folder, path, *prompt, "--ip-mask", "@white.png")
    arguments = ("--from", str(path), "--quiet", "-o", str(tmp_path / "b.png"), *prompt)
    assert "give the mask with --ip-mask" in run(folder, *arguments).stderr
    result = run(folder, *arguments, "--ip-mask", "@white.png")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "b.png").read_bytes() == path.read_bytes()


@pytest.mark.full
def test_a_scale_of_0_and_a_plot_of_scales(folder: Path, tmp_path: Path) -> None:
    prompt = (*ADAPTER, "--ip-image", "@red.png", "--ip-image", "@long.png")
    without = made(folder, tmp_path / "a.png")
    np.testing.assert_array_equal(made(folder, tmp_path / "b.png", *prompt, "--ip-scale", "0"), without)
    sheet = str(tmp_path / "sheet.png")
    words = (
        "a red circle",
        "-x",
        "ip_scale=0,1",
        "--seed",
        "0",
        "--steps",
        "2",
        "--quiet",
        *prompt,
        "-o",
        sheet,
    )
    result = run(folder, *words, command="plot")
    assert result.exit_code == 0, result.stderr


def test_a_plot_compares_scales_of_blocks(folder: Path, tmp_path: Path) -> None:
    words = ("a red circle", "--seed=0", "--steps=2", "--quiet", "--json", *ADAPTER, "--ip-image", "@red.png")
    axis = ("-x", 'ip_scale={"mid": 1}, 0,{"up": 1}', "-o", str(tmp_path / "sheet.png"))
    result = run(folder, *words, *axis, command="plot")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["settings"]["ip_scale"], len(report["seeds"])) == ({"mid": 1}, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('{"up": ', """: expected numbers and JSON, such as ip_scale=0.5,{"up": {"block_0": [0, 1, 0]}}\n"""),
        ('{"up": 1, "up": 0}', ": --ip-scale has 'up' twice: expected each block once\n"),
    ],
)
def test_a_wrong_axis_of_scales_is_one_line(values: str, message: str, folder: Path) -> None:
    result = run(folder, "a", "-x", f"ip_scale={values}", *ADAPTER, "--ip-image", "@red.png", command="plot")
    assert result.exit_code == 2
    assert result.stderr == f"error: axis {f'ip_scale={values}'!r}{message}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (ADAPTER, "--ip-adapter has no effect without --ip-image"),
        (("--ip-image", "@red.png"), "this model has no IP-Adapter"),
        (("--image-encoder", "@image_encoder"), "--image-encoder has no effect without an IP-Adapter"),
        (("--ip-scale", "0.5"), "--ip-scale has no effect without --ip-image"),
        ((*ADAPTER, "--ip-image", "@red.png", "--ip-scale", "1,2"), "has 2 scales for 1 IP-Adapter"),
        (
            (*ADAPTER, "--ip-image", "@red.png", "--ip-scale", '{"up": {"block_9": 1}}'),
            "error: --ip-scale has 'up.block_9': expected blocks that see images: down.block_",
        ),
        (
            (*ADAPTER, "--ip-image", "@red.png", "--ip-scale", '{"up": '),
            """--ip-adapter-scale': '{"up": ': expected numbers such as 0.5,1, or JSON such as {"up": """,
        ),
        (
            (*ADAPTER, "--ip-image", "@red.png", "--ip-scale", '{"up": {"block_0": [0, NaN, 0]}}'),
            "error: --ip-scale has nan for 'up.block_0': expected a number from -100 to 100",
        ),
        (
            ("--ip-adapter", "@more.safetensors", "--ip-image", "@red.png"),
            "and also has the tensor 'other.0' and 1",
        ),
        (("--ip-adapter", "@whole.safetensors", "--ip-image", "@red.png"), "whole.safetensors is quantised"),
        (
            (*ADAPTER, "--image-encoder", "@bad", "--ip-image", "@red.png"),
            "bad/config.json: hidden_act is 'tanh'",
        ),
        (
            (*ADAPTER, "--image-encoder", "n" * 5000, "--ip-image", "@red.png"),
            "--image-encoder: there is no nnn",
        ),
        (
            (*ADAPTER, "--ip-image", "@red.png", "--ip-scale", '{"up": 1, "up": 0}'),
            "error: --ip-scale has 'up' twice: expected each block once",
        ),
        ((*ADAPTER, "--ip-image", "@junk.png"), "is not an image"),
        ((*ADAPTER, "--ip-image", "@red.png", "--ip-mask", "@black.png"), "white where the image is seen"),
        (
            (*ADAPTER, "--ip-image", "@red.png", "--ip-mask", "@white.png", "--ip-mask", "@white.png"),
            "has 2 masks: expected 1 mask, one for each image",
        ),
        ((*ADAPTER, *ADAPTER, "--ip-image", "@red.png"), "the model has 2 IP-Adapters"),
        ((*ADAPTER, "--image-encoder", "@none", "--ip-image", "@red.png"), "--image-encoder: "),
        (("--ip-adapter", "@none.safetensors", "--ip-image", "@red.png"), "--ip-adapter: there is no file"),
        (("--ip-adapter", "@image_encoder/model.safetensors", "--ip-image", "@red.png"), "--ip-adapter: "),
        (("--ip-adapter", "@a.bin", "--ip-image", "@red.png"), "--ip-adapter: there is no file"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_in_one_line(
    arguments: tuple[str, ...], message: str, folder: Path, tmp_path: Path
) -> None:
    result = run(folder, *BASE, *arguments, "-o", str(tmp_path / "a.png"))
    assert result.exit_code != 0
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
