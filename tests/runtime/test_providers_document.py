"""`docs/providers.md` lists the providers that there are, and their options."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from write_providers import BEGIN, END, OUTPUT, tables


def test_it_says_what_there_is() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    written = BEGIN + text.split(BEGIN)[1].split(END)[0] + END
    assert written == tables(), "write it again: python tests/runtime/write_providers.py"
