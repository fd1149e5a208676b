#!/usr/bin/env bash
# lycoris-lora 4.1.3: saves an IA³ adapter, and reads the file back.
#
# One would expect it to load, as the files of its other kinds do: what was saved is its own state_dict, and
# create_lycoris_from_weights recognises the kind by `on_input`.
#
# It raises TypeError. IA³ files have two tensors for each layer (`weight` and `on_input`), and the function that makes
# the module takes one. So whether the factors are for inputs or outputs is never read either.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lycoris-lora==4.1.3 numpy
cd "$folder"
cat >check.py <<'PY'
from importlib.metadata import version

import torch
from lycoris import create_lycoris, create_lycoris_from_weights

print("lycoris-lora", version("lycoris-lora"))
seen = {}
for kind in ("locon", "loha", "lokr", "full", "ia3"):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    saved = create_lycoris(model, 1.0, linear_dim=2, linear_alpha=1.0, algo=kind)
    saved.apply_to()
    state = {key: value.detach().clone() for key, value in saved.state_dict().items()}
    saved.restore()
    assert state
    try:
        create_lycoris_from_weights(1.0, None, model, weights_sd=state)
        seen[kind] = "loads"
    except TypeError as error:
        seen[kind] = f"TypeError: {error}"
    print(f"{kind}: {seen[kind]}")
assert all(seen[kind] == "loads" for kind in ("locon", "loha", "lokr", "full")), "the behaviour has changed"
assert "takes 4 positional arguments but 5 were given" in seen["ia3"], "the behaviour has changed"
PY
venv/bin/python check.py 2>/dev/null | grep -v LyCORIS
