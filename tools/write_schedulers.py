"""Write the table of `docs/schedulers.md`: the schedulers, and their errors relative to diffusers.

Usage, where the test extra is installed: python -m tools.write_schedulers
"""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np

from sdrt.schedulers import SAMPLERS, SPACING_LABELS, SPACINGS
from sdrt.schedulers.table import SamplerRow
from tools.goldens.k_diffusion_runs import RUNS
from tools.goldens.scheduler_reference import run_reference
from tools.goldens.scheduler_runs import all_cases, run, worst_error

ROOT = Path(__file__).resolve().parents[1]

OUTPUT = ROOT / "docs" / "schedulers.md"
OF_K_DIFFUSION = ROOT / "tests" / "goldens" / "k_diffusion.npz"
STEPS = (1, 2, 5, 20, 50)
_HEADINGS = (
    "name",
    "A1111's name, other names",
    "diffusers' class",
    "order",
    "U-Net calls a step",
    "fresh noise",
    "spacings",
    "error",
)
BEGIN, END = "<!-- table:start -->", "<!-- table:end -->"


def measured() -> dict[str, float | None]:
    """Each sampler's largest relative error over its spacings, predictions and `STEPS`; None without a reference."""
    errors: dict[str, float | None] = dict.fromkeys(SAMPLERS)
    for case in all_cases():
        for steps in STEPS:
            if not case.has_no_reference(steps):
                _, expected = run_reference(case, steps)
                error = worst_error(run(case.scheduler, steps, eta=case.eta), expected)
                errors[case.sampler] = max(errors[case.sampler] or 0.0, error)
    with np.load(OF_K_DIFFUSION) as recorded:
        for one in [one for one in RUNS if not SAMPLERS[one.sampler].class_name]:
            error = worst_error(one.ours()[np.newaxis], recorded[one.id][np.newaxis])
            errors[one.sampler] = max(errors[one.sampler] or 0.0, error)
    return errors


def table(errors: dict[str, float | None]) -> str:
    """The generated part of the document, between its marks."""
    lines = [
        f"| {' | '.join(_HEADINGS)} |",
        "|" + " --- |" * len(_HEADINGS),
        *(_line(row, errors[name]) for name, row in SAMPLERS.items()),
    ]
    return "\n".join([BEGIN, *lines, END])


def _line(row: SamplerRow, error: float | None) -> str:
    names = ", ".join(dict.fromkeys([row.display_name, *row.aliases]))
    noise = "`--eta`" if row.eta is None else ("yes" if row.eta else "no")
    spacings = "all" if row.spacings == tuple(SPACINGS) else ", ".join(row.spacings) or "its own"
    cells = (
        f"`{row.name}`",
        names,
        row.class_name or "–",
        row.order or "–",
        "as many as needed" if row.chooses_steps else row.evaluations,
        noise,
        spacings,
        "–" if error is None else f"{error:.0e}",
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    diffusers.logging.set_verbosity_error()
    made = table(measured())
    # Read only now, because measuring takes minutes, in which someone may edit the page.
    text = OUTPUT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    OUTPUT.write_text(before + made + after, encoding="utf-8")
    print(f"{OUTPUT.name}: {len(SAMPLERS)} schedulers, {len(SPACING_LABELS)} labelled spacings")


if __name__ == "__main__":
    main()
