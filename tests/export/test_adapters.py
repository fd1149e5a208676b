"""Adapters on exported models and on checkpoints: their weights are those of a checkpoint that was changed before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.adaptation import Adaptation, Weighted
from sdrt.adapters.change import Adapter
from sdrt.adapters.lora.changes import Added as LoraAdded
from sdrt.adapters.lora.reader import open_adapter
from sdrt.adapters.stored_weights import StoredWeights
from sdrt.common.safetensors_file import read_header, read_tensor
from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.model_folder.arranged import stored_weights
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.graph_kind import WHOLE_GRAPH
from sdrt_export import export_model, open_direct
from sdrt_export.graphs.stored import StoredGraph
from tests.adapters import noise_adapter, write_lora
from tests.made_once import MadeOnce
from tests.safetensors_files import save_file

PARTS = {"text_encoder": "model.safetensors", "unet": "diffusion_pytorch_model.safetensors"}
WEIGHT = 0.75
Rewritten = Callable[[str, np.ndarray], np.ndarray]


def rewritten(source: Path, folder: Path, change: Mapping[str, Rewritten]) -> None:
    """Copy a checkpoint with other tensors. `change` gives them by part, from the name and the tensor."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    for part, file in PARTS.items():
        header = read_header(source / part / file)
        tensors = {name: read_tensor(header, name) for name in header.tensors}
        save_file({name: change[part](name, array) for name, array in tensors.items()}, folder / part / file)


@pytest.fixture(scope="module")
def halves(checkpoint: Callable[[str], Path], made_once: MadeOnce) -> Path:
    """The checkpoint sd1 with numbers that float16 holds exactly, so that rounding twice is no excuse."""

    def rounded(name: str, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16).astype(np.float32) if array.dtype == np.float32 else array

    return made_once(
        "checkpoint/sd1-halves",
        lambda folder: rewritten(checkpoint("sd1"), folder, dict.fromkeys(PARTS, rounded)),
    )


@pytest.fixture(scope="module")
def adapter(halves: Path) -> Adapter:
    """Changes every parameter of the U-Net and the text encoder."""
    model = open_direct(halves, path=halves, target="cpu", name="sd1")
    return noise_adapter({part: model.parameters(part) for part in PARTS})


@pytest.fixture(scope="module")
def changed(halves: Path, adapter: Adapter, made_once: MadeOnce) -> Path:
    """The checkpoint with the adapter's changes."""

    def change(part: str) -> Rewritten:
        def of(name: str, array: np.ndarray) -> np.ndarray:
            own = adapter.changes[part].get(name)
            return array if own is None else array + own.delta(array, WEIGHT)

        return of

    return made_once(
        "checkpoint/sd1-changed",
        lambda folder: rewritten(halves, folder, {part: change(part) for part in PARTS}),
    )


@pytest.fixture(scope="module")
def exports(halves: Path, changed: Path, made_once: MadeOnce) -> Callable[[str, str], tuple[Path, Path]]:
    """The exports of both checkpoints."""

    def export(source: Path, target: str, dtype: str, folder: Path) -> None:
        export_model(source, folder / "model", target=target, dtype=dtype)

    def get(target: str, dtype: str) -> tuple[Path, Path]:
        base, other = (
            made_once(
                f"{source.name}/{target}-{dtype}",
                lambda folder, one=source: export(one, target, dtype, folder),
            )
            for source in (halves, changed)
        )
        return base / "model", other / "model"

    return get


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        ("cpu", "fp32"),
        ("cpu", "fp16"),
        ("portable", "fp32"),
        ("portable", "fp16"),
        ("cuda", "fp32"),
        ("cuda", "fp16"),
    ],
)
def test_stored_weights_are_those_of_a_changed_checkpoint(
    exports: Callable[[str, str], tuple[Path, Path]], adapter: Adapter, target: str, dtype: str, name: str
) -> None:
    base, other = map(ModelFolder.open, exports(target, dtype))
    adaptation = Adaptation((Weighted(adapter=adapter, weights=dict.fromkeys(PARTS, WEIGHT)),))
    source = base.adapted(adaptation).graph(name)
    assert source is not None
    assert source.build is not None
    values, expected = source.build().values, StoredGraph.read(other.component(name))
    weights = {key for key in expected.initializers if expected.place(key) is not None}
    assert values.keys() == weights
    for key, value in values.items():
        assert value.dtype == expected.dtype(key), key
        np.testing.assert_array_equal(value, expected.array(key), err_msg=key)


@pytest.mark.parametrize("target", ["cpu", "portable", "cuda"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_products_that_are_added_in_the_graph_s_layout_are_those_of_the_parameters(
    exports: Callable[[str, str], tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    target: str,
    dtype: str,
) -> None:
    """Two LoRAs on every kind of weight, also packed ones of which only one part changes."""
    folder = ModelFolder.open(exports(target, dtype)[0])
    shapes = {part: folder.parameters(part) for part in PARTS}
    only = {
        "unet": {name: one for name, one in shapes["unet"].items() if "to_k" in name or "conv" in name},
        "text_encoder": {name: one for name, one in shapes["text_encoder"].items() if "v_proj" in name},
    }
    files = [
        write_lora(tmp_path / f"{number}.safetensors", own, seed=number, scale=0.1)
        for number, own in enumerate([shapes, only, only])
    ]
    opened = [open_adapter(file, family=folder.family, shapes=shapes) for file in files]

    def values(*names: int) -> list[Mapping[str, np.ndarray]]:
        weights = (0.75, -0.5, 1.5)
        parts = [Weighted(adapter=opened[one], weights=dict.fromkeys(PARTS, weights[one])) for one in names]
        sources = [folder.adapted(Adaptation(tuple(parts))).graph(part) for part in PARTS]
        assert all(source is not None and source.build is not None for source in sources)
        return [source.build().values for source in sources]  # type: ignore[union-attr, misc]

    added = values(0, 1) + values(2)
    with monkeypatch.context() as patch:
        patch.setattr(LoraAdded, "as_factors", lambda self, weight: None)
        expected = values(0, 1) + values(2)
    # The products are summed in another order, and rounded to the type of the graph.
    close = {"fp32": 1e-6, "fp16": 1e-3}[dtype]
    for mine, theirs in zip(added, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value.dtype == theirs[name].dtype
            np.testing.assert_allclose(value, theirs[name], rtol=close, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("target", ["cpu", "portable", "cuda"])
def test_an_export_has_the_parameters_of_its_checkpoint(
    exports: Callable[[str, str], tuple[Path, Path]], halves: Path, target: str, name: str
) -> None:
    folder = ModelFolder.open(exports(target, "fp16")[0])
    direct = open_direct(halves, path=halves, target=target, name="sd1")
    assert dict(folder.parameters(name)) == dict(direct.parameters(name))


def test_the_graph_in_float32_changes_too(
    exports: Callable[[str, str], tuple[Path, Path]], adapter: Adapter
) -> None:
    folder = ModelFolder.open(exports("portable", "fp16")[0])
    adapted = folder.adapted(Adaptation((Weighted(adapter=adapter),)))
    half, wide = (adapted.graph("unet", kind) for kind in (WHOLE_GRAPH, WHOLE_GRAPH.widened))
    assert half is not None
    assert half.build is not None
    assert wide is not None
    assert wide.build is not None
    narrow, other = half.build().values, wide.build().values
    assert narrow.keys() == other.keys()
    assert all(np.array_equal(narrow[name], other[name]) for name in narrow)


def test_only_weights_that_change_are_held(
    exports: Callable[[str, str], tuple[Path, Path]], adapter: Adapter
) -> None:
    name = next(one for one in adapter.changes["unet"] if one.endswith("attn1.to_k.weight"))
    some = Adapter(name="some", path=Path("some"), changes={"unet": {name: adapter.changes["unet"][name]}})
    adaptation = Adaptation((Weighted(adapter=some),))
    for target, stored in (("cpu", name), ("cuda", name.replace("to_k", "to_qkv"))):
        folder = ModelFolder.open(exports(target, "fp16")[0]).adapted(adaptation)
        source = folder.graph("unet")
        assert source is not None
        assert source.build is not None
        assert list(source.build().values) == [stored]
        text = folder.graph("text_encoder")
        assert text is not None
        assert text.build is None


def test_an_export_that_does_not_say_how_it_packs_is_refused(
    exports: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """The exports before adapters. Those for the CPU say enough."""
    for target in ("cpu", "cuda"):
        folder = tmp_path / target
        shutil.copytree(exports(target, "fp32")[0], folder)
        manifest = json.loads((folder / "sdrt.json").read_text())
        for entry in manifest["components"].values():
            entry.pop("arranged")
        (folder / "sdrt.json").write_text(json.dumps(manifest))
    assert ModelFolder.open(tmp_path / "cpu").parameters("unet")
    with pytest.raises(UnsupportedModelError, match=r"older sdrt exported it.*export the checkpoint again"):
        ModelFolder.open(tmp_path / "cuda").parameters("unet")


@pytest.mark.parametrize(
    "entry",
    [
        {"as": "by head", "heads": 3, "of": ["a", "b", "c"]},
        {"as": "by head", "heads": -1, "of": ["a", "b", "c"]},
        {"as": "by head", "of": ["a", "b", "c"]},
        {"as": "another", "of": ["a"]},
        {"as": "channels last", "zeros": 9, "of": ["a"]},
        {"as": "by head", "heads": 2, "of": []},
        {"as": "by head", "heads": 2, "of": [1, 2, 3]},
        {"as": "by head", "heads": 2, "of": 3},
        {},
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_damaged(
    exports: Callable[[str, str], tuple[Path, Path]], entry: dict[str, Any]
) -> None:
    folder = ModelFolder.open(exports("cuda", "fp32")[0])
    assert folder.manifest is not None
    known = stored_weights(folder.component("unet"), "unet", folder.manifest)
    name = next(one for one in known.arranged if one.endswith("to_qkv.weight"))
    wrong = StoredWeights(
        path=known.path,
        component="unet",
        transposed=known.transposed,
        arranged={**known.arranged, name: entry},
    )
    with pytest.raises(IntegrityError, match="copy or export the model again"):
        wrong.shapes  # noqa: B018


def test_models_whose_weights_are_not_the_checkpoint_s_are_refused_by_name(
    exports: Callable[[str, str], tuple[Path, Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "int8"
    shutil.copytree(exports("cpu", "fp32")[0], folder)
    manifest = json.loads((folder / "sdrt.json").read_text())
    (folder / "sdrt.json").write_text(json.dumps(manifest | {"dtype": "int8"}))
    with pytest.raises(UnsupportedModelError, match="int8; export the checkpoint with --dtype fp32 or fp16"):
        ModelFolder.open(folder).parameters("unet")
    (folder / "sdrt.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"sdrt did not export it.*sdrt export"):
        ModelFolder.open(folder).parameters("unet")
