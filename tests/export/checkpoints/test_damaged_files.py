"""Headers of single files with tensors taken out, renamed, or of other shapes end in one line, or in a checkpoint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sdrt.common.safetensors_file import read_header
from sdrt.errors import SdrtError
from sdrt_export.checkpoints.single_file import open_single_file
from tests.export.checkpoints.ldm_files import TEXTS, made
from tests.safetensors_files import write_file

TRIES = 60
SIZES = [0, 1, 2, 3, 7, 32, 64, 100, 1 << 20, 1 << 40]


def changed(draw: random.Random, tensors: dict[str, list[int]]) -> dict[str, list[int]]:
    """One to three changes to names and shapes."""
    found = dict(tensors)
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(list(found))
        kind = draw.randrange(6)
        if kind == 0:
            del found[name]
        elif kind == 1:
            part = draw.choice(name.split("."))
            found = {key: shape for key, shape in found.items() if part not in key.split(".")} or found
        elif kind == 2:
            found[name] = [draw.choice(SIZES) for _ in range(draw.randrange(6))]
        elif kind == 3:
            found[name.replace(draw.choice("0123456789."), draw.choice("0123456789."))] = found.pop(name)
        elif kind == 4:
            found[name] = found[name][::-1]
        else:
            found[draw.choice(["", ".", "..", "é", name + ".", "." + name, name + ".0"])] = [1]
    return found


@pytest.mark.full
@pytest.mark.parametrize("kind", TEXTS)
def test_each_is_a_checkpoint_or_one_line(kind: str, tmp_path: Path) -> None:
    header = read_header(made(kind).saved(tmp_path / "model.safetensors"))
    tensors = {name: list(entry.shape) for name, entry in header.tensors.items()}
    draw, said = random.Random(kind), list[str]()
    for _ in range(TRIES):
        # A number type of no bytes: only names and shapes count.
        entries = {
            name: {"dtype": "none", "shape": shape, "data_offsets": [0, 0]}
            for name, shape in changed(draw, tensors).items()
        }
        path = tmp_path / "changed.safetensors"
        write_file(path, entries)
        try:
            open_single_file(path, prediction_type="epsilon", notify=lambda _: None)
        except SdrtError as error:
            said.append(str(error))
    # What is missing, an export finds later.
    assert len(said) > TRIES // 10
    assert not [text for text in said if "\n" in text or len(text) > 1000]
