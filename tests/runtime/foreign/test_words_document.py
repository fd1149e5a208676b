"""`docs/from-diffusers.md` lists every foreign word."""

from __future__ import annotations

from tools.write_words import BEGIN, END, OUTPUT, index


def test_it_lists_what_the_errors_say() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    written = BEGIN + text.split(BEGIN)[1].split(END)[0] + END
    assert written == index(), "write it again: python -m tools.write_words"
