"""How much of what clients send the server holds at once, and how long it waits for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from sdrt.serve.answers import refusal
from sdrt.serve.body_limits import BodyLimits
from sdrt.serve.errors import ServeError
from sdrt.serve.options import Limits
from sdrt.serve.task import ImageTask
from sdrt.serve.uploads import Uploads
from tests.serve.core.running import Running, serving
from tests.serve.core.test_kept import service
from tests.serve.core.test_side_work import application, asking


def task(image: bytes, seed: int = 1) -> ImageTask:
    return ImageTask(model="shapes", settings={"image": image, "seed": seed})


def test_images_of_waiting_jobs_are_bounded() -> None:
    async def test() -> None:
        keeper = service(uploads=100)
        first = keeper.submit(task(bytes(60)), "me")
        with pytest.raises(ServeError, match="holds 60 of at most 100 bytes that clients sent") as raised:
            keeper.submit(task(bytes(60)), "me")
        assert (raised.value.status, raised.value.headers) == (429, {"Retry-After": "5"})
        assert len(keeper.queue) == 1
        keeper.cancel(first)
        await asyncio.sleep(0)
        keeper.submit(task(bytes(60)), "me")

    asyncio.run(test())


def test_an_image_of_several_jobs_counts_once() -> None:
    async def test() -> None:
        keeper, shared = service(uploads=100), bytes(60)
        jobs = [keeper.submit(task(shared, seed), "me") for seed in range(3)]
        assert keeper.uploads.total == 60
        for left, job in zip((60, 60, 0), jobs, strict=True):
            keeper.cancel(job)
            await asyncio.sleep(0)
            assert keeper.uploads.total == left

    asyncio.run(test())


def test_a_job_that_finds_the_queue_full_holds_nothing() -> None:
    async def test() -> None:
        keeper = service(uploads=100, queue=1)
        keeper.submit(task(bytes(10)), "me")
        with pytest.raises(ServeError, match="1 jobs are waiting"):
            keeper.submit(task(bytes(20)), "me")
        assert keeper.uploads.total == 10

    asyncio.run(test())


@pytest.mark.parametrize("says_its_length", [True, False])
def test_bodies_that_arrive_at_once_are_bounded(says_its_length: bool) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        enough, arrived = asyncio.Event(), asyncio.Semaphore(0)

        async def slow() -> AsyncIterator[bytes]:
            yield bytes(400)
            arrived.release()
            await enough.wait()

        async def quick() -> AsyncIterator[bytes]:
            yield bytes(200)
            yield bytes(1)

        slow_ones = [asyncio.ensure_future(client.post("/metadata", content=slow())) for _ in range(2)]
        for _ in slow_ones:
            await arrived.acquire()
        refused = await client.post("/metadata", content=bytes(201) if says_its_length else quick())
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_bytes")
        assert refused.headers["retry-after"] == "5"
        assert (await client.post("/metadata", content=bytes(200))).status_code == 400
        enough.set()
        assert [one.status_code for one in await asyncio.gather(*slow_ones)] == [400, 400]
        assert (await client.post("/metadata", content=bytes(501))).status_code == 413
        assert (await client.post("/metadata", content=bytes(500))).status_code == 400

    asking(application(uploads=1000), test)


def test_a_body_that_arrived_may_be_followed_by_silence() -> None:
    """Routes that wait for a job wait for the client to go away, too."""
    body = {"type": "http.request", "body": b"{}"}
    left, sent = [body], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == body
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), 0.2)
        sent.append("an answer")

    async def receive() -> Any:
        return left.pop() if left else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def test() -> None:
        limited = BodyLimits(app, Limits(silence=0.05), Uploads(100), refusal)
        await limited({"type": "http", "headers": [(b"content-length", b"2")], "path": "/"}, receive, send)

    asyncio.run(test())
    assert sent == ["an answer"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("impatient"), "--silence", "1", "--max-uploads", "1MB") as running:
        yield running


HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"


def answer_to(server: Running, sent: bytes, drip: bytes = b"") -> bytes:
    """All that the server says until it closes the connection. Every tenth of a second it gets `drip`."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 60) as half:
        half.sendall(sent)
        half.settimeout(0.1 if drip else 60)
        said, end = b"", time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if not (part := half.recv(65536)):
                    return said
                said += part
            except TimeoutError:
                with contextlib.suppress(
                    ConnectionError
                ):  # the server has just closed it, which `recv` then says
                    half.sendall(drip)
            except ConnectionError:
                return said
    raise AssertionError(f"the connection stays open after {said!r}")


@pytest.mark.parametrize("drip", [b"", b" "])
def test_a_body_that_does_not_arrive_is_given_up(impatient: Running, drip: bytes) -> None:
    said = answer_to(impatient, HEAD + b"\r\n{", drip)
    assert said.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in said
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("sent", "drip"), [(HEAD, b""), (HEAD, b"X"), (b"PO", b"")])
def test_a_head_that_does_not_arrive_is_given_up(impatient: Running, sent: bytes, drip: bytes) -> None:
    said = answer_to(impatient, sent, drip)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 1 s" in said


def test_a_connection_without_a_request_is_closed(impatient: Running) -> None:
    assert answer_to(impatient, b"") == b""


def test_a_refused_body_that_goes_on_is_not_read_for_ever(impatient: Running) -> None:
    large = HEAD.replace(b"500", b"9999999999")
    said = answer_to(impatient, large + b"\r\n{", b" ")
    assert said.startswith(b"HTTP/1.1 413")
    assert said.count(b"HTTP/1.1") == 1


def test_a_request_that_takes_longer_than_that_is_answered(impatient: Running) -> None:
    with impatient.client() as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a red circle", "steps": 150})
        assert answer.status_code == 200
        assert client.get("/info").json()["limits"]["body"] == 500_000


def test_a_connection_between_two_requests_stays(impatient: Running) -> None:
    def own_address(client: httpx.Client) -> object:
        with client.stream("GET", "/healthz") as answer:
            assert answer.read()
            return answer.extensions["network_stream"].get_extra_info("client_addr")

    with impatient.client() as client:
        first = own_address(client)
        time.sleep(1.5)
        assert own_address(client) == first


def test_a_body_that_comes_fast_and_then_slowly_is_given_up(impatient: Running) -> None:
    """Its first part does not pay for hours of the rest."""
    head = HEAD.replace(b"500", b"400000")
    said = answer_to(impatient, head + b"\r\n{" + 200_000 * b" ", b" ")
    assert said.startswith(b"HTTP/1.1 408")


def test_the_head_of_a_second_request_may_begin_in_the_first_ones_segment(impatient: Running) -> None:
    said = answer_to(impatient, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nPO")
    assert said.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in said
