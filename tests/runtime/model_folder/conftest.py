"""A signed model folder, and a hub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from sdrt.model_folder.folder import Manifest
from sdrt.model_folder.manifest import FileRecord
from tests.runtime.model_folder.hub_server import Hub


@pytest.fixture
def signed(model_copy: Path) -> Path:
    """A model folder with a manifest of its files."""
    files = {
        path.relative_to(model_copy).as_posix(): FileRecord.of(path)
        for path in sorted(model_copy.rglob("*"))
        if path.is_file()
    }
    Manifest(
        family="sd1",
        target="cpu",
        dtype="float32",
        opset=20,
        exporter="sdrt",
        source={"id": "someone/some-model", "revision": None},
        versions={"sdrt": "0"},
        files=files,
    ).write(model_copy)
    return model_copy


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
