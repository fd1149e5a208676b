"""Any tensors under any names, and any damaged bytes: read, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.adaptation import Adaptation, Weighted
from sdrt.adapters.lora.fields import FIELDS, UNSUPPORTED
from sdrt.adapters.lora.reader import open_adapter
from sdrt.adapters.workspace import Workspace
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
SIZES = (0, 1, 2, 2, 3, 4, 8, 12)
WIDTHS = {"F16": 2, "F32": 4, "F64": 8, "BF16": 2, "F8_E4M3": 1, "I64": 8, "BOOL": 1, "C64": 8}
LAYERS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    (
        "lora_unet_" + ATTENTION.replace(".", "_"),
        {"lora_up.weight": (8, 2), "lora_down.weight": (2, 12), "alpha": ()},
    ),
    (f"unet.{ATTENTION}", {"lora_B.weight": (8, 3), "lora_A.weight": (3, 12), "dora_scale": (8, 1)}),
    ("lora_unet_" + CONV.replace(".", "_"), {"lokr_w1": (2, 4), "lokr_w2_a": (3, 2), "lokr_w2_b": (2, 18)}),
    (f"unet.{FIRST}", {"diff": (8, 4, 3, 3), "diff_b": (8,)}),
    (f"text_encoder.{TEXT}", {f"hada_w{half}_{end}": (12, 12) for half in (1, 2) for end in "ab"}),
    (f"text_encoder.{TEXT}", {"weight": (12,), "on_input": (1,)}),
    (f"unet.{NORM}", {"w_norm": (8,), "b_norm": (8,)}),
]
"""Modules with tensors that fit."""
Shapes = dict[str, tuple[int, ...]]


def fitting(chance: random.Random) -> Shapes:
    """Tensors that fit, of which half are spoilt in one place."""
    made = {
        f"{module}.{end}": shape
        for module, tensors in chance.sample(LAYERS, 2)
        for end, shape in tensors.items()
    }
    if chance.random() < 0.5:
        spoilt = chance.choice(list(made))
        made[spoilt] = tuple(chance.choices(SIZES, k=len(made[spoilt])))
    if chance.random() < 0.2:
        del made[chance.choice(list(made))]
    return made


def strange(chance: random.Random) -> Shapes:
    """Any ends of keys behind any names of modules, in any shapes."""
    made = {}
    for module in chance.sample(MODULES, 2):
        for end in chance.sample(ENDS, chance.randrange(1, 5)):
            made[key(chance, module, end)] = tuple(chance.choices(SIZES, k=chance.randrange(5)))
    return made


def key(chance: random.Random, module: str, end: str) -> str:
    prefix = chance.choice(PREFIXES)
    module = module.replace(".", "_") if prefix.endswith("_") or chance.random() < 0.1 else module
    return f"{prefix}{module}.{end}" if end else prefix + module


def header(chance: random.Random) -> tuple[dict[str, Any], bytes]:
    made: dict[str, Any] = {}
    position = 0
    shapes = fitting(chance) if chance.random() < 0.5 else strange(chance)
    own = chance.choice(("F16", "F32", "BF16", "F8_E4M3"))
    for name, shape in shapes.items():
        dtype = own if chance.random() < 0.95 else chance.choice(list(WIDTHS))
        end = position + WIDTHS[dtype] * int(np.prod(shape))
        made[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    # Bytes below 0x3C make finite numbers of every type.
    return made, bytes(chance.choices(range(256 if chance.random() < 0.3 else 0x3C), k=position))


def damaged(chance: random.Random, content: bytes) -> bytes:
    cut = bytearray(content)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(cut))
        cut[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(cut)


def apply(path: Path, workspace: Workspace) -> None:
    adapter = open_adapter(path, family=STABLE_DIFFUSION, shapes=SHAPES)
    adaptation = Adaptation((Weighted(adapter=adapter, weights={"unet": 0.5}),) * 2)
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
            together = adaptation.changed(component, name, base, workspace)
            assert (together.shape, together.dtype) == (change.shape, np.float32)
            assert np.isfinite(together).all()


def problem(path: Path, workspace: Workspace) -> str:
    """The message of the refusal. Empty for a file that can be applied."""
    try:
        apply(path, workspace)
    except SdrtError as error:
        return str(error)
    return ""


def fuzz(count: int, folder: Path) -> int:
    chance, path, applied = random.Random(7), folder / "a.safetensors", 0
    workspace = Workspace()
    for number in range(count):
        made, data = header(chance)
        write_file(path, made, [data])
        if number % 3 == 0:
            path.write_bytes(damaged(chance, path.read_bytes()))
        said = problem(path, workspace)
        assert "\n" not in said
        assert len(said) < 1500
        applied += not said
    return applied


def test_files_of_random_tensors(tmp_path: Path) -> None:
    assert fuzz(1000, tmp_path) > 100


@pytest.mark.full
def test_many_files_of_random_tensors(tmp_path: Path) -> None:
    assert fuzz(20_000, tmp_path) > 2000
