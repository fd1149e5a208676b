#!/usr/bin/env bash
# onnxruntime-ep-openvino: on a machine with an AMD CPU, the plug-in offers no device at all, and says nothing. The wheel
# onnxruntime-openvino of the same year runs on that CPU.
#
# One would expect: OpenVINO's CPU plug-in, which is in the package, runs on every x86-64 CPU, as it does in the wheel
# onnxruntime-openvino and in `openvino` itself. So `get_ep_devices()` would have a CPU device of OpenVINOExecutionProvider.
# What happens: registering the library succeeds without a message, and `get_ep_devices()` has only ONNX Runtime's own CPU
# device. A program that looks for the provider finds nothing to choose.
# Seen with onnxruntime 1.32.0 and onnxruntime-ep-openvino 1.8.1 on an AMD EPYC.
#
# Exits with 1 when the behaviour changes. Needs an AMD CPU. On others, it says so and exits with 0.
set -euo pipefail
if ! grep -q AuthenticAMD /proc/cpuinfo; then
  echo "this machine has no CPU of AMD"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  onnxruntime==1.32.0 onnxruntime-ep-openvino==1.8.1
"$work/venv/bin/python" - <<'PY'
import sys

import onnxruntime as ort
import onnxruntime_ep_openvino as openvino

ort.register_execution_provider_library("openvino", openvino.get_library_path())
devices = [(one.ep_name, str(one.device.type), one.device.vendor) for one in ort.get_ep_devices()]
print(devices)
sys.exit("the behaviour has changed" if any(name == openvino.get_ep_name() for name, *_ in devices) else 0)
PY
