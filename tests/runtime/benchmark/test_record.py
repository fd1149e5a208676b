"""Records of benchmarks: what is refused, and what two of them have in common."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from sdrt import RequestError
from sdrt.benchmark.compare import compare
from sdrt.benchmark.configurations import Rules
from sdrt.benchmark.record import new_record, read_record
from sdrt.benchmark.summary import summarise, warnings_of
from sdrt.model_folder.folder import ModelFolder


def generation(steps: list[float]) -> dict[str, Any]:
    parts = {"guidance": 0.01, "scheduler": 0.005, "transfers": 0.001}
    made = [{"wall": wall, "unet": wall - 0.016, **parts} for wall in steps]
    return {"total": sum(steps) + 1, "text_encoder": 0.1, "vae_decoder": 0.8, "steps": made}


def measurement(speed: float = 1.0, seed: int = 0, **settings: Any) -> dict[str, Any]:
    source = random.Random(seed)
    generations = [
        generation([0.5 * speed, *(speed * source.gauss(0.2, 0.002) for _ in range(9))]) for _ in range(4)
    ]
    usual = {"width": 64, "height": 64, "batch": 1, "steps": 10, "guidance_scale": 7.5}
    usual |= {"provider": "cpu", "threads": None, "scheduler": "euler", "spacing": "leading"}
    return {
        "settings": usual | settings,
        "load": 1.0,
        "first_generation": generation([1.0, 0.3]),
        "generations": generations,
        "first_pictures": [3.0, 3.1, 3.2],
        "other_programs": 0.0,
        "placement": {},
    }


@pytest.fixture
def record(tiny_model: Path) -> dict[str, Any]:
    made = new_record(["benchmark"], ModelFolder.open(tiny_model), Rules())
    return made | {"measurements": [measurement()], "complete": True}


def of(record: dict[str, Any], *measurements: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(record) | {"measurements": list(measurements)}


def test_a_record_says_what_to_repeat(record: dict[str, Any], tiny_model: Path) -> None:
    assert record["model"]["dtype"] == "float32"
    assert len(record["model"]["manifest_sha256"]) == 64
    assert record["machine"]["versions"]["numpy"]
    assert record["machine"]["logical_cores"] >= 1
    json.dumps(record, allow_nan=False)


def test_a_record_is_read_back(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record))
    assert read_record(path) == record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a benchmark record"),
        ('{"version": "0.1.0"}', "is not a benchmark record"),
        (
            '{"format": "sdrt-benchmark", "format_version": 2}',
            "format version 2, and this sdrt reads versions up to 1",
        ),
        ('{"format": "sdrt-benchmark", "format_version": "1"}', "format version '1'"),
        ('{"format": "sdrt-benchmark", "format_version": 1}', "it lacks 'model'"),
    ],
)
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(RequestError, match=rf"other\.json .*{message}"):
        read_record(path)
    with pytest.raises(RequestError, match="cannot be read"):
        read_record(tmp_path / "none.json")


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything that reading relies on."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(found for key, one in inside for found in paths(one, (*at, key)))]


def is_refused(path: Path, other: dict[str, Any]) -> bool:
    """Any other failure than an error that names the file is the test's."""
    try:
        compare(read_record(path), other)
    except RequestError as error:
        if path.name not in str(error):
            raise
        return True
    return False


def test_a_record_with_anything_replaced_is_read_or_refused(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    record["measurements"][0]["generations"] = [generation([0.5, 0.2])]
    refused = 0
    for at in paths({key: record[key] for key in ("model", "rules", "measurements", "machine")})[1:]:
        for instead in (None, "x", -1, []):
            damaged = copy.deepcopy(record)
            place = damaged
            for key in at[:-1]:
                place = place[key]
            place[at[-1]] = instead
            path.write_text(json.dumps(damaged))
            refused += is_refused(path, record)
    assert refused > 50


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -5, 10**400, True])
def test_seconds_that_nothing_takes_are_damage(record: dict[str, Any], tmp_path: Path, number: Any) -> None:
    path = tmp_path / "damaged.json"
    record["measurements"][0]["load"] = number
    path.write_text(json.dumps(record))
    with pytest.raises(RequestError, match=r"damaged\.json is damaged: it has .* expected"):
        read_record(path)


def test_twice_as_slow_is_a_ratio_of_two(record: dict[str, Any]) -> None:
    found = compare(of(record, measurement()), of(record, measurement(speed=2, seed=1)))
    (pair,) = found.pairs
    step = pair.ratios["step"]
    assert step.value == pytest.approx(2, rel=0.02)
    assert step.interval is not None
    assert 1.9 < step.interval.low < 2 < step.interval.high < 2.1
    assert pair.ratios["load"].interval is None
    assert found.differences == ()
    assert found.without_partner == ((), ())


def test_the_same_sizes_on_two_providers_are_partners(record: dict[str, Any]) -> None:
    ours = of(record, measurement(batch=1), measurement(batch=2))
    theirs = of(record, measurement(batch=2, provider="cuda"), measurement(batch=4, provider="cuda"))
    found = compare(ours, theirs)
    assert [pair.settings["batch"] for pair in found.pairs] == [2]
    assert found.differences == (("provider", "cpu", "cuda"),)
    assert [one["batch"] for one in found.without_partner[0]] == [1]
    assert [one["batch"] for one in found.without_partner[1]] == [4]


@pytest.mark.parametrize("name", ["width", "height", "batch", "guidance_scale"])
def test_other_work_is_never_compared(record: dict[str, Any], name: str) -> None:
    found = compare(of(record, measurement()), of(record, measurement(**{name: 128})))
    assert found.pairs == ()
    assert [len(alone) for alone in found.without_partner] == [1, 1]


def test_other_machines_and_models_are_told(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["machine"] |= {"cpu": "another", "versions": {**record["machine"]["versions"], "numpy": "1.0"}}
    other["model"]["dtype"] = "float16"
    told = {name: now for name, _, now in compare(record, other).differences}
    assert told == {"machine cpu": "another", "numpy": "1.0", "model dtype": "float16"}


def test_the_first_step_is_apart() -> None:
    found = summarise(measurement(), 0.95)
    assert found["step"]["count"] == 36
    assert found["step"]["max"] < 0.25
    assert found["first_step"]["p50"] == 0.5
    assert found["step"]["p99"] is None
    assert sum(found["parts"].values()) == pytest.approx(found["step"]["p50"], rel=0.01)


def test_a_busy_machine_and_a_drifting_clock_are_warned_of() -> None:
    assert warnings_of(measurement()) == []
    busy = measurement() | {"other_programs": 0.4}
    assert "other programs used 40% of the processors" in warnings_of(busy)[0]
    slowing = measurement() | {"generations": [generation([0.2 + n / 100 for n in range(30)])]}
    assert "steps resemble those before them" in warnings_of(slowing)[0]


def test_a_hot_gpu_and_overflows_are_warned_of() -> None:
    states = [{"cpu_mhz": [], "gpus": [{"sm_mhz": mhz}, {"celsius": 60}]} for mhz in (1980, 1950)]
    assert warnings_of(measurement() | {"clocks": {"during": states}}) == []
    states.append({"cpu_mhz": [], "gpus": [{"sm_mhz": 1400}, {}]})
    assert warnings_of(measurement() | {"clocks": {"during": states}}) == [
        "the clock of GPU 0 varied between 1400 and 1980 MHz"
    ]
    (told,) = warnings_of(measurement() | {"rescues": {"unet": 3}})
    assert told.endswith("repeated in float32, which takes longer: 3 of unet")
