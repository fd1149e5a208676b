"""The socket to a process, and what becomes of one that says what nobody can read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sdrt.serve.link import Link
from sdrt.serve.messages import Messages, packed, pair


class Process:
    """A process that runs until it is killed."""

    pid, exitcode = 1, None

    def kill(self) -> None:
        self.exitcode = -9


def heard_of(*sent: bytes) -> tuple[list[Any], Process]:
    """What the server hears of a process that sends these bytes and ends, or is ended."""

    async def test() -> tuple[list[Any], Process]:
        ours, theirs = pair()
        messages, process, over = [], Process(), asyncio.Event()

        def heard(message: Any) -> None:
            messages.append(message)
            if message is None:
                over.set()

        Link(ours, process, heard)  # type: ignore[arg-type]
        for one in sent:
            theirs.sendall(one)
        await asyncio.sleep(0.05)
        if process.exitcode is None:
            process.exitcode = 0
            theirs.close()
        await asyncio.wait_for(over.wait(), 20)
        theirs.close()
        return messages, process

    return asyncio.run(test())


def test_messages_arrive_in_their_order_and_then_the_end() -> None:
    messages, process = heard_of(packed("a"), packed(["b"]))
    assert (messages, process.exitcode) == (["a", ["b"], None], 0)


@pytest.mark.parametrize("wrong", [b"no pickle", b""])
def test_a_process_whose_message_cannot_be_read_is_ended(
    wrong: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    messages, process = heard_of(packed("a"), len(wrong).to_bytes(8, "big") + wrong)
    assert (messages, process.exitcode) == (["a", None], -9)
    assert "a message of process 1 cannot be read" in caplog.text


def test_what_is_sent_before_the_loop_runs_is_not_lost() -> None:
    async def test() -> list[str]:
        ours, theirs = pair()
        link = Link(ours, Process(), lambda message: None)  # type: ignore[arg-type]
        other = Messages(theirs)
        for word in ("a", "b"):
            link.send(word)
        got = [await asyncio.to_thread(other.recv) for _ in range(2)]
        theirs.close()
        return got

    assert asyncio.run(test()) == ["a", "b"]
