#!/usr/bin/env bash
# onnxruntime: by default, every Cast of a weight runs before the first layer, so a run holds all widened weights at once.
#
# One would expect: a graph that lists its nodes as Cast, MatMul, Cast, MatMul, … runs them in this order, on one thread.
# Each float16 weight is widened right before its layer and freed after it, so a run takes the memory of one weight.
# What happens: ONNX Runtime sorts the nodes again, from the outputs backwards. All Casts run first, from the
# last layer's to the first layer's. A run takes the memory of all weights in float32. With `ExecutionOrder.PRIORITY_BASED`, the
# nodes run in the order of the graph, and a run takes the memory of one weight. Graph optimisations are off in both cases.
#
# Exits with 1 when the behaviour changes. Linux only: it reads /proc.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy==2.2.6
cat > "$work/order.py" <<'PY'
import json
import pathlib
import re
import sys
import threading
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

order, folder = sys.argv[1:]
layers, side = 48, 1024
info = helper.make_tensor_value_info
inputs, nodes = [info("x", TensorProto.FLOAT, [1, side])], []
for number in range(layers):
    inputs.append(info(f"w{number}", TensorProto.FLOAT16, [side, side]))
    x = f"y{number - 1}" if number else "x"
    nodes.append(helper.make_node("Cast", [f"w{number}"], [f"wide{number}"], name=f"cast{number}", to=TensorProto.FLOAT))
    nodes.append(helper.make_node("MatMul", [x, f"wide{number}"], [f"y{number}"], name=f"matmul{number}"))
last = info(f"y{layers - 1}", TensorProto.FLOAT, [1, side])
model = helper.make_model(
    helper.make_graph(nodes, "g", inputs, [last]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
)
options = ort.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = 1
options.enable_mem_pattern = options.enable_cpu_mem_arena = False
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.execution_order = getattr(ort.ExecutionOrder, order)
options.enable_profiling = True
options.profile_file_prefix = f"{folder}/{order}"
session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
feeds = {f"w{number}": np.full((side, side), 1 / side, np.float16) for number in range(layers)}
feeds["x"] = np.ones((1, side), np.float32)


def own():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024


before, peak = own(), [0]


def watch():
    while True:
        peak[0] = max(peak[0], own() - before)
        time.sleep(0.0005)


threading.Thread(target=watch, daemon=True).start()
session.run(None, feeds)
events = json.loads(pathlib.Path(session.end_profiling()).read_text())
ran = [event["name"].removesuffix("_kernel_time") for event in events if event["name"].endswith("_kernel_time")]
print(f"{peak[0] / (side * side * 4):.1f}", *ran[:4])
PY
python="$work/venv/bin/python"
default=$("$python" "$work/order.py" DEFAULT "$work")
priority=$("$python" "$work/order.py" PRIORITY_BASED "$work")
echo "onnxruntime 1.32.0, 48 layers: memory of a run in sizes of a weight in float32, and the nodes that ran first"
echo "DEFAULT:        $default"
echo "PRIORITY_BASED: $priority"
[[ $default == *" cast47 cast46 cast45 cast44" && $priority == *" cast0 matmul0 cast1 matmul1" ]]
"$python" -c "import sys; sys.exit(0 if ${default%% *} > 40 and ${priority%% *} < 5 else 1)"
