"""Before a run: what it will send, need, take and cost.

`structure` is what a partition makes of a network, `activity` what flows through it, `profile` both together;
`rehearsal` measures messages by running; `counts`, `memory` and `timing` are the forecast's parts, `model` its
parameters, `run_forecast` the whole.
"""

from fsdcore.estimate.forecast import Forecast, Forecaster, Setting, Target
from fsdcore.estimate.speeds import Model, load_model, model_names

__all__ = ["Forecast", "Forecaster", "Model", "Setting", "Target", "load_model", "model_names"]
