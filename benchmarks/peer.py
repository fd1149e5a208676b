"""This worker runs one system in one process, from its start to images, and prints its times as a JSON object.

    python -m benchmarks.peer sdrt|diffusers|… FOLDER --device cpu --size 512 --steps 3 --generations 2

The first generation warms up, and gives the times of the first image and the first step. The others give the time of a
step: the mean of the steps after the first one of a generation. The worker waits for the device after the first and the
last step, and not in between, because a system may run ahead of its device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command_line import parser_of
from benchmarks.systems import SYSTEMS, Loaded, Work, class_of

THUMBNAIL = 8


def measure(name: str, folder: Path, work: Work, generations: int, began: float) -> dict[str, Any]:
    """All times in seconds, and a thumbnail. `began` is `time.time()` at the start of the process."""
    system = SYSTEMS[name]
    start = time.perf_counter()
    pipeline_class = class_of(system)
    imported = time.perf_counter()
    loaded = system.load(pipeline_class, folder, work)
    ready = time.perf_counter()
    first, image = _generation(loaded, work)
    first_picture = time.time() - began
    return {
        "import": imported - start,
        "load": ready - imported,
        "first_step": first["first_step"],
        "first_picture": first_picture,
        "generations": [_generation(loaded, work)[0] for _ in range(generations)],
        "thumbnail": _thumbnail(image),
    }


def _generation(loaded: Loaded, work: Work) -> tuple[dict[str, float], Any]:
    """The times of one generation in seconds, and its image."""
    stamps: list[float] = []

    def on_step() -> None:
        if len(stamps) in (0, work.steps - 1):
            loaded.synchronize()
        stamps.append(time.perf_counter())

    begin = time.perf_counter()
    made = loaded.generate(on_step)
    end = time.perf_counter()
    if len(stamps) != work.steps:
        raise SystemExit(f"the system took {len(stamps)} steps: expected {work.steps}")
    loop = stamps[-1] - stamps[0]
    seconds = {
        "first_step": stamps[0] - begin,
        "step": loop / (work.steps - 1),
        "decode": end - stamps[-1],
        "generation": end - begin,
    }
    if made.unet:
        seconds["outside_unet"] = 1 - sum(made.unet[1:]) / loop
    return seconds, made.image


def _thumbnail(image: Any) -> str:
    """The image as 8×8 gray levels, two hexadecimal digits each, to compare the images of two systems."""
    levels: bytes = image.convert("L").resize((THUMBNAIL, THUMBNAIL)).tobytes()
    return levels.hex()


def main(arguments: Sequence[str] | None = None) -> None:
    began = time.time()
    parser = parser_of("peer", __doc__)
    parser.add_argument("system", choices=list(SYSTEMS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="at least 2: the first counts separately")
    parser.add_argument("--generations", type=int, default=2, help="generations after the first")
    parser.add_argument("--began", type=float, default=began, help="time.time() at the start; default: now")
    options = parser.parse_args(arguments)
    if options.steps < 2 or options.generations < 1:
        parser.error("expected at least 2 for --steps and 1 for --generations")
    work = Work(device=options.device, size=options.size, steps=options.steps)
    print()  # a library may have printed an incomplete line
    print(json.dumps(measure(options.system, options.folder, work, options.generations, options.began)))


if __name__ == "__main__":
    main()
