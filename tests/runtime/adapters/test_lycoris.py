"""Every kind of LyCORIS's adapters changes a layer as it does there, attached. `tools.goldens.record_lora` says how."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.change import Adapter
from sdrt.adapters.lora.reader import open_adapter
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from tests.safetensors_files import save_file
from tools.goldens.lora_cases import LINEAR, LYCORIS, SHAPES, base

GOLDENS = Path(__file__).parents[2] / "goldens" / "lora.npz"
# float32 sums in another order. A weight here is around 1.
TOLERANCE = 1e-5
# Read off a norm's outputs at inputs of 1e4.
NORM_TOLERANCE = 1e-5
PARAMETERS = {f"{name}.weight": shape for name, shape in SHAPES.items()} | {
    f"{name}.bias": shape[:1] for name, shape in SHAPES.items() if name != LINEAR
}


@cache
def recorded() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(GOLDENS) as file:
        return dict(file)


def opened(name: str, folder: Path) -> Adapter:
    """The recorded state of LyCORIS's modules as kohya's trainer writes it, read by sdrt."""
    tensors = {}
    for key, value in recorded().items():
        case, place, what, *field = key.split("|")
        if (case, what) == (name, "file"):
            tensors[f"lora_unet_{place.replace('.', '_')}.{field[0]}"] = value
    path = folder / "adapter.safetensors"
    save_file(tensors, path)
    return open_adapter(path, family=STABLE_DIFFUSION, shapes={"unet": PARAMETERS})


@pytest.mark.parametrize("name", LYCORIS)
def test_changes_layers_as_lycoris_does(name: str, tmp_path: Path) -> None:
    adapter = opened(name, tmp_path)
    assert adapter.left_over == []
    for seed, place in enumerate(LYCORIS[name].layers):
        for weight in LYCORIS[name].weights:
            for number, part in enumerate(("weight", "bias")):
                expected = recorded().get(f"{name}|{place}|{weight}|{part}")
                if expected is None:
                    continue
                own = base(PARAMETERS[f"{place}.{part}"], seed + number)
                change = adapter.changes["unet"].get(f"{place}.{part}")
                made = own if change is None else own + change.delta(own, weight)
                np.testing.assert_allclose(made, expected, rtol=0, atol=TOLERANCE, err_msg=f"{place}.{part}")


@pytest.mark.parametrize("name", LYCORIS)
def test_weight_0_is_the_base_bit_for_bit(name: str, tmp_path: Path) -> None:
    for parameter, change in opened(name, tmp_path).changes["unet"].items():
        own = base(PARAMETERS[parameter], 3)
        own.reshape(-1)[:2] = (-0.0, 0.0)
        delta = change.delta(own, 0.0)
        assert delta.dtype == np.float32
        assert (own + delta).tobytes() == own.tobytes()


def test_doras_weights_lie_on_the_line_from_the_base_to_what_was_trained(tmp_path: Path) -> None:
    for parameter, change in opened("locon dora", tmp_path).changes["unet"].items():
        own = base(PARAMETERS[parameter], 3)
        whole, half = change.delta(own, 1.0), change.delta(own, 0.5)
        assert np.abs(whole).max() > 0.1
        np.testing.assert_allclose(half, whole / 2, rtol=0, atol=1e-6)
