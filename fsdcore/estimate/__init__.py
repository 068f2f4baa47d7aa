"""Before a run: what it will send, need, take and cost.

`activity` is what flows through a network and what a partition makes of it, and `profile` both together. `rehearsal`
measures messages by running. `traffic` and `timing` compute the parts of a forecast from the parameters in `speeds`,
and `bill` prices it; `forecast` is the whole. `prepare` builds one from a user's network, inputs and backend, `advice`
searches for the best way to run, and `calibrate` measures a deployment.
"""

from fsdcore.estimate.forecast import Forecast, Forecaster, Setting, Target
from fsdcore.estimate.speeds import Model, load_model, model_names

__all__ = ["Forecast", "Forecaster", "Model", "Setting", "Target", "load_model", "model_names"]
