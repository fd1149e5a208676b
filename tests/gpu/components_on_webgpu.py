"""Runs the components of models on WebGPU and on the CPU, and prints how far apart they are, as JSON.

    python components_on_webgpu.py FOLDER [FOLDER ...]

Tests run it as a process of its own (`software_gpu.run`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.common.notices import Notices
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

SIZES = {"batch": 2, "height": 8, "width": 8, "sequence": 77}
OUTPUTS = {"text_encoder": "last_hidden_state", "unet": "out_sample", "vae_decoder": "sample"}


def feeds(component: Component, name: str) -> dict[str, Any]:
    random = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for key, spec in component.inputs.items():
        shape = [size if isinstance(size, int) else SIZES.get(size, 8) for size in spec.shape]
        if spec.dtype.kind == "i":
            made[key] = np.full(shape, 5, spec.dtype)
        else:
            made[key] = random.standard_normal(shape).astype(spec.dtype)
    return made


def main(folders: list[str]) -> None:
    told: list[str] = []
    found = {}
    for folder in folders:
        for name, output in OUTPUTS.items():
            results, places = [], []
            for provider in ("cpu", "webgpu"):
                config = SessionConfig(provider=provider, tune=False)
                component = Component(
                    name, Path(folder, name, "model.onnx"), config, Notices(told.append), repeats=True
                )
                given = feeds(component, name)
                with component.bound({key: one.shape for key, one in given.items()}, (output,)) as run:
                    for _ in range(2):  # the second run finds its buffers
                        for key, one in given.items():
                            run.set(key, one)
                        made = run()[output].copy()
                    places = sorted(run._device)
                results.append(made)
                placed = component.placement() or {}
            apart = float(np.abs(results[1] - results[0]).max())
            found[f"{Path(folder).name}/{name}"] = {
                "apart": apart,
                "largest": float(np.abs(results[0]).max()),
                "on_device": places,
                "placed": placed,
            }
    print(json.dumps({"found": found, "told": told}))


if __name__ == "__main__":
    main(sys.argv[1:])
