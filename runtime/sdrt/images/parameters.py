"""How an image was made, as the text that A1111's web UI writes and reads.

::

    a castle,                                   the prompt, as many lines as it has
    at dawn
    Negative prompt: blurry                     left out when empty
    Steps: 20, Sampler: Euler a, Seed: 1, …     one line; a value with a comma or colon is JSON

`Parameters.parse` is the inverse of `str(parameters)`. It also reads what other programs write in this grammar: names
with brackets and dots, JSON without quotes around it, words without a value, blank lines at the end, and lines that end
in CR LF. A1111's own reader ignores such names and values. `sdrt.request.labels` makes the labels and texts of the
settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Parameters"]

_NEGATIVE = "Negative prompt:"
_FEWEST_FIELDS = 3  # with fewer, the last line belongs to the prompt, as in A1111
# SD.Next writes the templates of its prompts after the negative prompt. Its line of settings has one of these names.
_TEMPLATES = re.compile(r"^(Template|Negative template): ", re.MULTILINE)
_NAMES_OF_SDNEXT = frozenset({"App", "Backend", "Operations", "Parser", "Pipeline"})
# The usual beginning of a line of settings. Extensions of A1111 write further lines below it.
_STEPS = re.compile(r"\s*Steps: ?\d")
_BELOW = re.compile(r"(Template|Negative Template|Used embeddings): ?")
_TEXT_BELOW = "Text below the settings"
# A name has no quotes or braces: these are in pieces of JSON that another program has cut.
_NAME = re.compile(r"""\s*([^\s,:"'{}][^,:"'{}]*):\s*""")
_USUAL_NAME = re.compile(r"[A-Za-z][\w /-]*")  # a name that can show that a line has settings
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_END = re.compile(r"\s*(?:,|$)")
_WORD = re.compile(r"""[^\W\d_][^"'{}\[\]]*""")
# Without the first part, it would try each CR of a long row that ends otherwise, up to the end of the row.
_BEFORE_LINE_END = re.compile(r"(?<!\r)\r+(?=\n|\Z)")
_JSON = json.JSONDecoder()
_MOST_BROKEN_JSON = 8  # each takes time that grows with the whole line


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How one image was made. `str(parameters)` is the text, and `Parameters.parse` reads it back.

    `settings` keeps the order of the line (`Steps`, `Sampler`, `CFG scale`, …) and every value as text. Lines of the
    prompts end in LF.

    In this grammar, no line of the prompt can begin with "Negative prompt:".
    """

    prompt: str = ""
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            object.__setattr__(self, name, _BEFORE_LINE_END.sub("", getattr(self, name)))

    def __str__(self) -> str:
        lines = [self.prompt] if self.prompt else []
        if self.negative_prompt:
            lines.append(f"{_NEGATIVE} {self.negative_prompt}")
        if self.settings:
            lines.append(", ".join(f"{name}: {_quote(value)}" for name, value in self.settings.items()))
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> Parameters:
        """Read the text back. A text without a line of settings is all prompt."""
        text = _BEFORE_LINE_END.sub("", text).rstrip("\n")
        lines = text.rstrip().split("\n")
        place = _place_of_settings(lines)
        if place is None:
            prompt, negative = _prompts(text)
            return cls(prompt=prompt, negative_prompt=negative)
        settings = _parse_settings(lines[place])
        _add_lines_below(lines[place + 1 :], settings)
        prompt, negative = _prompts("\n".join(lines[:place]))
        if _NAMES_OF_SDNEXT & settings.keys():
            prompt, negative = (_without_templates(one, settings) for one in (prompt, negative))
        return cls(prompt=prompt, negative_prompt=negative, settings=settings)


def _place_of_settings(lines: list[str]) -> int | None:
    """Where the line of settings is: the last line, or the last that begins with Steps. None without settings."""
    last = len(lines) - 1
    if "Steps:" in lines[last] and _has_settings(lines[last]):
        return last
    for place in range(last - 1, -1, -1):
        if _STEPS.match(lines[place]) and _has_settings(lines[place]):
            return place
    return last if _has_settings(lines[last]) else None


def _add_lines_below(lines: list[str], settings: dict[str, str]) -> None:
    """Add what stands below the settings: Dynamic Prompts' templates, A1111's notes, and what a user has added."""
    name, texts = _TEXT_BELOW, dict[str, list[str]]()
    for line in lines:
        if found := _BELOW.match(line):
            name, line = found[1], line[found.end() :]
        texts.setdefault(name, []).append(line)
    for name, found_lines in texts.items():
        if text := "\n".join(found_lines).strip():
            settings.setdefault(name, text)


def _prompts(text: str) -> tuple[str, str]:
    """The prompt and the negative prompt of a text without settings."""
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(_NEGATIVE)
    # Some programs begin the negative prompt on a line of its own.
    negative = negative[1:] if negative.startswith((" ", "\n")) else negative
    return "\n".join(lines[:start]), negative


def _without_templates(prompt: str, settings: dict[str, str]) -> str:
    """Move SD.Next's templates, which follow a prompt, to the settings."""
    prompt, *rest = _TEMPLATES.split(prompt)
    for name, template in zip(rest[::2], rest[1::2], strict=True):
        settings.setdefault(name, template.rstrip("\n"))
    return prompt.rstrip("\n") if rest else prompt


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]|^[\s\[{]|\s$', value) else value


def _unquote(value: str) -> str:
    try:
        return str(json.loads(value))
    except json.JSONDecodeError:
        return value


def _has_settings(line: str) -> bool:
    """Whether a line has settings: it begins with one, or has Steps, and has at least three with usual names."""
    if not _NAME.match(line) and "Steps:" not in line:
        return False
    names = (name for name in _parse_settings(line) if _USUAL_NAME.fullmatch(name))
    return sum(1 for _ in names) >= _FEWEST_FIELDS


def _parse_settings(line: str) -> dict[str, str]:
    """The settings of a line by name. A word without a value is its own value: A1111 writes such settings so."""
    pieces: dict[str, list[str]] = {}
    position, name, broken = 0, "", 0
    while position < len(line):
        if match := _NAME.match(line, position):
            name = match[1].rstrip()
            position = match.end()
            read = _read_quoted(line, position)
            if read is None and line.startswith(("{", "["), position) and broken < _MOST_BROKEN_JSON:
                read = _read_json(line, position)
                broken += read is None
            value, position = read or _read_piece(line, position)
            pieces[name] = [value]
            continue
        text, position = _read_piece(line, position)
        if _WORD.fullmatch(text):
            name = text
            pieces[name] = [text]
        elif name and text:
            # The rest of a value with a comma that another program did not quote.
            pieces[name].append(text)
    return {name: ", ".join(parts) for name, parts in pieces.items()}


# Each of these returns a value that begins at `start`, and where the next setting begins.


def _read_quoted(line: str, start: int) -> tuple[str, int] | None:
    quoted = _QUOTED.match(line, start)
    end = _END.match(line, quoted.end()) if quoted else None
    return (_unquote(quoted[0]), end.end()) if quoted and end else None


def _read_json(line: str, start: int) -> tuple[str, int] | None:
    try:
        _, stop = _JSON.raw_decode(line, start)
    except (ValueError, RecursionError):
        return None
    end = _END.match(line, stop)
    return (line[start:stop], end.end()) if end else None


def _read_piece(line: str, start: int) -> tuple[str, int]:
    end = line.find(",", start)
    end = len(line) if end < 0 else end
    return line[start:end].strip(), end + 1
