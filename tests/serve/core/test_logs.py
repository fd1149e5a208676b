"""What the server's log says."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sdrt.serve.logs import set_up


@pytest.fixture
def restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("sdrt.serve", "uvicorn.error")]
    before = [(one.handlers, one.propagate, one.level) for one in loggers]
    yield
    for one, (one.handlers, one.propagate, level) in zip(loggers, before, strict=True):
        one.setLevel(level)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_of_the_server_s_own_has_its_trace(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    set_up(as_json=as_json, quiet=True)
    try:
        raise ZeroDivisionError("by this test")
    except ZeroDivisionError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: by this test" in said
