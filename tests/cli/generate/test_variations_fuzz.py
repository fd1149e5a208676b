"""Prompt files, wildcards and metadata, made up by hypothesis: an image, or one line of an error."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image

from sdrt import RequestError
from sdrt.cli.generate.from_metadata import options_of
from sdrt.cli.generate.variations import read_prompts_file
from sdrt.images.metadata import Parameters, save_options
from sdrt.prompts.wildcard_files import WildcardFiles
from sdrt.prompts.wildcards import expand, expand_wildcards
from sdrt.request.table import labelled_settings

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.usefixtures("folder")

LABELS = sorted({row.label.name for row in labelled_settings() if row.label})
OURS = {"Steps": "2", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "64x64", "RNG": "CPU"}


def image_that_says(settings: dict[str, str]) -> str:
    text = str(Parameters(prompt="a cat", settings=settings))
    Image.new("RGB", (8, 8)).save("said.png", **save_options("PNG", text))
    return "said.png"


@settings(deadline=None)
@given(text=st.text())
def test_any_file_gives_prompts_or_a_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("prompts") / "p.txt"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    # Anything else that is raised fails.
    with suppress(RequestError):
        assert all(entry.prompt for entry in read_prompts_file(str(path)))


@settings(deadline=None)
@given(prompt=st.text(alphabet="{}|ab", max_size=60), seed=st.integers(0, 2**64))
def test_wildcards_end_and_leave_no_choice_open(prompt: str, seed: int) -> None:
    text = expand_wildcards(prompt, seed)
    assert not re.search(r"\{[^{}]*\|[^{}]*\}", text)
    assert len(text) <= len(prompt)


wildcard_pieces = st.sampled_from(
    [*"{}|ab -$%@!~ ", "$$", "2$$", "1-2$$", " and $$", "0.5::", "0::", "__a__", "__", "${a}", "\n", "é"]
)


@settings(deadline=None)
@given(
    prompt=st.lists(wildcard_pieces, max_size=40).map("".join) | st.text(max_size=200),
    seed=st.integers(0, 2**64),
)
def test_any_text_has_choices_or_a_line(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "wildcards"
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("{b|c}\n__a__ d\n{2$$x|y}\n")
    with suppress(RequestError):  # anything else that is raised fails
        found = expand(prompt, seed, WildcardFiles(folder))
        assert found == expand(prompt, seed, WildcardFiles(folder))
        assert all(one in found.text for one in found.choices)


@settings(deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from([*OURS, *LABELS]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
        | st.sampled_from(["inf", "nan", "1e999", "-1", "9" * 400, "1,2", ","]),
    )
)
def test_any_metadata_is_settings_or_a_line(changes: dict[str, Any]) -> None:
    with suppress(RequestError):  # anything else that is raised fails
        options_of(image_that_says(OURS | changes), {"image", "mask_image", "model"})
