"""Opens a model and makes its first step, as `sdrt generate` does. `direct.py` runs this as a process.

    python -m benchmarks.first_step MODEL

The image is tiny, so that the first step itself takes little time.
"""

from __future__ import annotations

import json
import sys

from sdrt import StableDiffusionPipeline
from sdrt.request.request import Request

SIDE = 64


def main() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], provider="cpu", tune=False).load()
    request = Request(prompt="a red circle", num_inference_steps=2, seed=0, width=SIDE, height=SIDE)
    next(iter(pipeline.stream(request)))
    print(json.dumps({"graphs": [graph.name for graph in pipeline.graphs]}), flush=True)


if __name__ == "__main__":
    main()
