"""`docs/providers.md` lists the providers that there are, and their options."""

from __future__ import annotations

from tools.write_providers import BEGIN, END, OUTPUT, tables


def test_it_says_what_there_is() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    written = BEGIN + text.split(BEGIN)[1].split(END)[0] + END
    assert written == tables(), "write it again: python -m tools.write_providers"
