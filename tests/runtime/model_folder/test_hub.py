"""Downloads from a local server that speaks the part of the hub's protocol that huggingface_hub needs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sdrt import ModelNotFoundError
from sdrt.model_folder.hub import check_id, hub_errors
from tests.runtime.model_folder.hub_server import ADDED, COMMIT, CONFIGS, WEIGHTS, ask


def files(folder: str) -> set[str]:
    root = Path(folder.strip())
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_torch_checkpoint_comes_without_its_weights(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/both')")
    assert files(done.stdout) == set(CONFIGS), done.stderr
    assert Path(done.stdout.strip()).name == COMMIT


def test_an_exported_model_comes_whole(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/onnx')")
    assert files(done.stdout) == {*CONFIGS, "unet/model.onnx", "unet/model.onnx_data", "sdrt.json"}, (
        done.stderr
    )


def test_an_exported_model_comes_with_its_adapters(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/added')")
    whole = {*CONFIGS, "unet/model.onnx", "unet/model.onnx_data", "sdrt.json", *ADDED}
    assert files(done.stdout) == whole, done.stderr


def test_weights_in_full_precision_are_preferred(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/both')")
    assert files(done.stdout) == {*CONFIGS, *WEIGHTS}, done.stderr


@pytest.mark.parametrize("name", ["both", "half", "checked"])
def test_a_safety_checker_that_is_not_wanted_stays_on_the_hub(name: str, hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, f"download('owner/{name}', safety_checker=False)")
    more = ask(hub, tmp_path, f"download_checkpoint('owner/{name}', safety_checker=False)")
    found = files(done.stdout) | files(more.stdout)
    assert "unet/config.json" in found, done.stderr + more.stderr
    assert [one for one in found if one.startswith("safety_checker") and not one.endswith(".json")] == []


def test_half_precision_where_there_is_nothing_else(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/half')")
    assert files(done.stdout) == {*CONFIGS, *(name.replace(".safe", ".fp16.safe") for name in WEIGHTS)}, (
        done.stderr
    )


def test_bfloat16_where_there_is_nothing_else(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download_checkpoint('owner/bf16')")
    assert files(done.stdout) == {*CONFIGS, *(name.replace(".safe", ".bf16.safe") for name in WEIGHTS)}, (
        done.stderr
    )


def test_weights_that_a_graph_names_come_too(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/legacy')")
    assert files(done.stdout) == {"model_index.json", "unet/model.onnx", "unet/weights.pb"}, done.stderr


def test_a_graph_cannot_ask_for_every_file(hub: str, tmp_path: Path) -> None:
    """The name of a file is no pattern."""
    done = ask(hub, tmp_path, "download('owner/stars')")
    assert files(done.stdout) == {"model_index.json", "unet/model.onnx"}, done.stderr


def test_downloaded_models_are_used_offline(hub: str, tmp_path: Path) -> None:
    first = ask(hub, tmp_path, f"download('owner/onnx', revision='{COMMIT}')")
    again = ask(
        "http://127.0.0.1:1", tmp_path, f"download('owner/onnx', revision='{COMMIT}')", HF_HUB_OFFLINE="1"
    )
    assert again.stdout == first.stdout != ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("download('owner/missing')", "no folder and no hub model 'owner/missing': check the spelling"),
        ("download('owner/gated')", "gated: accept its terms"),
        ("download('owner/both', revision='nope')", "has no revision 'nope'"),
    ],
)
def test_errors_of_the_hub_name_the_remedy(hub: str, tmp_path: Path, call: str, words: str) -> None:
    done = ask(hub, tmp_path, call)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_offline_and_not_in_the_cache(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/both')", HF_HUB_OFFLINE="1")
    assert "not in the cache" in done.stderr


def test_a_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    done = ask("http://127.0.0.1:1", tmp_path, "download('owner/both')")
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stderr


@pytest.mark.parametrize("name", ["model", "a/b/c", "owner/näme", "../etc", "", "x" * 5000])
def test_names_that_are_not_hub_ids(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a folder"):
        check_id(name)


@pytest.mark.parametrize(
    "name", ["nope.ckpt", "models/nope.pt", "./nope.safetensors", "nope.GGUF", "~x/nope.bin"]
)
def test_a_missing_file_is_no_misspelt_hub_id(name: str) -> None:
    for given in (name, Path(name)):
        with pytest.raises(ModelNotFoundError) as caught:
            check_id(given)
        assert str(caught.value).startswith(f"there is no file {given}: check the path")


def test_checkpoints_go_to_the_given_cache(hub: str, tmp_path: Path) -> None:
    done = ask(
        hub, tmp_path / "home", f"download_checkpoint('owner/both', cache_dir={str(tmp_path / 'mine')!r})"
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "mine"), done.stderr


def test_an_interrupted_download_says_try_again(hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, "download('owner/cut')")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "hub model 'owner/cut' could not be downloaded (" in last
    assert last.endswith("): try again")


def test_a_cache_that_cannot_be_written_is_named(hub: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    done = ask(hub, tmp_path / "home", f"download('owner/onnx', cache_dir={str(tmp_path / 'cache')!r})")
    last = done.stderr.strip().splitlines()[-1]
    assert "hub model 'owner/onnx' could not be saved (" in last
    assert str(tmp_path / "cache") in last
    assert last.endswith("make room there, or set HF_HOME to a folder that you can write to")


def test_a_full_disk_is_no_reason_to_try_again() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/blob")
    with (
        pytest.raises(ModelNotFoundError, match=r"could not be saved \(No space left on device") as caught,
        hub_errors("owner/name", None),
    ):
        raise full
    assert "try again" not in str(caught.value)


def test_memory_that_runs_out_while_downloading_is_no_missing_model() -> None:
    with pytest.raises(MemoryError), hub_errors("owner/name", None):
        raise MemoryError
