"""`sdrt models --architectures`: names, sizes, quick and without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from sdrt.cli import main

pytest.importorskip("onnx")


def listed(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["models", "--architectures", *arguments], prog_name="sdrt")
    assert result.exit_code == 0, result.output
    return result


def test_each_architecture_is_a_line_with_its_size() -> None:
    heading, *lines = listed().stdout.splitlines()
    assert heading.split("  ")[0] == "architecture"
    assert heading.split()[-2:] == ["fp32", "fp16"]
    by_name = {line.split()[0]: line for line in lines}
    assert by_name["sd15"].endswith("1,066.2 M   4.0 GB   2.0 GB")
    assert by_name["ssd-1b"].split()[-6:-4] == ["2,232.7", "M"]
    assert {"sd21-v", "sdxl-refiner", "bk-sdm-tiny", "lcm", "tiny-xl"} <= by_name.keys()


def test_json_has_the_parts_and_bytes() -> None:
    rows = {row["architecture"]: row for row in json.loads(listed("--json").stdout)["architectures"]}
    sdxl = rows["sdxl"]
    assert sdxl["parts"]["text_encoder_2"] == 694_659_840
    assert sdxl["parameters"] == sum(sdxl["parts"].values())
    assert sdxl["bytes"] == {"fp32": 4 * sdxl["parameters"], "fp16": 2 * sdxl["parameters"]}


def test_it_needs_no_torch_and_less_than_a_second_of_work() -> None:
    code = (
        "import sys, time; from sdrt.cli import main; main(['models', '--architectures'], standalone_mode=False); "
        "assert not {'torch', 'onnxruntime'} & sys.modules.keys(); assert time.process_time() < 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
