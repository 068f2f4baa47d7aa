"""A run in virtual time: the same loop, launch tree and channel limits, for up to 10,000 workers, in seconds.

`traffic` and `synthetic` lay out what a run does, `conditions` say how services and workers differ from their usual
answer, `engine` is the run itself, `simulation` repeats it by seed and sums up.
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
