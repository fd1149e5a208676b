"""Single files on the hub: how they are named, and that they come alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import ModelNotFoundError, RequestError
from sdrt.model_folder.hub_file import HubFile, download_file, hub_file
from tests.runtime.model_folder.hub_server import COMMIT, ask

HUB_URL = "https://huggingface.co/owner/single"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("owner/single/model.safetensors", ("model.safetensors", None)),
        ("owner/single/sub/model.ckpt", ("sub/model.ckpt", None)),
        (f"{HUB_URL}/blob/main/model.safetensors", ("model.safetensors", "main")),
        (f"{HUB_URL}/resolve/main/model.safetensors?download=true", ("model.safetensors", "main")),
        (f"{HUB_URL}/resolve/refs%2Fpr%2F3/a%20b/m.safetensors", ("a b/m.safetensors", "refs/pr/3")),
        (f"{HUB_URL}/model.safetensors", ("model.safetensors", None)),
        ("huggingface.co/owner/single/blob/main/model.safetensors", ("model.safetensors", "main")),
        ("https://hf.co/owner/single/blob/v1/model.safetensors", ("model.safetensors", "v1")),
    ],
)
def test_files_on_the_hub(given: str, expected: tuple[str, str | None]) -> None:
    assert hub_file(given) == HubFile(name="owner/single", file=expected[0], revision=expected[1])


@pytest.mark.parametrize(
    "given",
    [
        "owner/name",
        "model.safetensors",
        "./owner/name/model.safetensors",
        "/a/b/c.safetensors",
        "a/../b/c.ckpt",
        "",
    ],
)
def test_what_is_no_file_on_the_hub(given: str) -> None:
    assert hub_file(given) is None
    assert hub_file(Path("owner/name/model.safetensors")) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://civitai.com/api/download/models/1", "not an address on the hub"),
        ("https://huggingface.co/owner/name", "no file on the hub"),
        ("https://huggingface.co/owner/name/tree/main", "no file on the hub"),
        ("https://huggingface.co/owner/name/blob/main/../../x.safetensors", "no file on the hub"),
    ],
)
def test_addresses_of_something_else(given: str, words: str) -> None:
    with pytest.raises(ModelNotFoundError, match=words):
        hub_file(given)


@pytest.mark.parametrize("name", ["model.safetensors", "sub folder/v1.5-pruned.safetensors"])
def test_a_single_file_comes_alone_with_its_commit(name: str, hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile(name='owner/single', file='{name}'))[0]")
    path = Path(done.stdout.strip())
    assert path.read_text() == name.replace(" ", "%20"), done.stderr
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile(name='owner/single', file='{name}'))[1]")
    assert done.stdout.strip() == COMMIT
    assert {file.name for file in path.parent.iterdir()} == {path.name}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("name='owner/single', file='x.safetensors'", "has no file 'x.safetensors': see https://"),
        ("name='owner/missing', file='x.safetensors'", "no file and no hub model 'owner/missing'"),
        ("name='owner/gated', file='x.safetensors'", "gated: accept its terms"),
        ("name='owner/single', file='model.ckpt'", "is a pickle"),
    ],
)
def test_errors_about_a_single_file(file: str, words: str, hub: str, tmp_path: Path) -> None:
    done = ask(hub, tmp_path, f"f.download_file(f.HubFile({file}))")
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_revisions_are_refused() -> None:
    with pytest.raises(RequestError, match="leave one of them out"):
        download_file(HubFile(name="a/b", file="c.safetensors", revision="main"), revision="other")
