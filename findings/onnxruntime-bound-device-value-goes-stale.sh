#!/usr/bin/env bash
# onnxruntime with a GPU provider: a device value that is bound once and then updated in place is read fresh for one
# input, and stale for another input of the same graph.
#
# One would expect: `bind_ortvalue_input(name, value)` binds the value itself, so that each run reads what
# `value.update_inplace(...)` has written since. That is how inputs are kept on a device, and how CUDA graphs are fed.
# What happens: if the operators that read the input run on the CPU, binding copies the value to the CPU at once. All later
# runs read that copy, without an error. Which operators run on the CPU is the provider's choice, and changes with its
# version: here int64 additions, which WebGPU cannot run. `get_input_memory_infos()` shows where an input is read:
# "Cpu" for such an input.
# Seen with onnxruntime 1.32.0 and onnxruntime-ep-webgpu 0.4.0 on SwiftShader:
#   x float32, read by WebGPU: updated after binding -> fresh
#   i int64, read by the CPU: updated after binding -> stale (the zeros that were there when it was bound)
#   i bound again after the update -> fresh
#
# Exits with 1 when the behaviour changes. Needs Debian's package chromium, whose Vulkan driver stands in for a GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  onnxruntime==1.32.0 onnxruntime-ep-webgpu==0.4.0 onnx==1.23.2 numpy==2.4.6
cat > "$work/run.py" <<'PY'
import sys

import numpy as np
import onnxruntime as ort
import onnxruntime_ep_webgpu as webgpu
from onnx import TensorProto, helper

ort.set_default_logger_severity(4)
ort.register_execution_provider_library("webgpu", webgpu.get_library_path())
device = next(one for one in ort.get_ep_devices() if one.ep_name == webgpu.get_ep_name())
graph = helper.make_graph(
    [helper.make_node("Mul", ["x", "x"], ["of_x"]), helper.make_node("Add", ["i", "i"], ["of_i"])],
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]), helper.make_tensor_value_info("i", TensorProto.INT64, [4])],
    [
        helper.make_tensor_value_info("of_x", TensorProto.FLOAT, [4]),
        helper.make_tensor_value_info("of_i", TensorProto.INT64, [4]),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_provider_for_devices([device], {})
session = ort.InferenceSession(model.SerializeToString(), options)
print({one.name: memory.name for one, memory in zip(session.get_inputs(), session.get_input_memory_infos())})
values = {
    "x": ort.OrtValue.ortvalue_from_numpy(np.zeros(4, np.float32), "webgpu", 0),
    "i": ort.OrtValue.ortvalue_from_numpy(np.zeros(4, np.int64), "webgpu", 0),
}
binding = session.io_binding()
for name, value in values.items():
    binding.bind_ortvalue_input(name, value)
for name in ("of_x", "of_i"):
    binding.bind_output(name, "cpu")


def run() -> tuple[list, list]:
    session.run_with_iobinding(binding)
    return tuple(one.tolist() for one in binding.copy_outputs_to_cpu())


values["x"].update_inplace(np.full(4, 3, np.float32))
values["i"].update_inplace(np.full(4, 3, np.int64))
after_update = run()
binding.bind_ortvalue_input("i", values["i"])
bound_again = run()
print("updated after binding:", after_update, "bound again:", bound_again)
seen = after_update == ([9.0] * 4, [0] * 4) and bound_again == ([9.0] * 4, [6] * 4)
sys.exit(0 if seen else "the behaviour has changed")
PY
export VK_ICD_FILENAMES=/usr/lib/chromium/vk_swiftshader_icd.json LD_LIBRARY_PATH=/usr/lib/chromium
export ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1
"$work/venv/bin/python" "$work/run.py"
