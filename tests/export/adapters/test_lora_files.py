"""Files of many programs change tiny models as diffusers with PEFT does. `tools.goldens.record_lora_files` says how."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.lora.reader import open_adapter
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from sdrt_export.architectures.published import ARCHITECTURES
from sdrt_export.components import parts_of
from sdrt_export.components.outline import tensors_of
from tools.goldens.lora_file_cases import SAMPLED, base_of

GOLDENS = Path(__file__).parents[2] / "goldens" / "lora_files.npz"
# float32 sums in another order. A weight here is around 1.
TOLERANCE = 1e-5
FAMILIES = {"tiny": STABLE_DIFFUSION, "tiny-xl": STABLE_DIFFUSION_XL}
Shapes = dict[str, dict[str, tuple[int, ...]]]


def load() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(GOLDENS) as file:
        return dict(file)


RECORDED = load()
CASES = sorted({(case, model) for case, model, *_ in (key.split("|") for key in RECORDED)})


@cache
def shapes_of(model: str) -> Shapes:
    """The parameters of a model's denoiser and text encoders, as its graphs name them."""
    parts = parts_of(FAMILIES[model])
    return {
        part: tensors_of(components, ARCHITECTURES[model][part])
        for part, components in parts.items()
        if part != "vae"
    }


@pytest.mark.parametrize(("case", "model"), CASES)
def test_changes_weights_as_diffusers_does(case: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(RECORDED[f"{case}|{model}|file"].tobytes())
    if (config := RECORDED.get(f"{case}|{model}|config")) is not None:
        (tmp_path / "adapter_config.json").write_bytes(config.tobytes())
    shapes = shapes_of(model)
    adapter = open_adapter(tmp_path, family=FAMILIES[model], shapes=shapes)
    assert (adapter.left_over, list(adapter.notes)) == ([], [])
    changed = {(component, name) for component, of in adapter.changes.items() for name in of}
    expected = {
        (component, f"{module[0]}.weight"): key
        for key in RECORDED
        for name, of, component, *module in [key.split("|")]
        if (name, of) == (case, model) and module
    }
    assert changed == set(expected)
    for (component, name), key in expected.items():
        change = adapter.changes[component][name]
        assert change.shape == shapes[component][name]
        own = base_of(f"{component}.{name}", change.shape)
        made = (own + change.delta(own, 1.0)).reshape(-1)[::SAMPLED]
        np.testing.assert_allclose(made, RECORDED[key], rtol=0, atol=TOLERANCE, err_msg=f"{component}.{name}")
