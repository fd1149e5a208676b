"""The table of settings, and the signatures and documents that are made of it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.common.arguments import documented
from sdrt.model_folder.loading import Loading
from sdrt.request.setting import GROUPS, settings_of
from sdrt.request.table import FACTS, TABLE, Arguments
from tools.write_arguments import OUTPUT, marks, tables

OF_A_CALL = {
    "scheduler",
    "spacing",
    "generator",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
    "cancel",
}


@pytest.mark.parametrize("name", ["loading", "calling"])
def test_the_document_says_what_there_is(name: str) -> None:
    begin, end = marks(name)
    written = begin + OUTPUT.read_text(encoding="utf-8").split(begin)[1].split(end)[0] + end
    assert written == tables()[name], "write it again: python -m tools.write_arguments"


def test_a_call_shows_every_argument() -> None:
    parameters = inspect.signature(StableDiffusionPipeline.__call__).parameters
    assert list(parameters)[:5] == ["self", "prompt", "height", "width", "num_inference_steps"]
    named = list(parameters.values())[5:]
    assert {one.kind for one in named} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(parameters) == {"self"} | {one.name for one in fields(Request)} | OF_A_CALL
    assert all(one.annotation is not inspect.Parameter.empty for one in named)
    assert {row.name: parameters[row.name].default for row in TABLE} == {
        row.name: row.default for row in TABLE
    }


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        (StableDiffusionPipeline.__call__, Arguments),
        (StableDiffusionPipeline.from_pretrained, Loading),
        (Request, Request),
    ],
)
def test_the_docstring_says_what_every_argument_is_for(called: Any, arguments: Any) -> None:
    lines = (called.__doc__ or "").split("Args:\n")[1].splitlines()
    told = {line.strip().partition(":")[0] for line in lines if line.startswith("    ")}
    assert {one.name for one in fields(arguments)} <= told
    assert len(documented(arguments)) == len(fields(arguments))


def test_loading_shows_every_argument() -> None:
    parameters = inspect.signature(StableDiffusionPipeline.from_pretrained).parameters
    assert list(parameters) == [one.name for one in fields(Loading)]
    assert [name for name, one in parameters.items() if one.kind is not inspect.Parameter.KEYWORD_ONLY] == [
        "model"
    ]


def test_an_argument_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="steps"):
        StableDiffusionPipeline.from_pretrained("shapes", steps=3)  # type: ignore[call-arg]


def test_rows_hold_together() -> None:
    names = [row.name for row in (*TABLE, *FACTS)]
    assert len(set(names)) == len(names)
    spelt = [name for row in TABLE for name in row.names]
    assert len(set(spelt)) == len(spelt)
    options = [one for row in TABLE if row.option for one in row.option.spellings]
    assert len(set(options)) == len(options)
    for row in TABLE:
        assert row.group in GROUPS
        assert set(row.only_with) <= set(names)
        assert row.option is None or row.kind is not None


def test_bounds_are_checked_by_the_table() -> None:
    for row in settings_of(Request):
        if row.bounds is None or row.max_items is not None:
            continue
        for value in (row.bounds[0] - 1, row.bounds[1] + 1, "1", True, float("nan")):
            with pytest.raises(RequestError, match=f"{row.name} is .*: expected a "):
                Request(prompt="a", **{row.name: value})
