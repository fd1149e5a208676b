"""The texts in XMP, which is XML. Draw Things writes how an image was made there."""

from __future__ import annotations

import html

__all__ = ["xmp_texts"]

_MOST = 1 << 20
_FIELDS = {
    "exif:UserComment": "UserComment",
    "dc:description": "description",
    "xmp:CreatorTool": "CreatorTool",
}
"""Element of XMP → name of the text."""


def xmp_texts(xmp: str) -> dict[str, str]:
    """The texts of the elements that programs use, or nothing if XMP is too long.

    They are found by their names. A parser of XML would expand what a stranger defines.
    """
    if len(xmp) > _MOST:
        return {}
    found = {name: _element(xmp, element) for element, name in _FIELDS.items()}
    return {name: text for name, text in found.items() if text}


def _element(xmp: str, name: str) -> str:
    """The content of an element, or of the first item of its list; or the value of an attribute of this name."""
    inner = _between(xmp, f"<{name}", f"</{name}>")
    if inner is None:
        value = _between(xmp, f'{name}="', '"')
        return html.unescape(value) if value else ""
    inner = inner.partition(">")[2]
    item = _between(inner, "<rdf:li", "</rdf:li>")
    return html.unescape(inner if item is None else item.partition(">")[2]).strip()


def _between(text: str, start: str, end: str) -> str | None:
    first = text.find(start)
    last = text.find(end, first + len(start)) if first >= 0 else -1
    return text[first + len(start) : last] if last >= 0 else None
