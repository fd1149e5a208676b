"""Loads a U-Net, with a LoRA or without. `lora.py` runs this as a process.

    python -m benchmarks.lora_change MODEL [LORA [LORA]]

Without a LoRA, the U-Net is loaded twice, and the second time counts. With one, it is loaded plain, and then with the
LoRA. With two, it is loaded with the first, and then with the second. The model's files are in the page cache then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from sdrt import StableDiffusionPipeline
from sdrt.request.request import Request

SIDE = 64


def main(arguments: Sequence[str]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(arguments[0], provider="cpu", tune=False)
    loras = arguments[1:]
    first, second = [[], []] if not loras else [loras[:-1], loras[-1:]]
    _load(pipeline, first)
    if not loras:
        pipeline.close()
    figures = _timed(pipeline, second) | {
        "changed_bytes": _changed_bytes(pipeline, second),
        "loaded": len(pipeline._cache.get().graphs),
    }
    print(json.dumps(figures), flush=True)


def _timed(pipeline: StableDiffusionPipeline, loras: Sequence[str]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    _load(pipeline, loras)
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def _load(pipeline: StableDiffusionPipeline, loras: Sequence[str]) -> None:
    """Open the LoRAs' files, and the U-Net's session. Other components stay closed."""
    planned = pipeline.plan(_request(loras))
    pipeline._cache.for_request(planned.request).denoiser()


def _request(loras: Sequence[str]) -> Request:
    return Request(prompt="", lora=list(loras), num_inference_steps=1, seed=0, width=SIDE, height=SIDE)


def _changed_bytes(pipeline: StableDiffusionPipeline, loras: Sequence[str]) -> int:
    """How many bytes the parameters of the U-Net that change have, in float32."""
    planned = pipeline.plan(_request(loras))
    changes: dict[str, Any] = planned.request.adaptation.changes("unet")
    shapes = pipeline.model.parameters("unet")
    return sum(4 * _size(shapes[name]) for name in changes)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size


if __name__ == "__main__":
    main(sys.argv[1:])
