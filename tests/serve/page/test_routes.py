"""What the page asks of the server, and how its own files are served. Needs no browser."""

from __future__ import annotations

import http.client
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from sdrt.images.metadata import save_options
from tests.serve.page.browser import blue_square, with_text
from tests.serve.page.conftest import KEY

_TEXT = "a cat\nSteps: 4, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 64x64, RNG: CPU, Version: sdrt 0.1.0"


def ask(
    address: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of an answer. The path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def read(address: str, data: bytes) -> tuple[int, dict[str, Any]]:
    """What the server reads of a file."""
    status, _, body = ask(address, "/metadata", "POST", data, Content_Type="application/octet-stream")
    return status, json.loads(body)


def linked() -> list[str]:
    """The files of the page that others of its files name."""
    folder = importlib.resources.files("sdrt.serve") / "page"
    found = re.findall(r'(?:src|href)="(page/[^"]+)"', (folder / "index.html").read_text("utf-8"))
    for one in folder.iterdir():
        if one.name.endswith(".js"):
            found += [f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', one.read_text("utf-8"))]
    return sorted(set(found))


def test_every_file_of_the_page_is_served_and_used(server: str) -> None:
    status, headers, body = ask(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    total = len(body)
    for name in linked():
        status, headers, body = ask(server, f"/{name}")
        assert status == 200, name
        assert headers["content-type"].startswith(
            {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
        )
        total += len(body)
    files = {one.name for one in (importlib.resources.files("sdrt.serve") / "page").iterdir()}
    assert files == {"index.html", *(name.removeprefix("page/") for name in linked())}
    assert total < 60_000


def test_the_page_may_load_nothing_from_elsewhere(server: str) -> None:
    for path in ("/", "/page/main.js"):
        _, headers, _ = ask(server, path)
        rules = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
        assert rules["default-src"] == "'self'"
        assert rules["img-src"] == "'self' blob: data:"
        assert rules["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_browser_that_has_a_file_gets_it_only_if_it_changed(server: str) -> None:
    _, headers, _ = ask(server, "/page/main.js")
    assert headers["cache-control"] == "no-cache"
    assert ask(server, "/page/main.js", If_None_Match=headers["etag"])[::2] == (304, b"")
    assert ask(server, "/page/main.js", If_None_Match='"another"')[0] == 200
    assert ask(server, "/", "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/page/", "/page/index.html", "/page/none.js", "/page/../app.py", "/page/%2e%2e%2fapp.py"),
        *("/page/..%5capp.py", "/page/../../../../etc/passwd", "/page/main.js%00", "/page//main.js"),
        "/page/main.js/",
    ],
)
def test_other_files_are_not_served(server: str, path: str) -> None:
    assert ask(server, path)[0] in (404, 307)
    assert b"import" not in ask(server, path)[2]


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/info"])
def test_other_methods_are_refused(server: str, path: str) -> None:
    assert ask(server, path, "POST", b"")[0] == 405
    assert ask(server, "/metadata")[0] == 405


def test_the_page_is_open_and_the_rest_needs_the_key(server_with_key: str) -> None:
    assert ask(server_with_key, "/")[0] == 200
    assert ask(server_with_key, "/page/main.js")[0] == 200
    for path, method in (("/info", "GET"), ("/metadata", "POST")):
        assert ask(server_with_key, path, method, b"")[0] == 401
    assert ask(server_with_key, "/info", Authorization=f"Bearer {KEY}")[0] == 200


def test_what_the_server_offers(server: str, lora_dir: Path) -> None:
    _, _, body = ask(server, "/info")
    info = json.loads(body)
    (model,) = info["models"]
    assert info["default_model"] == model["name"] == "shapes"
    assert (model["width"], model["height"], model["num_inference_steps"]) == (128, 128, 50)
    assert (model["guidance_scale"], model["scheduler"], model["takes_image"]) == (3.0, "dpmpp_2m", True)
    assert model["controlnets"] == model["ip_adapters"] == []
    assert "euler_a" in model["schedulers"]
    assert "flow_euler" not in model["schedulers"]
    assert {"name": "euler_a", "title": "Euler a"} in info["schedulers"]
    assert info["loras"] == ["moon"]
    assert info["limits"]["steps"] == 150
    assert str(lora_dir).encode() not in body


def test_what_the_server_offers_of_a_model_with_adapters(server_with_guides: str) -> None:
    (model,) = json.loads(ask(server_with_guides, "/info")[2])["models"]
    assert model["name"] == "guided"
    assert model["controlnets"] == ["edges"]
    assert model["ip_adapters"] == ["likeness"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_file_tells_the_job_that_makes_it_again(server: str, tmp_path: Path, suffix: str) -> None:
    name = {"jpg": "JPEG"}.get(suffix, suffix.upper())
    path = tmp_path / f"made.{suffix}"
    Image.new("RGB", (64, 64)).save(path, **save_options(name, _TEXT))
    status, told = read(server, path.read_bytes())
    assert status == 200
    assert told["request"] == {
        **{"prompt": "a cat", "num_inference_steps": 4, "scheduler": "euler", "guidance_scale": 3.0},
        **{"seed": 1, "width": 64, "height": 64},
    }
    assert told["differences"] == []
    assert (told["format"], told["size"], told["program"], told["parameters"]) == (
        name,
        [64, 64],
        "sdrt",
        _TEXT,
    )


def test_a_value_that_cannot_be_read_is_a_difference_and_the_others_are_read(
    server: str, tmp_path: Path
) -> None:
    text = _TEXT.replace("Steps: 4", "Steps: four").replace("CFG scale: 3", "CFG scale: high")
    _, told = read(server, with_text(tmp_path / "made.png", text).read_bytes())
    assert told["request"]["seed"] == 1
    assert not {"num_inference_steps", "guidance_scale"} & told["request"].keys()
    assert told["differences"] == [
        {"label": "Steps", "value": "four"},
        {"label": "CFG scale", "value": "high"},
    ]


def test_another_programs_noise_and_model_are_differences(server: str, tmp_path: Path) -> None:
    text = (
        "a cat\nSteps: 4, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 64x64, Model: sd15, Version: v1.10.1"
    )
    _, told = read(server, with_text(tmp_path / "made.png", text).read_bytes())
    assert [one["label"] for one in told["differences"]] == ["Model", "RNG"]
    assert "model" not in told["request"]


def test_an_empty_negative_prompt_that_counts_is_kept(server: str, tmp_path: Path) -> None:
    with_label = _TEXT.replace("RNG", "Empty negative prompt: True, RNG")
    assert (
        read(server, with_text(tmp_path / "a.png", with_label).read_bytes())[1]["request"]["negative_prompt"]
        == ""
    )
    assert (
        "negative_prompt" not in read(server, with_text(tmp_path / "b.png", _TEXT).read_bytes())[1]["request"]
    )


def test_files_that_tell_nothing_are_refused(server: str, tmp_path: Path) -> None:
    for data, part in (
        (b"", "empty"),
        (b"\0\1\2 no image", "not an image"),
        (b"%PDF-1.4", "PDF"),
        (blue_square(tmp_path / "plain.png").read_bytes(), "does not say how it was made"),
        (blue_square(tmp_path / "plain.png").read_bytes()[:60], "cannot be read"),
    ):
        status, told = read(server, data)
        assert (status, told["field"]) == (400, "file"), data[:20]
        assert part in told["detail"]


def test_an_image_of_too_many_pixels_is_not_decoded(server: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("L", (9000, 9000)).save(bomb)
    status, told = read(server, bomb.read_bytes())
    assert status == 400
    assert told["detail"] == "the image has 9000x9000 pixels: this server takes at most 4194304"
