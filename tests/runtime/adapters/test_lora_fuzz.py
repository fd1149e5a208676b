"""Any tensors under any names, and any damaged bytes: read, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.lora.fields import FIELDS, UNSUPPORTED
from sdrt.adapters.lora.reader import open_adapter
from sdrt.errors import SdrtError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from tests.adapter_files import ATTENTION, CONV, FIRST, NORM, SHAPES, TEXT
from tests.safetensors_files import write_file

MODULES = (ATTENTION, CONV, FIRST, NORM, TEXT)
PREFIXES = (
    "lora_unet_",
    "lora_te_",
    "unet.",
    "text_encoder.",
    "base_model.model.",
    "lycoris_",
    "",
    "lora_te2_",
)
ENDS = (
    *(
        *FIELDS,
        *UNSUPPORTED,
        "",
        "x",
        "lora_A.default.weight",
        "processor.to_q_lora.up.weight",
        "weight.weight",
    ),
    *("_lora.up.weight", "a1.weight", "..", "alpha.alpha"),
)
SIZES = (0, 1, 2, 3, 4, 8, 12, 16, 72)
WIDTHS = {"F16": 2, "F32": 4, "F64": 8, "BF16": 2, "F8_E4M3": 1, "I64": 8, "BOOL": 1, "C64": 8}
FITTING = {
    "up": ((8, 2), (6, 2, 1, 1), (12, 2)),
    "down": ((2, 12), (2, 8, 3, 3), (2, 4, 3, 3)),
    "mid": ((2, 2, 3, 3),),
    "alpha": ((),),
    "diff": ((8, 12), (6, 8, 3, 3)),
}


def shape(chance: random.Random, end: str) -> tuple[int, ...]:
    """One that may fit, so that not every file is refused for its first tensor."""
    fitting = FITTING.get(FIELDS.get(end, ""))
    if fitting and chance.random() < 0.8:
        return chance.choice(fitting)
    return tuple(chance.choice(SIZES) for _ in range(chance.randrange(5)))


def key(chance: random.Random, module: str, end: str) -> str:
    prefix = chance.choice(PREFIXES)
    module = module.replace(".", "_") if prefix.endswith("_") or chance.random() < 0.1 else module
    return f"{prefix}{module}.{end}" if end else prefix + module


def header(chance: random.Random) -> tuple[dict[str, Any], bytes]:
    made: dict[str, Any] = {}
    position = 0
    ends = chance.sample(ENDS, chance.randrange(1, 5))
    if chance.random() < 0.5:
        ends += ["lora_up.weight", "lora_down.weight"]
    for module in chance.sample(MODULES, chance.randrange(1, 3)):
        for end in ends:
            dtype, size = (
                chance.choice([*WIDTHS.items(), ("F32", 4), ("F16", 2), ("F16", 2)]),
                shape(chance, end),
            )
            length = dtype[1] * int(np.prod(size))
            made[key(chance, module, end)] = {
                "dtype": dtype[0],
                "shape": list(size),
                "data_offsets": [position, position + length],
            }
            position += length
    data = bytes(position) if chance.random() < 0.3 else chance.randbytes(position)
    return made, data


def damaged(chance: random.Random, content: bytes) -> bytes:
    cut = bytearray(content)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(cut))
        cut[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(cut)


def apply(path: Path) -> None:
    adapter = open_adapter(path, family=STABLE_DIFFUSION, shapes=SHAPES)
    for component, changes in adapter.changes.items():
        for name, change in changes.items():
            assert change.shape == SHAPES[component][name]
            base = np.ones(change.shape, np.float32)
            assert (base + change.delta(base, 0.0)).tobytes() == base.tobytes()
            with np.errstate(
                all="ignore"
            ):  # products of random bits overflow; the caller looks at the result
                made = change.delta(base, 1.0)
            assert (made.shape, made.dtype) == (change.shape, np.float32)


def problem(path: Path) -> str:
    """The message of the refusal. Empty for a file that can be applied."""
    try:
        apply(path)
    except SdrtError as error:
        return str(error)
    return ""


def fuzz(count: int, folder: Path) -> int:
    chance, path, applied = random.Random(7), folder / "a.safetensors", 0
    for number in range(count):
        made, data = header(chance)
        write_file(path, made, [data])
        if number % 3 == 0:
            path.write_bytes(damaged(chance, path.read_bytes()))
        said = problem(path)
        assert "\n" not in said
        assert len(said) < 1500
        applied += not said
    return applied


def test_files_of_random_tensors(tmp_path: Path) -> None:
    assert fuzz(10_000, tmp_path) > 300


@pytest.mark.full
def test_many_files_of_random_tensors(tmp_path: Path) -> None:
    assert fuzz(100_000, tmp_path) > 3000
