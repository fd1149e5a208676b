"""Encoders whose graph draws its own noise: finds the posterior from which it draws.

diffusers' first converter, Olive, and optimum until version 1.22 export such encoders. Their latents differ from run to
run. sdrt reads the posterior's mean and variance inside the graph, and draws noise that the seed decides.
"""

from __future__ import annotations

from pathlib import Path

from sdrt.errors import UnsupportedModelError
from sdrt.families import VaeSpec
from sdrt.onnx.added_output import with_output
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.wiring import Wiring

__all__ = ["graph_with_posterior"]


def graph_with_posterior(path: Path, spec: VaeSpec) -> bytes | None:
    """Return the encoder's graph with the output `spec.parameters`; None if the graph in the file has it.

    Raises:
        IntegrityError: the file is not an ONNX file.
        UnsupportedModelError: the graph gives only latents, and their mean and variance cannot be found in it.
    """
    graph = read_graph(path)
    if spec.parameters in graph.outputs or spec.latents not in graph.outputs:
        return None
    wiring = Wiring(graph)
    # The last convolution makes the mean and the logarithm of the variance of each channel.
    sources = wiring.before(spec.latents, "Conv")
    if len(sources) != 1:
        raise UnsupportedModelError.advised(
            f"{spec.encoder}: the graph draws its own noise, so a seed would not give the same image again",
            "export the checkpoint with sdrt export",
            component=spec.encoder,
            path=path.parent,
        )
    return with_output(path, sources[0].outputs[0], spec.parameters)
