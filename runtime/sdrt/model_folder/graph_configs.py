"""Derives a component's `config.json` from its graph.

diffusers' first converter to ONNX wrote no configs. Its pipelines take what is not in the graphs as given: images of
512x512 pixels, and a VAE whose latents are scaled by 0.18215.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdrt.errors import UnsupportedModelError
from sdrt.families import Family
from sdrt.onnx.graph_file import GraphFile, Node, read_graph
from sdrt.onnx.wiring import Wiring

__all__ = ["config_of_graph"]

_UPSAMPLES = ("Resize", "Upsample")


def config_of_graph(path: Path, family: Family) -> dict[str, Any]:
    """Return the config of the component whose graph is in the file `path`. The folder's name is the component's.

    Raises:
        IntegrityError: the file is not an ONNX file.
        UnsupportedModelError: the graph does not have the form of such a component.
    """
    name = path.parent.name
    graph = read_graph(path)
    reader = _ConfigReader(graph, name)
    if name == family.denoiser.component:
        return reader.denoiser(family)
    if name == family.vae.decoder:
        return reader.vae_decoder(family)
    if name == family.vae.encoder:
        return {}
    return reader.text_encoder()


class _ConfigReader:
    """Reads the configs of the kinds of components. `name` is the component's."""

    def __init__(self, graph: GraphFile, name: str) -> None:
        self._graph, self._name, self._wiring = graph, name, Wiring(graph)

    def denoiser(self, family: Family) -> dict[str, Any]:
        """The channels, the width of the embeddings, the number of levels, and the size if it is fixed."""
        spec = family.denoiser
        config: dict[str, Any] = {
            "in_channels": self._conv_after(spec.sample)[1],
            "out_channels": self._conv_before(spec.output)[0],
            spec.embeds_width: self._width(spec.embeds),
        }
        if spec.levels is not None:
            config[spec.levels] = self._levels()
        if spec.labels in self._graph.inputs:
            config["num_class_embeds"] = self._table(spec.labels)[0]
        size = self._graph.inputs[spec.sample][2:]
        if all(isinstance(side, int) for side in size):
            config["sample_size"] = list(size)
        return config

    def vae_decoder(self, family: Family) -> dict[str, Any]:
        """The number of channels of the latents, and of levels."""
        channels = self._conv_after(family.vae.latents)[1]
        return {"latent_channels": channels, "block_out_channels": self._levels()}

    def text_encoder(self) -> dict[str, Any]:
        """The size of the vocabulary, the width of an embedding, and the most tokens."""
        vocabulary, width = self._table("input_ids")
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "max_position_embeddings": self._positions(width),
        }

    def _levels(self) -> list[None]:
        """One entry for each level. The graph doubles the size between two levels; their widths are not needed."""
        return [None] * (1 + sum(node.op in _UPSAMPLES for node in self._graph.nodes))

    def _conv_after(self, tensor: str) -> tuple[int, ...]:
        """The shape [out, in, rows, columns] of the weights of the first convolution of an input."""
        self._require(tensor, self._graph.inputs)
        node = self._wiring.after(
            tensor, lambda node, given: node.op == "Conv" and node.inputs[:1] == (given,)
        )
        return self._weights(node, f"a convolution of {tensor}")

    def _conv_before(self, tensor: str) -> tuple[int, ...]:
        """The same for the last convolution before an output."""
        self._require(tensor, self._graph.outputs)
        nodes = self._wiring.before(tensor, "Conv")
        return self._weights(nodes[0] if len(nodes) == 1 else None, f"one convolution before {tensor}")

    def _weights(self, node: Node | None, what: str) -> tuple[int, ...]:
        shape = self._wiring.shape(node.inputs[1]) if node is not None and len(node.inputs) > 1 else None
        if shape is None or len(shape) != 4:
            raise self._unknown(what)
        return shape

    def _table(self, tensor: str) -> tuple[int, int]:
        """The rows and the width of the table that the whole numbers of an input are looked up in."""
        node = self._table_node(tensor)
        rows, width = self._wiring.shape(node.inputs[0]) or (0, 0)
        return rows, width

    def _table_node(self, tensor: str) -> Node:
        self._require(tensor, self._graph.inputs)

        def looks_up(node: Node, given: str) -> bool:
            table = self._wiring.shape(node.inputs[0]) if node.op == "Gather" else None
            return table is not None and len(table) == 2 and node.inputs[1:] == (given,)

        node = self._wiring.after(tensor, looks_up)
        if node is None:
            raise self._unknown(f"a table of embeddings for {tensor}")
        return node

    def _positions(self, width: int) -> int:
        """The number of positions: the rows of what is added to the tokens' embeddings."""
        found: list[int] = []

        def adds(node: Node, given: str) -> bool:
            for other in node.inputs if node.op == "Add" else ():
                shape = None if other == given else self._wiring.shape(other) or self._looked_up(other)
                if shape is not None and len(shape) > 1 and shape[-1] == width:
                    found.append(shape[-2])
            return bool(found)

        (embeds,) = self._table_node("input_ids").outputs
        if self._wiring.after(embeds, adds) is None:
            raise self._unknown("a table of positions")
        return found[0]

    def _looked_up(self, tensor: str) -> tuple[int, ...] | None:
        node = self._wiring.maker(tensor)
        return (
            self._wiring.shape(node.inputs[0])
            if node is not None and node.op in ("Gather", "Slice")
            else None
        )

    def _width(self, tensor: str) -> int:
        """The last dimension of an input."""
        self._require(tensor, self._graph.inputs)
        shape = self._graph.inputs[tensor]
        if shape and isinstance(shape[-1], int):
            return shape[-1]
        node = self._wiring.after(
            tensor, lambda node, given: node.op in ("MatMul", "Gemm") and node.inputs[:1] == (given,)
        )
        weights = self._wiring.shape(node.inputs[1]) if node is not None else None
        if weights is None or len(weights) != 2:
            raise self._unknown(f"the width of {tensor}")
        return weights[0]

    def _require(self, tensor: str, known: Mapping[str, object]) -> None:
        if tensor not in known:
            raise self._unknown(f"an input or output {tensor}")

    def _unknown(self, what: str) -> UnsupportedModelError:
        return UnsupportedModelError.advised(
            f"{self._graph.path} has no config.json beside it, and the graph does not show its values: "
            f"{self._name} lacks {what}",
            f"copy {self._name}/config.json of the original checkpoint into the folder, or export the checkpoint with "
            "sdrt export",
            component=self._name,
            path=self._graph.path,
        )
