"""How many estimates each step uses: fewer at the start, which has no past steps, and at the end."""

from __future__ import annotations

from sdrt.schedulers.plan import Plan
from sdrt.schedulers.samplers.base import SamplerOptions

__all__ = ["multistep_orders", "singlestep_orders"]

# The authors of DPM++ end short runs on a lower order; in diffusers, fewer than 15 steps are short.
_SHORT_RUN = 15


def multistep_orders(plan: Plan, options: SamplerOptions) -> list[int]:
    """The orders of the steps, up to `options.order`: 1, 2, …, in short runs …, 2, 1 at the end. A step to 0 has 1."""
    count = plan.num_planned
    orders = [min(index + 1, options.order) for index in range(count)]
    if options.lower_order_final and plan.skipped + count < _SHORT_RUN:
        orders = [min(order, count - index) for index, order in enumerate(orders)]
    if options.euler_at_final or plan.transfers[-1][1] == 0:
        orders[-1] = 1
    return orders


def singlestep_orders(plan: Plan, options: SamplerOptions) -> list[int]:
    """The order of each step: 1, 2, …, `options.order`, again from 1, and lower at the end. A step to 0 has 1."""
    count, order = plan.skipped + plan.num_planned, options.order
    to_zero = plan.transfers[-1][1] == 0
    orders = [index % order + 1 for index in range(count)]
    if count % order == 0 and (options.lower_order_final or to_zero):
        orders[-order:] = {1: [1], 2: [1, 1], 3: [1, 2, 1]}[order]
    if to_zero:
        orders[-1] = 1
    # A run that starts within a group has no estimates yet for the rest of the group.
    return [min(order, index + 1) for index, order in enumerate(orders[plan.skipped :])]
