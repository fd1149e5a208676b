#!/usr/bin/env bash
# diffusers 0.39: DPMSolverMultistepScheduler with Karras levels, final_sigmas_type "sigma_min" and 20 steps.
#
# All of these are documented options, and each works by itself. One would expect latents: with order 2 and the midpoint
# form they come out.
#
# Karras levels end at the lowest trained level, and "sigma_min" makes that the final level too. So the last step has no
# length. Order 3, and order 2 in the "heun" form, divide by the length of the step, and every latent is NaN, without an
# error. Below 15 steps the last step has order 1, so short runs do not show it. Exponential levels do the same.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.39.0 numpy
cd "$folder"
cat >check.py <<'PY'
import itertools

import diffusers
import torch

MODEL = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def finite(steps, **options):
    scheduler = diffusers.DPMSolverMultistepScheduler(**MODEL, **options)
    scheduler.set_timesteps(steps)
    x = torch.ones(1, 4, 8, 8)
    for timestep in scheduler.timesteps:
        x = scheduler.step(0.1 * x, timestep, x).prev_sample
    return bool(torch.isfinite(x).all())


print("diffusers", diffusers.__version__)
seen = {}
for order, form, final in itertools.product((2, 3), ("midpoint", "heun"), ("zero", "sigma_min")):
    options = {"solver_order": order, "solver_type": form, "final_sigmas_type": final, "use_karras_sigmas": True}
    seen[order, form, final] = finite(20, **options)
    print(f"order {order}, {form}, final {final}: {'latents' if seen[order, form, final] else 'NaN'}")
spoilt = {key for key, fine in seen.items() if not fine}
expected = {(2, "heun", "sigma_min"), (3, "midpoint", "sigma_min"), (3, "heun", "sigma_min")}
assert spoilt == expected, f"the behaviour has changed: {spoilt}"
assert finite(14, solver_order=3, final_sigmas_type="sigma_min", use_karras_sigmas=True)
PY
venv/bin/python check.py 2>/dev/null
