"""Limits, keys and names of a server that is started with them."""

from __future__ import annotations

import base64
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from sdrt.errors import RequestError
from sdrt.serve.app import make_app
from sdrt.serve.keys import new_key, read_keys
from sdrt.serve.options import ServeOptions
from sdrt.serve.served_model import ServedModel
from tests.serve.core.running import Running, serving, wait_for
from tests.serve.core.test_jobs import TASK, over, png

LONG = TASK | {"num_inference_steps": 150}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes little."""
    options = ("--max-queue", "3", "--max-pixels", "16384", "--max-images", "2", "--timeout", "600")
    with serving(tmp_path_factory.mktemp("small"), *options) as running:
        yield running


def test_more_than_may_wait_get_429(small: Running) -> None:
    with small.client() as client:
        first = client.post("/jobs", json=LONG).json()["id"]
        wait_for(lambda: client.get(f"/jobs/{first}").json()["status"] == "running")
        answers = [client.post("/jobs", json=TASK) for _ in range(6)]
        assert [one.status_code for one in answers] == [202, 202, 202, 429, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert [one.json()["position"] for one in answers[:3]] == [0, 1, 2]
        client.delete(f"/jobs/{first}")
        assert {over(client, one.json()["id"])["status"] for one in answers[:3]} == {"done"}
        assert "sdrt_jobs_refused_total 3.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"width": 136}, "width"),
        ({"hires_scale": 2}, "width"),
        ({"outpaint": "left=64", "image": 136}, "image"),
        ({"outpaint": "left=64", "image": 128}, "width"),
        ({"height": 136}, "width"),
    ],
)
def test_no_way_leads_to_more_pixels(small: Running, wrong: dict[str, Any], field: str) -> None:
    wrong = {name: png("red", value) if name == "image" else value for name, value in wrong.items()}
    with small.client() as client:
        answer = client.post("/jobs", json=TASK | wrong)
        said = answer.json()
        if answer.status_code == 202:
            said = over(client, said["id"])["error"]
        assert said["field"] == field, said
        assert "at most 16384" in said["detail"]


def vast(side: int) -> str:
    """The base64 of a PNG file that says that it has so many pixels a side, and has none."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", b"x"), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


@pytest.mark.parametrize("name", ["image", "mask_image", "control_image", "ip_adapter_image"])
def test_an_image_with_too_many_pixels_is_not_decoded(small: Running, name: str) -> None:
    given = {"image": png("red", 64), "mask_image": png("white", 64)}
    given |= {name: vast(9000) if name in given else [png("red", 64), vast(9000)]}
    with small.client() as client:
        answer = client.post("/jobs", json=TASK | given)
        assert (answer.status_code, answer.json()["field"]) == (400, name)
        assert "has 9000x9000 pixels: this server takes at most 16384" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["control_image", "ip_adapter_image"])
def test_many_images_are_counted_before_they_are_decoded(small: Running, name: str) -> None:
    with small.client() as client:
        answer = client.post("/jobs", json=TASK | {name: [vast(64)] * 65})
        assert (answer.status_code, answer.json()["field"]) == (400, name)
        assert answer.json()["detail"] == f"{name} has 65 images: expected at most 64"


def test_a_priority_goes_first(small: Running) -> None:
    with small.client() as client:
        first = client.post("/jobs", json=LONG).json()["id"]
        usual = client.post("/jobs", json=TASK).json()["id"]
        urgent = client.post("/jobs", json=TASK | {"priority": 1}).json()
        assert urgent["position"] == 0
        client.delete(f"/jobs/{first}")
        ended = {job: over(client, job)["finished"] for job in (usual, urgent["id"])}
        assert ended[urgent["id"]] < ended[usual]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str, str]]:
    """A server with two keys: one of a file, which may go first, and one of the environment."""
    folder = tmp_path_factory.mktemp("keyed")
    printed = subprocess.run(
        [sys.executable, "-m", "sdrt", "serve", "--new-key", "phone"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    key, line = (one.split()[-1] for one in printed)
    assert key not in line
    (folder / "keys").write_text(f"# keys\n\n{line}:priority\n")
    own = "a-key-of-the-environment"
    with serving(folder, "--key-file", "keys", "--cors", "https://example.org", SDRT_API_KEY=own) as running:
        yield running, key, own


def routes() -> list[tuple[str, str]]:
    """Every method and path that the server describes, with a value for each part of a path that varies."""
    app = make_app(ServeOptions(models=[ServedModel(name="shapes", source="shapes")]))
    found = [
        (method.upper(), re.sub(r"{\w+}", "0", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    return [*found, ("GET", "/openapi.json")]


NEEDS_NO_KEY = ("/healthz", "/readyz", "/v1/images/files/0/0")
"""A load balancer has no key. The address of an image is signed."""
ROUTES = [row for row in routes() if row[1] not in NEEDS_NO_KEY]
OPEN = [("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/"), ("HEAD", "/")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_needs_a_key(keyed: tuple[Running, str, str], method: str, path: str) -> None:
    server, key, own = keyed
    for wrong in (None, key[:-1], key + "x", own.upper()):
        with server.client(wrong) as client:
            answer = client.request(method, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert key not in answer.text
    for right in (key, own):
        with server.client(right) as client:
            assert client.request(method, path).status_code not in (401, 403, 405, 500)
    with httpx.Client(base_url=server.url, auth=("anyone", key)) as client:
        assert client.request(method, path).status_code not in (401, 403, 405, 500)


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_what_a_load_balancer_asks_needs_none(
    keyed: tuple[Running, str, str], method: str, path: str
) -> None:
    with keyed[0].client() as client:
        assert client.request(method, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *OPEN])
def test_a_wrong_method_is_told(server: Running, method: str, path: str) -> None:
    with server.client() as client:
        answer = client.request("PATCH", path)
        assert answer.status_code == 405
        assert "Method Not Allowed" in answer.text


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *OPEN])
def test_a_large_body_is_refused_before_it_is_sent(server: Running, method: str, path: str) -> None:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.putrequest(method, path)
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert method == "HEAD" or b"the most that this server takes" in answer.read()
    answer.close()
    connection.close()


def test_a_large_body_of_unknown_length_is_refused(server: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(65 * 16):
            yield b" " * 65536

    with server.client() as client:
        answer = client.post("/jobs", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413


def test_keys_do_not_see_each_other_s_jobs(keyed: tuple[Running, str, str]) -> None:
    server, key, own = keyed
    with server.client(key) as mine, server.client(own) as other:
        job = mine.post("/jobs", json=TASK).json()["id"]
        assert over(mine, job)["status"] == "done"
        for path in (f"/jobs/{job}", f"/jobs/{job}/images/0", f"/jobs/{job}/result", f"/jobs/{job}/events"):
            assert other.get(path).status_code == 404
        assert other.delete(f"/jobs/{job}").status_code == 404
        assert job not in other.get("/jobs").text
        assert job in mine.get("/jobs").text


def test_only_keys_that_may_go_before_others(keyed: tuple[Running, str, str]) -> None:
    server, key, own = keyed
    for given, priority, status in ((key, 10, 202), (own, 1, 403), (own, 0, 202), (own, -10, 202)):
        with server.client(given) as client:
            answer = client.post("/jobs", json=TASK | {"priority": priority})
            assert answer.status_code == status
            if status == 403:
                assert answer.json() == {
                    "detail": "priority is 1, and jobs of this key may not go before others: expected at most 0",
                    "field": "priority",
                    "code": "priority_not_allowed",
                }


def test_other_sites_may_not_use_it_unless_named(server: Running, keyed: tuple[Running, str, str]) -> None:
    with server.client() as client:
        assert client.post("/jobs", json=TASK, headers={"Origin": "https://example.org"}).status_code == 403
        assert client.get("/jobs", headers={"Origin": server.url}).status_code == 200
        assert client.get("/jobs", headers={"Host": "attacker.example"}).status_code == 403
        # A form of another site has no other type than these, and sends cookies, not keys.
        assert client.post("/jobs", content=b"{}", headers={"Content-Type": "text/plain"}).status_code in (
            415,
            422,
        )
    with keyed[0].client(keyed[1]) as client:
        answer = client.get("/jobs", headers={"Origin": "https://example.org"})
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        assert client.options("/jobs", headers=asked).status_code == 200
        assert client.get("/jobs", headers={"Origin": "https://other.example"}).status_code == 403


def test_the_log_has_no_prompt_and_no_key(keyed: tuple[Running, str, str]) -> None:
    server, key, _ = keyed
    with server.client(key) as client:
        answer = client.post(
            "/jobs", json=TASK | {"prompt": "a very private circle"}, headers={"X-Request-ID": "mine-1"}
        )
        assert answer.headers["x-request-id"] == "mine-1"
        assert over(client, answer.json()["id"])["status"] == "done"
    log = server.log.read_text()
    assert "mine-1" in log
    assert "phone" in log
    assert "private" not in log
    assert key not in log


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_a_file_of_keys_may_be_of_another_system(tmp_path: Path, ending: str) -> None:
    key, line = new_key("phone")
    path = tmp_path / "keys"
    path.write_bytes(f"\ufeff{line}{ending}".encode())
    assert read_keys(path).name_of(key) == "phone"


def test_a_file_of_keys_has_no_other_marks(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{new_key('phone')[1]}:admin\n")
    with pytest.raises(RequestError, match=r"line 1 of .* is no key: expected .* optionally with :priority"):
        read_keys(path)


def test_a_file_without_a_key_does_not_open_the_server(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# none yet\n")
    done = refused("--key-file", str(path))
    assert (done.returncode, "has no keys" in done.stderr) == (2, True), done.stderr


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdrt", "serve", *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--host", "0.0.0.0"), 2, "there is no key"),
        (("--host", "é" * 70, "--api-key", "k" * 16), 1, "cannot listen on"),
        (("--api-key", "short"), 2, "fewer than 16"),
        (("--key-file", "nosuch"), 1, "cannot be read"),
        (("-m", "a=shapes", "-m", "a=shapes"), 2, "two models are called 'a'"),
        (("-m", "=shapes"), 2, "NAME=MODEL"),
        (("-m", "nosuch-model", "--port", "0"), 3, "nosuch-model"),
        (("--provider", "warp", "--port", "0"), 4, "warp"),
        (("--new-key", "a b"), 2, "letters"),
        (("--max-memory", "much"), 2, "such as 6GB"),
        (("--proxy", "localhost"), 2, "an address or network such as 10.0.0.0/8"),
        (("--proxy", "*"), 2, "an address or network such as 10.0.0.0/8"),
    ],
)
def test_a_wrong_start_is_one_line(arguments: tuple[str, ...], code: int, says: str) -> None:
    done = refused(*arguments)
    assert (done.returncode, done.stderr.count("error: ")) == (code, 1), done.stderr
    assert says in done.stderr.splitlines()[-1]


def is_free(port: int) -> bool:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            made.bind(("127.0.0.1", port))
            return True
    return False


def test_a_taken_port_is_told_with_the_next_free_one(tmp_path: Path) -> None:
    with serving(tmp_path, ready=False) as running:
        port = running.url.rpartition(":")[2]
        done = refused("--port", port)
        assert done.returncode == 1
        found = re.search(
            rf"port {port} of 127.0.0.1 is taken: take the next free one with --port (\d+), or 0 for any",
            done.stderr,
        )
        assert found is not None, done.stderr
        assert is_free(int(found[1]))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0


def test_a_taken_default_port_is_told_and_no_other_is_taken() -> None:
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # another program has it, which is as good
            own.bind(("127.0.0.1", 7860))
            own.listen()
        done = refused()
    assert done.returncode == 1
    assert re.search(
        r"port 7860 of 127\.0\.0\.1 is taken: take the next free one with --port 78\d\d", done.stderr
    ), done.stderr
    assert "Ctrl-C ends" not in done.stderr
