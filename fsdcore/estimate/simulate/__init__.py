"""A run in virtual time: the same loop, launch tree and channel limits, for up to 10,000 workers, in seconds.

`work` and `synthetic` lay out what a run does, and `conditions` says how services and workers deviate from their usual
speed. `engine` plays one run, with `inbox` for what a rank receives and `ledger` for what is counted. `simulation`
repeats it for several seeds and summarizes.
"""

from fsdcore.estimate.simulate.conditions import STEADY, Conditions, Limit, Spread, condition_names, load_conditions
from fsdcore.estimate.simulate.simulation import Billing, Run, Simulation, Summary
from fsdcore.estimate.simulate.synthetic import Shape, shape_work
from fsdcore.estimate.simulate.work import Work, work_of

__all__ = [
    "STEADY",
    "Billing",
    "Conditions",
    "Limit",
    "Run",
    "Shape",
    "Simulation",
    "Spread",
    "Summary",
    "Work",
    "condition_names",
    "load_conditions",
    "shape_work",
    "work_of",
]
