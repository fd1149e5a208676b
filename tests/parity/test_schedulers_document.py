"""`docs/schedulers.md` says what there is, and errors no smaller than those measured."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from tools.write_schedulers import BEGIN, END, OUTPUT, measured, table

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.algorithm_types.dpmsolver:FutureWarning"),
]


# Of float32 over 50 steps, which processors do not do alike: 3e-7 of SA-Solver on one are 7e-7 on another.
_ROUNDING = 1e-6


@pytest.mark.full
def test_it_says_what_is_measured() -> None:
    written = OUTPUT.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    found = table(measured()).splitlines()[1:-1]
    assert [_without_error(line) for line in written] == [_without_error(line) for line in found]
    for before, now in zip(written[2:], found[2:], strict=True):
        assert _error(now) <= max(2 * _error(before), _ROUNDING), before
    # Rules that neither diffusers nor k-diffusion has are compared in tests/runtime/schedulers/test_accuracy.py.
    unmeasured = [line.split("`")[1] for line in written[2:] if line.endswith("| – |")]
    assert unmeasured == ["restart", "ddim_cfgpp"]


def _without_error(line: str) -> str:
    return line.rsplit("|", 2)[0]


def _error(line: str) -> float:
    cell = line.rsplit("|", 2)[1].strip()
    return 0.0 if cell == "–" else float(cell)
