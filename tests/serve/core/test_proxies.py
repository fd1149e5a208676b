"""What the server believes of a proxy before it."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.serve.core.running import Running, serving

IMAGE = {"prompt": "a red circle", "steps": 1, "response_format": "url"}
FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}


def address(client: httpx.Client, **headers: str) -> str:
    """The address of an image that was asked for with these headers."""
    answer = client.post("/v1/images/generations", json=IMAGE, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["url"])


def test_addresses_have_the_scheme_that_a_named_proxy_says(tmp_path: Path) -> None:
    with serving(tmp_path, "--proxy", "127.0.0.1") as server, server.client() as client:
        host = server.url.removeprefix("http://")
        url = address(client, **FORWARDED)
        assert url.startswith(f"https://{host}/v1/images/files/")
        assert client.get(url.replace("https://", "http://")).content.startswith(b"\x89PNG")
        assert address(client).startswith(f"http://{host}/")
        assert " 203.0.113.7 " in server.log.read_text()
        # A name that it says for the server counts no more than before.
        forged = {**FORWARDED, "X-Forwarded-Host": "localhost", "Host": "attacker.example"}
        assert client.get("/jobs", headers=forged).status_code == 403
        assert "attacker" not in address(client, **{"X-Forwarded-Host": "attacker.example"})


def test_nobody_else_is_believed(server: Running) -> None:
    with server.client() as client:
        assert address(client, **FORWARDED).startswith(server.url)
        assert "203.0.113.7" not in server.log.read_text()
