"""Write the index of `docs/from-diffusers.md`: python -m tools.write_words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdrt.foreign.arguments import CALLING, LOADING, MOVING, SINGLE_FILE, TEXTUAL_INVERSION
from sdrt.foreign.command import COMMANDS, OPTIONS
from sdrt.foreign.devices import DEVICES
from sdrt.foreign.imports import IMPORTS
from sdrt.foreign.pipeline import PIPELINE, RESULT, SCHEDULER
from sdrt.foreign.word import Word

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "from-diffusers.md"
BEGIN, END = "<!-- index:start -->", "<!-- index:end -->"

_SECTIONS: Mapping[str, Sequence[Word]] = {
    "Imports": IMPORTS,
    "Arguments of `from_pretrained`": LOADING,
    "Arguments of `from_single_file`, beside those": SINGLE_FILE[: -len(LOADING)],
    "Values of `provider`": DEVICES,
    "Arguments of a call": CALLING,
    "Methods and attributes of a pipeline": PIPELINE,
    "Arguments of `to`": MOVING,
    "Arguments of `load_textual_inversion`": TEXTUAL_INVERSION,
    "Attributes of a result": RESULT,
    "Attributes of a scheduler": SCHEDULER,
    "Options of `sdrt generate`": OPTIONS["generate"],
    "Commands": COMMANDS,
}


def index() -> str:
    """The generated part of the document, between its marks."""
    parts = [
        f"### {heading}\n\n{_table(words, '--' if heading.startswith('Options') else '')}"
        for heading, words in _SECTIONS.items()
    ]
    return "\n\n".join([BEGIN, *parts, END])


def _table(words: Sequence[Word], dashes: str) -> str:
    """A line for each thing; consecutive words for one thing stand together."""
    lines = [("name", "meaning there", "in sdrt"), ("---",) * 3]
    for (what, ours), group in itertools.groupby(words, key=lambda word: (word.what, _ours(word))):
        lines.append((", ".join(f"`{dashes}{word.name}`" for word in group), what, ours))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _ours(word: Word) -> str:
    taken = ", ".join(f"`{value!r}`" for value in word.harmless if value is not None)
    return f"{word.ours} ({taken} may stay)" if taken else word.ours


def main() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    OUTPUT.write_text(text.split(BEGIN)[0] + index() + text.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
