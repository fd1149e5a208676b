"""JSON that a server reads, without one that runs."""

from __future__ import annotations

import pytest

from sdrt.serve.body import loads
from sdrt.serve.errors import ServeError


@pytest.mark.parametrize("value", [b"[]", b"0", b"{}"])
def test_json_of_very_many_values_is_refused(value: bytes) -> None:
    with pytest.raises(ServeError, match="commas and brackets") as raised:
        loads(b"[" + b",".join([value] * 100_001) + b"]")
    assert raised.value.status == 400


def test_json_of_a_large_text_is_read() -> None:
    assert loads(b'["' + b"A" * 10_000_000 + b'"]') == ["A" * 10_000_000]
