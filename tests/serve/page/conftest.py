"""A real server and a headless Chromium, for the tests of the page."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.made_once import MadeOnce
from tests.serve.page.browser import LONG

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEY = "a-key-for-tests-only"
_STARTS_WITHIN = 60  # seconds: other tests run too


@contextmanager
def serving(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """`sdrt serve` as a process on a free port. Yields its address."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    command = [sys.executable, "-m", "sdrt", "serve", "--port", "0", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, env={**os.environ, **variables})
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(_STARTS_WITHIN)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"^(http://\S+)  \(Ctrl-C ends\)", log.read_text(), re.MULTILINE):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def lora_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded model's LoRA."""
    import sdrt_models

    folder = tmp_path_factory.mktemp("loras")
    shutil.copy(sdrt_models.adapter("moon"), folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, lora_dir: Path) -> Iterator[str]:
    """The address of a server of the embedded model, without a key."""
    with serving(tmp_path_factory.mktemp("server"), "--lora-dir", str(lora_dir)) as address:
        yield address


@pytest.fixture(scope="session")
def server_with_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that needs `KEY`."""
    with serving(tmp_path_factory.mktemp("keyed"), SDRT_API_KEY=KEY) as address:
        yield address


@pytest.fixture(scope="session")
def server_with_guides(tmp_path_factory: pytest.TempPathFactory, made_once: MadeOnce) -> Iterator[str]:
    """The address of a server of the embedded model with its ControlNet and its IP-Adapter."""
    model = made_once("shapes-with-guides", _export_with_guides)
    with serving(tmp_path_factory.mktemp("guided"), "-m", f"guided={model}") as address:
        yield address


def _export_with_guides(folder: Path) -> None:
    import sdrt_models

    checkpoint = folder.with_name(f"{folder.name}-checkpoint")
    beside = sdrt_models.adapter("edges").parent
    added = ("--controlnet", beside / "edges", "--ip-adapter", beside / "likeness.safetensors")
    for command in (
        ("sdrt_export.restore", "shapes", checkpoint),
        ("sdrt", "export", checkpoint, *added, "--image-encoder", beside / "image_encoder", "-o", folder),
    ):
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium. Not for the whole session, because Playwright's event loop would run in other tests too."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("the page is not tested: playwright is not installed")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("the page is not tested: there is no chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page of a server in a new context: `open_page(address, **context)`.

    Afterwards, no page may have had an error of JavaScript or of the Content-Security-Policy, nor have asked another
    server for anything.
    """
    problems: list[str] = []
    contexts = []

    def opened(address: str, **options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: _note(problems, message.text))
        page.on("request", lambda request: _check_request(problems, address, request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def _note(problems: list[str], text: str) -> None:
    # Chromium notes every status from 400 and every lost connection, which tests ask for.
    if not text.startswith("Failed to load resource:") or "status of 5" in text:
        problems.append(text)


def _check_request(problems: list[str], address: str, url: str) -> None:
    if not url.startswith((f"{address}/", f"blob:{address}/", "data:")):
        problems.append(f"a request to {url}")


@pytest.fixture
def page(open_page: Callable[..., Page], server: str) -> Page:
    """The page of the server without a key, on a desktop."""
    return open_page(server, viewport={"width": 1280, "height": 900})
