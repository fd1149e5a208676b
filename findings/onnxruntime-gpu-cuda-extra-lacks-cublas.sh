#!/usr/bin/env bash
# onnxruntime-gpu 1.31.1: the extra `cuda` does not bring the libraries that its CUDA provider is linked with.
#
# One would expect `pip install 'onnxruntime-gpu[cuda]'` to bring every library of CUDA that the provider asks the
# loader for, and none that it does not.
#
# What happens: libonnxruntime_providers_cuda.so is linked with cuBLAS (libcublas.so.13 and libcublasLt.so.13), and the
# extra has no cuBLAS. It has cuFFT, with which the provider is not linked (it opens cuFFT only for operators of
# Fourier transforms). cuBLAS arrives only by way of the extra `cudnn`: nvidia-cudnn-cu13 requires nvidia-cublas. So
# `[cuda]` alone leaves a provider that cannot be loaded, and `[cuda,cudnn]` works.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyelftools==0.32 packaging==25.0
"$work/venv/bin/pip" download -q --no-deps --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
  -d "$work" onnxruntime-gpu==1.31.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import email
import io
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile
from packaging.requirements import Requirement

(wheel,) = Path().glob("onnxruntime_gpu-*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    library = ELFFile(io.BytesIO(archive.read("onnxruntime/capi/libonnxruntime_providers_cuda.so")))
linked = {tag.needed for tag in library.get_section_by_name(".dynamic").iter_tags() if tag.entry.d_tag == "DT_NEEDED"}
requirements = [Requirement(one) for one in metadata.get_all("Requires-Dist")]
extras = {
    extra: {one.name for one in requirements if one.marker and one.marker.evaluate({"extra": extra})}
    for extra in ("cuda", "cudnn")
}
print("onnxruntime-gpu", metadata["Version"])
print("linked:", ", ".join(sorted(one for one in linked if one.startswith("libcu"))))
for extra, names in extras.items():
    print(f"[{extra}]:", ", ".join(sorted(names)))
assert {"libcublas.so.13", "libcublasLt.so.13"} <= linked
assert not any(one.startswith("libcufft") for one in linked)
assert not any("cublas" in one for names in extras.values() for one in names)
assert "nvidia-cufft" in extras["cuda"]
PY
