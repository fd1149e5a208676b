"""Write the tables of `docs/providers.md`: python -m tools.write_providers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, Provider, SessionConfig

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "providers.md"
BEGIN, END = "<!-- tables:start -->", "<!-- tables:end -->"


def tables() -> str:
    """The generated part of the page, with the comments that mark it."""
    headings = ("`--provider`", "install", "needs", "export with", "takes")
    parts = [_table(headings, (_provider(name, row) for name, row in PROVIDERS.items()))]
    for name, row in PROVIDERS.items():
        if row.takes:
            parts += [f"### Options of `{name}`", _options(name, row)]
    return "\n\n".join([BEGIN, *parts, END])


def _provider(name: str, row: Provider) -> tuple[str, ...]:
    own_options = ", ".join(f"`{option}`" for option in row.takes)
    helpers = " ".join(f"and those of `{helper}`" for helper in row.helpers)
    return (
        f"`{name}`",
        f"`.[{row.extra}]`",
        row.needs,
        f"`--target {row.target}`",
        "any option, unchanged" if row.takes_any else f"{own_options} {helpers}".strip() or "–",
    )


def _options(name: str, row: Provider) -> str:
    """One row per option, with the value that sdrt passes by default for a float32 model."""
    passed = SessionConfig(provider=name).passed(name, Setting(compiled=Path("the user's cache")))
    lines = (
        (
            f"`{key}`",
            option.expected,
            option.about,
            _value(passed.get(key)),
        )
        for key, option in row.takes.items()
    )
    return _table(("option", "value", "what it does", "what sdrt passes by default"), lines)


def _value(passed: str | None) -> str:
    if passed is None:
        return ""
    return "in the user's cache" if passed.startswith(("the user", ".")) else f"`{passed}`"


def _table(headings: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    rule = ("---",) * len(headings)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def main() -> None:
    text = OUTPUT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    OUTPUT.write_text(before + tables() + after, encoding="utf-8")


if __name__ == "__main__":
    main()
