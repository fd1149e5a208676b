"""What strangers' files say never reaches the terminal raw, in any command: outputs, errors, notices and tracebacks."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt.cli import main
from sdrt.images.metadata import Parameters, save_options
from sdrt.model_folder.folder import ModelFolder
from tests.hostile import HOSTILE, assert_safe
from tests.runtime.benchmark.test_record import measurement
from tests.safetensors_files import save_file

pytestmark = pytest.mark.usefixtures("folder")
FAST = ("--steps", "1", "--seed", "3", "--threads", "1", "--provider", "cpu", "-W", "64", "-H", "64")
# A file name has no line ends here: HOSTILE's own characters suffice, and \r is one of them.
NAME = HOSTILE.replace("/", "")


def run(*arguments: str, given: str | None = None) -> Result:
    result = CliRunner().invoke(main, list(arguments), input=given, prog_name="sdrt")
    assert_safe(result.output, shows="")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def image(name: str, parameters: Parameters | str) -> str:
    Image.new("RGB", (64, 64)).save(name, **save_options("PNG", str(parameters)))
    return name


USUAL = {"Steps": "1", "Sampler": "Euler", "CFG scale": "3", "Seed": "3", "Size": "64x64", "RNG": "CPU"}


@pytest.mark.parametrize("arguments", [["info"], ["info", "--debug"]])
def test_info_of_an_image(arguments: list[str]) -> None:
    text = Parameters(
        prompt=f"a\n{HOSTILE}", negative_prompt=HOSTILE, settings=USUAL | {"Model": HOSTILE, HOSTILE: "1"}
    )
    shown = run(*arguments, image("a.png", text))
    assert shown.exit_code == 0
    assert_safe(shown.stdout)
    assert shown.stdout.startswith("a\n")


def test_json_is_data() -> None:
    name = image("a.png", Parameters(prompt=HOSTILE, settings=USUAL))
    shown = run("info", "--json", name)
    assert json.loads(shown.stdout)["prompt"] == HOSTILE


@pytest.mark.parametrize(
    "change",
    [
        {"Sampler": HOSTILE},
        {"Model": HOSTILE},
        {"RNG": HOSTILE},
        {"Size": HOSTILE},
        {"Seed": HOSTILE},
        {"Embeddings": HOSTILE},
        {"Scheduler config": HOSTILE},
        {"Schedule type": HOSTILE},
        {"Outpaint": HOSTILE, "Model": "shapes"},
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_from_an_image(change: dict[str, str], debug: bool) -> None:
    name = image("a.png", Parameters(prompt="a cat", settings=USUAL | change))
    refused = run("generate", "--from", name, "-o", "b.png", *(["--debug"] if debug else []))
    assert refused.exit_code != 0
    assert refused.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a", "' + HOSTILE.encode("unicode_escape").decode().replace("\\x", "\\u00") + '": 1}',
        '{"prompt": "a", "scheduler": ' + json.dumps(HOSTILE) + "}",
        '{"prompt": "a", "image": ' + json.dumps(HOSTILE) + "}",
        '{"prompt": "a", ' + HOSTILE,
        f"({HOSTILE}:1.5) and much more " + "word " * 90,
    ],
)
def test_prompts_files(line: str) -> None:
    Path("prompts.txt").write_text(line, encoding="utf-8")
    run("generate", "--prompts-file", "prompts.txt", "-o", "b.png", "--prompt-syntax", "plain", *FAST)
    Path("config.json").write_text(line, encoding="utf-8")
    run("generate", "a cat", "--scheduler", "config.json", "-o", "b.png", *FAST)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such file names")
def test_file_names() -> None:
    image(f"{NAME}.png", Parameters(prompt="a cat", settings=USUAL))
    assert run("info", f"{NAME}.png").exit_code == 0
    Path(NAME).write_text("hello")
    for arguments in (
        ["info", NAME],
        ["generate", "a", "-i", NAME, "-o", "b.png"],
        ["generate", "a", "-i", f"{NAME}.missing", "-o", "b.png"],
        ["generate", "--from", NAME],
        ["generate", "--prompts-file", f"{NAME}.missing"],
        ["generate", "a", "--embedding", NAME, "-o", "b.png", *FAST],
        ["generate", "a", "-m", NAME],
        ["generate", "a", "-o", f"{NAME}.gif"],
        ["benchmark", "--compare", NAME, NAME],
        ["doctor", "-m", NAME],
        [NAME],
        ["generate", "a", f"--{NAME}"],
    ):
        refused = run(*arguments)
        assert refused.exit_code != 0
        assert_safe(refused.output)


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all strings in a JSON value."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        yield from strings(value[0], (*path, 0)) if value else ()


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = HOSTILE
    return value


CONFIGS = ("model_index.json", "sdrt.json", "scheduler/scheduler_config.json", "unet/config.json")


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_a_model(tiny_model: Path, name: str) -> None:
    copy_of = Path(shutil.copytree(tiny_model, "model"))
    if name != "sdrt.json":
        (copy_of / "sdrt.json").unlink()
    content = json.loads((tiny_model / name).read_text(encoding="utf-8"))
    shown = []
    for number, path in enumerate(strings(content)):
        if "sha256" in path or "transposed" in path:
            continue
        (copy_of / name).write_text(json.dumps(changed(content, path)))
        shown += [run("info", "model").output, run("models").output]
        if number < 6:
            shown.append(run("generate", "a cat", "-m", "model", "-o", "b.png", "--force", *FAST).output)
    (copy_of / name).write_text(json.dumps(content | {HOSTILE: HOSTILE}))
    shown += [run("info", "model").output, run("doctor", "-m", "model").output]
    # Nothing says what the strings of the U-Net's config are.
    assert name == "unet/config.json" or any("[red]:cat:" in text for text in shown)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such file names")
def test_a_folder_s_name_and_its_parts(tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, NAME))
    (folder / "sdrt.json").unlink()
    (folder / NAME).mkdir()
    assert_safe(run("models").stdout)
    assert_safe(run("info", NAME).stdout)
    made = run("generate", "a cat", "-m", NAME, "-o", "b.png", *FAST)
    assert_safe(made.stderr)
    assert_safe(run("info", "b.png").stdout)
    manifest = Path(shutil.copytree(tiny_model, "other")) / "sdrt.json"
    manifest.write_text(manifest.read_text().replace('"unet/model.onnx"', json.dumps(HOSTILE)))
    assert_safe(run("info", "other", "--verify").stderr)


@pytest.mark.parametrize(("name", "width"), [(HOSTILE, 32), (HOSTILE, 16), (HOSTILE[:40] + "x", 32)])
def test_embeddings(model: str, name: str, width: int) -> None:
    save_file({name: np.zeros((1, width), np.float32)}, Path("a.safetensors"))
    assert_safe(
        run("generate", "a", "-m", model, "--embedding", "a.safetensors", "-o", "b.png", *FAST).stderr
    )


def test_records_of_benchmarks(tiny_model: Path) -> None:
    from sdrt.benchmark.configurations import Rules
    from sdrt.benchmark.record import new_record

    record = new_record(["benchmark"], ModelFolder.open(tiny_model), Rules()) | {"complete": True}
    Path("a.json").write_text(json.dumps(record | {"measurements": [measurement()]}))
    other = record | {"measurements": [measurement(scheduler=HOSTILE, spacing=f"{HOSTILE}\nforged")]}
    other["model"] = dict.fromkeys(record["model"], HOSTILE) | {HOSTILE: 1}
    other["machine"] = record["machine"] | {"cpu": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    Path("b.json").write_text(json.dumps(other))
    compared = run("benchmark", "--compare", "a.json", "b.json")
    assert compared.exit_code == 0
    assert_safe(compared.stdout)
    assert "\nforged" not in compared.stdout
    Path("c.json").write_text(json.dumps(record | {"measurements": [measurement() | {"settings": HOSTILE}]}))
    assert run("benchmark", "--compare", "a.json", "c.json").exit_code == 2


def test_answers_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any, **__: Any) -> str:
        raise ValueError(f"502 {HOSTILE}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    refused = run("generate", "a cat", "-m", "owner/name", "-o", "b.png")
    assert refused.exit_code == 3
    assert_safe(refused.stderr)
