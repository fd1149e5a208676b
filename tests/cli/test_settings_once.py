"""A setting is written once: a row that is added to the table is everywhere, and no other file changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sdrt

ROOT = Path(__file__).parents[2]
ROW = """
    sharpness: float = setting(
        0.5,
        "How sharp, instead of {num_inference_steps}.",
        kind=float,
        bounds=(0.0, 2.0),
        group=Group.SAMPLING,
        option=Option(("--sharpness", "--sharp"), metavar="SHARE"),
        label=Label("Sharpness"),
    )
"""
BEFORE = "    eta: float = setting("

PROGRAM = """
import inspect, json, sys
from pathlib import Path

from click.testing import CliRunner

from sdrt import Request, RequestError, StableDiffusionPipeline, read_metadata
from sdrt.cli import main
from tools.write_arguments import tables

model, said = sys.argv[1], {}


def run(*arguments):
    options = ("-m", model, "--provider", "cpu", "--threads", "1", "-W", "64", "-H", "64", "-s", "1", "--quiet")
    result = CliRunner().invoke(main, [*arguments, *(options if "--help" not in arguments else ())])
    assert result.exit_code == 0, result.output
    return result.stdout


said["help"] = [" ".join(run(command, "--help").split()) for command in ("generate", "plot")]

run("generate", "a cat", "--steps", "1", "--sharpness", "0.25", "-o", "option.png")
run("generate", "a cat", "--steps", "1", "-o", "usual.png")
Path("p.jsonl").write_text('{"prompt": "a cat", "sharp": 1}')
report = run("generate", "--prompts-file", "p.jsonl", "--steps", "1", "-o", "file.png", "--json")
run("generate", "--from", "option.png", "-o", "again.png")
sheet = run("plot", "a cat", "--steps", "1", "-x", "sharpness=0.5,1.5", "-o", "plot.png", "--json")

names = ("option", "usual", "file", "again", "plot")
said["metadata"] = {name: read_metadata(f"{name}.png").settings.get("Sharpness") for name in names}
said["settings"] = json.loads(report)["settings"]["sharpness"]
said["axis"] = json.loads(sheet)["own_settings"]

pipeline = StableDiffusionPipeline.from_pretrained(model, provider="cpu", threads=1)
made = pipeline("a cat", 64, 64, 1, sharpness=2)
said["request"], said["called"] = made.request.sharpness, made.metadata(0).settings["Sharpness"]
try:
    Request(prompt="a cat", sharpness=3)
except RequestError as error:
    said["refused"] = str(error)
said["parameter"] = str(inspect.signature(StableDiffusionPipeline.__call__).parameters["sharpness"])
said["docstrings"] = [" ".join(one.__doc__.split()) for one in (Request, StableDiffusionPipeline.__call__)]
said["document"] = tables()["calling"]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one row more in its table."""
    root = tmp_path_factory.mktemp("changed")
    shutil.copytree(Path(sdrt.__file__).parent, root / "sdrt", ignore=shutil.ignore_patterns("__pycache__"))
    table = root / "sdrt" / "request" / "settings.py"
    text = table.read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    table.write_text(text.replace(BEFORE, ROW.lstrip("\n") + BEFORE), encoding="utf-8")
    return root


def test_a_row_of_the_table_is_a_setting_everywhere(changed: Path, tmp_path: Path, model: str) -> None:
    paths = [str(changed), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for text in said["help"]:
        sampling = text[text.index("Sampling:") : text.index("Provider, threads and memory:")]
        assert "--sharpness, --sharp SHARE How sharp, instead of --steps. [default: 0.5]" in sampling
    assert said["metadata"] == {
        "option": "0.25",
        "usual": None,
        "file": "1.0",
        "again": "0.25",
        "plot": None,
    }
    assert said["settings"] == 1
    assert said["axis"] == [{}, {"sharpness": 1.5}]
    assert (said["request"], said["called"]) == (2.0, "2.0")
    assert said["refused"] == "sharpness is 3: expected a number from 0 to 2"
    assert said["parameter"] == "sharpness: 'float' = 0.5"
    for text in said["docstrings"]:
        assert "sharpness: How sharp, instead of num_inference_steps." in text
    assert "| `sharpness` | `0.5` | How sharp, instead of num_inference_steps. |" in said["document"]
