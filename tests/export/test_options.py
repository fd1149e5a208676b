"""The options of `export_model`, which type checkers see as its arguments."""

from __future__ import annotations

import dataclasses

from sdrt_export.options import ExportKeywords, ExportOptions


def test_every_option_is_an_argument_of_its_type() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(ExportOptions)}
    keywords = {name: kind.__forward_arg__ for name, kind in ExportKeywords.__annotations__.items()}
    assert keywords == fields
