"""Write the graphs that `sdrt benchmark --profile` measures a provider's ceiling with.

    python -m tools.write_ceiling

Each graph is a chain of one operator, and returns a single number to the host.
"""

from __future__ import annotations

from itertools import pairwise

import onnx
from onnx import TensorProto, helper

from sdrt.benchmark.ceiling import CHAIN, GRAPHS


def chain(operator: str, dtype: int, rank: int) -> onnx.ModelProto:
    """A graph that applies `operator` with `b` to `a` `CHAIN` times, and returns the first element as `first`."""
    names = ["a", *(f"after_{number}" for number in range(1, CHAIN + 1))]
    nodes = [
        helper.make_node(operator, [before, "b"], [after], name=after) for before, after in pairwise(names)
    ]
    nodes.append(helper.make_node("Slice", [names[-1], "starts", "ends"], ["first"], name="first"))
    shape = [f"n{axis}" for axis in range(rank)]
    graph = helper.make_graph(
        nodes,
        f"{CHAIN}x{operator}",
        [helper.make_tensor_value_info(name, dtype, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("first", dtype, [1] * rank)],
        [
            helper.make_tensor("starts", TensorProto.INT64, [rank], [0] * rank),
            helper.make_tensor("ends", TensorProto.INT64, [rank], [1] * rank),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    GRAPHS.mkdir(exist_ok=True)
    for name, model in {
        "matmul_float32": chain("MatMul", TensorProto.FLOAT, 2),
        "matmul_float16": chain("MatMul", TensorProto.FLOAT16, 2),
        "add_float32": chain("Add", TensorProto.FLOAT, 1),
    }.items():
        onnx.checker.check_model(model)
        onnx.save(model, GRAPHS / f"{name}.onnx")


if __name__ == "__main__":
    main()
