"""This command measures a bundle in the browser beside sdrt on the same cores, with the embedded model.

    python -m benchmarks browser [--rounds 7] [--steps 20] [--backends wasm,webgpu] [--chromium FILE]

- **first image**: from the request for the page until the image is there, in a new profile with an empty cache,
  three times in one browser. Beside it, a process of `sdrt generate` from its start.
- **warm image**: a page that has made one makes another, and so does a pipeline, in turns. Each round starts with a
  different system; ratios are taken within a round.
- **bytes**: what the browser downloads for the first image. The server compresses nothing.
- **memory**: the `Pss` of all of Chromium's processes after the image, less what they had before the page was opened.
  For sdrt, the own peak memory of the process.

The page and the pipeline never run at the same time. With a software GPU, `webgpu` takes minutes. The
command needs Playwright and Chromium, and downloads ONNX Runtime for browsers from the npm registry.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import in_turn, worker
from benchmarks.bars import judge_browser
from benchmarks.command_line import conclude, parser_of
from benchmarks.measure import device, markdown, run, spread
from benchmarks.settings import say
from benchmarks.tables import bars
from sdrt import StableDiffusionPipeline
from sdrt_export import write_bundle

__all__ = ["compare", "main", "table"]

NATIVE = "sdrt"
PROMPT = "a red circle"
# The software GPU of Chromium is used where there is no other.
_FLAGS = ("--no-sandbox", "--enable-unsafe-webgpu", "--enable-unsafe-swiftshader")
_PATIENCE = 600_000  # milliseconds
# Clicks, and returns the milliseconds until the page says how it ended, and what it said.
_MAKE = """() => new Promise((resolve) => {
  const said = document.getElementById("said");
  const started = performance.now();
  const seen = new MutationObserver(() => {
    if (/made in|failed/.test(said.textContent)) {
      seen.disconnect();
      resolve([performance.now() - started, said.textContent]);
    }
  });
  seen.observe(said, { childList: true, characterData: true, subtree: true });
  document.getElementById("go").click();
})"""


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Measure the first images, and then the warm ones in turns."""
    folder = write_bundle("shapes", work / "bundle", web=True, force=True, num_inference_steps=options.steps)
    backends = options.backends.split(",")
    with _showing(folder) as address, _chromium(options.chromium) as browser:
        firsts = {
            backend: [_first(browser, f"{address}?backend={backend}") for _ in range(options.starts)]
            for backend in backends
        }
        for backend, found in firsts.items():
            say(f"{backend}: first image {found[0]['first']:.2f} s, {found[0]['bytes'] / 1e6:.1f} MB")
        firsts[NATIVE] = [_first_native(work, options.steps) for _ in range(options.starts)]
        turns = _turns(browser, address, backends, options)
    return {
        "model": f"shapes, {options.steps} steps",
        "rounds": len(turns),
        "turns": turns,
        "systems": in_turn.spreads(turns, ["warm"]),
        "ratios": in_turn.ratios(turns, ["warm"], NATIVE),
        "first": {
            name: {key: spread([one[key] for one in found]) for key in found[0]}
            for name, found in firsts.items()
        },
        "bars": judge_browser(turns, firsts),
        "chromium": browser.version,
        "device": device(),
    }


def _turns(browser: Any, address: str, backends: Sequence[str], options: Any) -> list[dict[str, Any]]:
    pages = {}
    for backend in backends:
        pages[backend] = _page(browser.new_context(), f"{address}?backend={backend}")
        _make(pages[backend])
    turns: list[dict[str, Any]] = []
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu") as pipeline:

        def native() -> float:
            started = time.perf_counter()
            pipeline(PROMPT, seed=0, num_inference_steps=options.steps)
            return time.perf_counter() - started

        native()
        names = [NATIVE, *backends]
        for number in range(options.rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            turn = {name: {"warm": native() if name == NATIVE else _make(pages[name])} for name in order}
            say(", ".join(f"{name}: {turn[name]['warm']:.3f} s" for name in names))
            turns.append(turn)
    return turns


def _first(browser: Any, address: str) -> dict[str, float]:
    """The first image of a browser that has nothing in its cache."""
    context = browser.new_context()
    before = _browser_memory()
    requests: list[Any] = []
    context.on("requestfinished", lambda one: requests.append(one))  # Playwright needs a function of Python
    started = time.perf_counter()
    page = _page(context, address)
    _make(page)
    seconds = time.perf_counter() - started
    size = sum(one.sizes()["responseBodySize"] for one in requests)
    memory = _browser_memory() - before
    context.close()
    return {"first": seconds, "bytes": size, "own_bytes": memory}


def _first_native(work: Path, steps: int) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "sdrt",
        "generate",
        PROMPT,
        "--seed",
        "0",
        "--steps",
        str(steps),
        "--provider",
        "cpu",
        "-q",
    ]
    variables = {**worker.environment(), "PYTHONDONTWRITEBYTECODE": ""}
    done = run([*command, "-o", work / "image.png", "-f"], work / "log.txt", environment=variables)
    return {"first": done.seconds, "bytes": 0.0, "own_bytes": float(done.own_bytes)}


def _page(context: Any, address: str) -> Any:
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(address)
    page.fill("#prompt", PROMPT)
    return page


def _make(page: Any) -> float:
    """Make an image, and return how many seconds it took."""
    milliseconds, said = page.evaluate(_MAKE)
    if "made in" not in said:
        raise SystemExit(f"the page: {said}")
    return float(milliseconds) / 1000


def _browser_memory() -> float:
    """The memory of all Chromium processes below this one, in bytes. There must be only one Chromium."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "chrom" in process.name():
                total += process.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return float(total)


@contextmanager
def _showing(folder: Path) -> Iterator[str]:
    """The address of the page."""
    command = [sys.executable, "-m", "sdrt", "bundle", "--show", str(folder), "--port", "0", "-q"]
    variables = {**os.environ, **worker.environment()}
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            if not (address := server.stdout.readline().strip()):
                raise SystemExit("sdrt bundle --show does not start")
            yield address
        finally:
            server.send_signal(signal.SIGINT)


@contextmanager
def _chromium(path: str | None) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def table(figures: Mapping[str, Any]) -> str:
    """Medians, and the ratio of a warm image to sdrt's with its spread; then the goals."""
    rows = []
    for name, first in sorted(figures["first"].items(), key=lambda one: one[0] != NATIVE):
        warm, ratio = figures["systems"][name]["warm"], figures["ratios"][name]["warm"]
        beside = "" if name == NATIVE else f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
        rows.append(
            [
                f"`{name}`",
                f"{warm['median']:.2f} s{beside}",
                f"{first['first']['median']:.2f} s ({first['first']['min']:.2f}–{first['first']['max']:.2f})",
                f"{first['bytes']['median'] / 1e6:.1f} MB" if first["bytes"]["median"] else "none",
                f"{first['own_bytes']['median'] / 1e6:.0f} MB",
            ]
        )
    header = [figures["model"], "warm image", "first image", "downloaded", "memory"]
    return "\n".join([markdown(header, rows), bars(figures)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("browser", __doc__)
    parser.add_argument("--work", type=Path, help="write the bundle here; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--starts", type=int, default=3, help="how many first images to measure; default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backends", default="wasm", help="wasm, webgpu or both; default: %(default)s")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="default: chromium in the PATH")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    conclude(options, lambda work: compare(work, options), table)
