"""Write the tables of arguments in `docs/python.md`: python -m tools.write_arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any

from sdrt.common.arguments import documented
from sdrt.model_folder.loading import Loading
from sdrt.request.setting import GROUPS
from sdrt.request.table import Arguments

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def tables(arguments: Any = Arguments) -> Mapping[str, str]:
    """The generated parts, each between its marks, by name; those of a call are those of `arguments`."""
    groups: dict[str, list[Field[Any]]] = {group: [] for group in GROUPS}
    for one in documented(arguments):
        groups[one.metadata["setting"].group].append(one)
    headed = [
        f"### {group.replace('options', 'arguments')}\n\n{_table(rows)}" for group, rows in groups.items()
    ]
    return {
        "loading": _marked("loading", _table(documented(Loading))),
        "calling": _marked("calling", "\n\n".join(headed)),
    }


def marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}:start -->", f"<!-- {name}:end -->"


def _marked(name: str, text: str) -> str:
    begin, end = marks(name)
    return f"{begin}\n\n{text}\n\n{end}"


def _table(rows: Sequence[Field[Any]]) -> str:
    lines = [("argument", "default", "meaning"), ("---",) * 3]
    lines += [(f"`{one.name}`", _default(one), one.metadata["about"]) for one in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _default(one: Field[Any]) -> str:
    if one.default is MISSING:
        return "required"
    if one.default is None:
        return one.metadata.get("usual") or "none"
    return f"`{one.default!r}`".replace("'", '"')


def main() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    for name, table in tables().items():
        begin, end = marks(name)
        text = text.split(begin)[0] + table + text.split(end)[1]
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
