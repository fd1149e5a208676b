#!/usr/bin/env bash
# onnxruntime: `SessionOptions.add_initializer` replaces the weight of a MatMul, but not that of a Conv, without an error.
#
# One would expect: a value that is given under the name of a weight in the graph is used in place of it, whichever operator
# takes it. The documentation of the C API says that the user's value overrides the one of the model.
# What happens: the value is put in place after the graph was optimised. At the default level, a Conv's weight was
# reordered before that (NCHWc), from the value in the file, so the convolution computes with the old weight. MatMul packs
# its weight later, and uses the new one. With a lower level of optimisation, both use it. `add_external_initializers` acts
# before the optimisation and has no such case, but takes only weights that the graph names as external data.
#
# Exits with 1 when the behaviour changes, and on a CPU without reordered convolutions (no AVX).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.23.2 onnx==1.19.1 numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

KINDS = {"MatMul": ((8, 8), (4, 8), {}), "Conv": ((8, 8, 3, 3), (1, 8, 4, 4), {"pads": [1] * 4})}


def ratio(kind, level):
    """The output with a weight that was given as twice the file's, over the output of the file's."""
    weight, shape, attributes = KINDS[kind]
    old, x = np.ones(weight, np.float32), np.ones(shape, np.float32)
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", shape), ("y", None))}
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "graph", [value["x"]], [value["y"]], [numpy_helper.from_array(old, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    options, given = ort.SessionOptions(), ort.OrtValue.ortvalue_from_numpy(2 * old)
    options.graph_optimization_level = level
    options.add_initializer("w", given)
    plain = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    other = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return float((other.run(None, {"x": x})[0] / plain.run(None, {"x": x})[0]).max())


print("onnxruntime", ort.__version__)
levels = {"the default level": ort.GraphOptimizationLevel.ORT_ENABLE_ALL, "no optimisation": ort.GraphOptimizationLevel.ORT_DISABLE_ALL}
seen = {(kind, name): ratio(kind, level) for kind in KINDS for name, level in levels.items()}
for (kind, name), found in seen.items():
    print(f"{kind}, {name}: a weight that is given doubled makes the output {found:g} times as large")
sys.exit(0 if list(seen.values()) == [2, 2, 1, 2] else 1)
PY
