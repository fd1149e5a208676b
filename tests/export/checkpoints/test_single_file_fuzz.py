"""Any names and shapes in a single file: a checkpoint, or a refusal in one line, in bounded time."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sdrt.errors import SdrtError
from sdrt_export.architectures.clip_text import ClipTextConfig, clip_text
from sdrt_export.architectures.unet import unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig, vae_decoder
from sdrt_export.checkpoints.single_file import SingleFile, open_single_file
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import Graph
from tests.export.checkpoints.ldm_files import made

Shapes = dict[str, tuple[int, ...]]
SIZES = (0, 1, 2, 3, 4, 5, 8, 9, 63, 64, 320, 768, 1000, 1 << 14, 1 << 20, 1 << 40)
MOST = 1 << 40  # sparse files have room for it


def changed(numbers: random.Random, base: Mapping[str, tuple[int, ...]]) -> Shapes:
    shapes = dict(base)
    for _ in range(numbers.choice([1, 1, 2, 5])):
        name = numbers.choice(list(shapes))
        kind = numbers.randrange(6)
        if kind == 0:  # drop a tensor, or a whole module
            head = ".".join(name.split(".")[: numbers.randrange(1, 9)])
            shapes = {
                one: shape for one, shape in shapes.items() if one != name and not one.startswith(f"{head}.")
            }
        elif kind == 1 and shapes[name]:
            axis = numbers.randrange(len(shapes[name]))
            shape = list(shapes[name])
            shape[axis] = numbers.choice(SIZES)
            shapes[name] = tuple(shape)
        elif kind == 2:
            shapes[name] = tuple(numbers.choice(SIZES[:12]) for _ in range(numbers.randrange(6)))
        elif kind == 3:  # another place in its list
            parts = name.split(".")
            places = [index for index, part in enumerate(parts) if part.isdecimal()]
            if places:
                parts[numbers.choice(places)] = numbers.choice(
                    ["0", "1", "7", "63", "999", "99999999999999999999", "x"]
                )
                shapes[".".join(parts)] = shapes.pop(name)
        elif kind == 4:
            shapes[f"{name}.{numbers.choice(['scale_weight', 'lora_up.weight', 'x', ''])}"] = (1,)
        else:
            shapes[
                numbers.choice(
                    ["model_ema.num_updates", "v_pred", "edm_mean", "", "\0", "model.diffusion_model."]
                )
            ] = ()
        if not shapes:
            return dict(base)
    return shapes


def write(path: Path, shapes: Shapes) -> bool:
    """Write a sparse file of zeros. False if it would be too large."""
    header, reached = {}, 0
    for name, shape in shapes.items():
        end = reached + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [reached, end]}
        reached = end
    if reached > MOST:
        return False
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + reached)
    return True


def build(file: SingleFile) -> None:
    """The graphs that its configs describe."""
    unet(UNetConfig.of(file.config("unet")), FusedLayers(Graph("unet")))
    vae_decoder(VaeConfig.of(file.config("vae")), FusedLayers(Graph("vae")))
    for part in file.parts:
        if part.startswith("text_encoder"):
            clip_text(ClipTextConfig.of(file.config(part)), FusedLayers(Graph(part)))


def check(folder: Path, kind: str, seed: int, count: int) -> None:
    numbers, opened = random.Random(seed), 0
    base = {name: tensor.shape for name, tensor in made(kind).tensors.items()}
    path, refusals = folder / "a.safetensors", []
    for _ in range(count):
        if not write(path, changed(numbers, base)):
            continue
        begin = time.process_time()
        try:
            file = open_single_file(path, notify=lambda message: None)
            for part in file.parts:
                file.tensors(part)
            build(file)
            opened += 1
        except SdrtError as error:
            refusals.append(str(error))
        assert time.process_time() - begin < 20
    for refusal in refusals:
        assert "\n" not in refusal
        assert len(refusal) < 700 + len(str(path)), refusal
    assert opened > count / 50
    assert len(refusals) > count / 10


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_some_files(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind, 0, 80)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sdxl-refiner"])
def test_many_files(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind, 1, 1200)
