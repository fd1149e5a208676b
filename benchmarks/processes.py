"""This command compares the memory of processes that serve the same tuned model at the same time with that of one.

    python -m benchmarks processes [--work DIR] [--count 4] [--side 512] [--steps 2] [--rounds 1]

The model is an exported folder (float32) of random weights, after `sdrt tune`. Each process is one `sdrt generate`, and
all begin together. Memory is the peak of the sum over the processes, twice a second, of what Linux counts as `Pss`: a
page that n processes share, such as one of mapped weights, counts 1/n for each of them. So shared pages count once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import in_turn, worker
from benchmarks.bars import judge_processes
from benchmarks.command_line import conclude, parser_of
from benchmarks.folders import make
from benchmarks.measure import Failed, device, make_ready, run
from benchmarks.one_image import PROMPT
from benchmarks.settings import say

__all__ = ["compare", "main", "table"]

ONE, TOGETHER = "one process", "together"
FIGURES = {"seconds": "time", "shared_bytes": "memory, shared pages once", "own_bytes": "own memory"}
_INTERVAL = 0.5


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Run one process, then several, in every round. The model stays in `work`."""
    log = work / "log.txt"
    variables = {**worker.environment(), "SDRT_CACHE": os.fspath(work / "cache")}
    model = make("sdrt", work, log, device="cpu", architecture=options.architecture, python=sys.executable)
    run([sys.executable, "-m", "sdrt", "tune", "-m", model], log, environment=variables)
    turns = []
    for _ in range(options.rounds):
        turn = {}
        for name, count in ((ONE, 1), (TOGETHER, options.count)):
            make_ready(path for path in (work / "cache").rglob("*") if path.is_file())
            turn[name] = _together(_commands(model, work, count, options), log, variables)
            say(f"{count} at once: {turn[name]['seconds']:.1f} s, {turn[name]['shared_bytes'] / 1e9:.2f} GB")
        turns.append(turn)
    return {
        "architecture": f"{options.architecture}, random weights",
        "image": f"{options.side}x{options.side}, {options.steps} steps",
        "count": options.count,
        "turns": turns,
        "systems": in_turn.spreads(turns, tuple(FIGURES)),
        "ratios": in_turn.ratios(turns, tuple(FIGURES), ONE),
        "bars": judge_processes(turns),
        "device": device(),
    }


def _commands(model: Path, work: Path, count: int, options: Any) -> list[list[str]]:
    side, steps = str(options.side), str(options.steps)
    given = ["-m", str(model), "--provider", "cpu", "-W", side, "-H", side, "--steps", steps, "--force", "-q"]
    return [
        [sys.executable, "-m", "sdrt", "generate", PROMPT, *given, "--seed", str(n), "-o", f"{work}/{n}.png"]
        for n in range(count)
    ]


def _together(commands: Sequence[Sequence[str]], log: Path, variables: Mapping[str, str]) -> dict[str, float]:
    """Run the commands at once. Raises `Failed`."""
    started, peak, own = time.perf_counter(), 0, 0
    running: list[subprocess.Popen[bytes]] = []
    with log.open("a", encoding="utf-8") as stream:
        try:
            for command in commands:
                running.append(
                    subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **variables})
                )
            while any(process.poll() is None for process in running):
                sizes = [_memory(process.pid) for process in running]
                peak = max(peak, sum(shared for shared, _ in sizes))
                own = max(own, sum(one for _, one in sizes))
                time.sleep(_INTERVAL)
        finally:
            # All of them, also if one could not start.
            for process in running:
                process.kill()
                process.wait()
    if failed := [process.returncode for process in running if process.returncode]:
        raise Failed(f"exit code {failed[0]} (more in {log.name})")
    return {"seconds": time.perf_counter() - started, "shared_bytes": peak, "own_bytes": own}


def _memory(pid: int) -> tuple[int, int]:
    """The process's share of the pages in memory, and of those that are in no file. 0 after its end."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    kilobytes = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return kilobytes.get("Pss", 0) * 1024, kilobytes.get("Pss_Anon", 0) * 1024


def table(figures: Mapping[str, Any]) -> str:
    """Medians, in brackets the ratio to one process; then the goal."""
    title = f"{figures['architecture']}, {figures['image']}, {figures['count']} at once"
    return in_turn.table(figures, title, FIGURES, ONE, of="ratios")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("processes", __doc__)
    parser.add_argument(
        "--work", type=Path, help="keep the model here (about 16 GB); default: a temporary folder"
    )
    parser.add_argument("--count", type=int, default=4, help="of processes; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument("--side", type=int, default=512, help="of the image, in pixels; default: %(default)s")
    parser.add_argument("--steps", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("this needs Linux, which counts shared pages in /proc")
    conclude(options, lambda work: compare(work, options), table)
