#!/usr/bin/env bash
# onnxruntime: weights that a program maps itself and passes "in memory" take more memory than weights named by a path.
#
# One would expect: `add_external_initializers_from_files_in_memory` hands ONNX Runtime a file that is mapped already, so
# that creating a session takes no more memory than when ONNX Runtime opens the file itself. Both read the same bytes.
# What happens: ONNX Runtime reorders the weights of convolutions for the CPU, and has one more copy of them while it makes
# the session. Its peak of own memory is three times the weights, instead of twice by path. (For MatMul, both are about
# once.) So a program that has a checkpoint's file should name it, with each weight's offset, even if the graph itself is
# in memory (`session.model_external_initializers_file_folder_path`).
#
# Exits with 1 when the behaviour changes. Linux only: it reads /proc.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.22.0 numpy==2.2.6
cat > "$work/session.py" <<'PY'
import mmap
import pathlib
import sys
import threading
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

how, folder = sys.argv[1], pathlib.Path(sys.argv[2])
count, side = 40, 512
size = side * side * 9 * 4
if how == "write":
    rng = np.random.default_rng(0)
    with (folder / "weights").open("wb") as file:
        for _ in range(count):
            file.write(rng.standard_normal((side, side, 3, 3), np.float32).tobytes())
    sys.exit()
weights, nodes, x = [], [], "x"
for number in range(count):
    weight = TensorProto(name=f"w{number}", data_type=1, data_location=TensorProto.EXTERNAL, dims=[side, side, 3, 3])
    for key, value in {"location": "weights", "offset": str(number * size), "length": str(size)}.items():
        weight.external_data.add(key=key, value=value)
    weights.append(weight)
    nodes.append(helper.make_node("Conv", [x, weight.name], [f"y{number}"], pads=[1] * 4))
    x = f"y{number}"
info = helper.make_tensor_value_info
graph = helper.make_graph(nodes, "g", [info("x", 1, [1, side, 8, 8])], [info(x, 1, [1, side, 8, 8])], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
options = ort.SessionOptions()
options.log_severity_level = 3
if how == "path":
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
else:
    file = (folder / "weights").open("rb")
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    options.add_external_initializers_from_files_in_memory(["weights"], [mapped], [len(mapped)])


def own():
    rows = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon")) * 1024


peak, before = [0], own()


def watch():
    while True:
        peak[0] = max(peak[0], own() - before)
        time.sleep(0.001)


threading.Thread(target=watch, daemon=True).start()
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
print(round(peak[0] / (count * size), 2))
PY
python="$work/venv/bin/python"
"$python" "$work/session.py" write "$work"
by_path=$("$python" "$work/session.py" path "$work")
in_memory=$("$python" "$work/session.py" memory "$work")
echo "onnxruntime 1.32.0, peak of own memory while a session is made, in sizes of the weights"
echo "named by a path: $by_path, mapped and passed in memory: $in_memory"
"$python" -c "import sys; sys.exit(0 if $in_memory - $by_path > 0.7 else 1)"
