"""Parameters from runs that were measured: the model that explains their seconds best.

Where ranks are evenly loaded, a worker's seconds are a sum: its multiply-adds over the kernel's rate, and for its
channel bytes over the rate of the wire, messages times what each costs, and layers times what each must wait.
Those factors are fitted, none below zero, each run weighed by its own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from fsdcore.errors import InputError
from fsdcore.estimate.profile import Floats
from fsdcore.estimate.speeds import ChannelModel, ComputeModel, Model, StoreModel
from fsdcore.estimate.timing import Loads, Timeline, timeline

__all__ = ["EvenRun", "even_timeline", "fit_model"]

# A factor that the runs do not show is not zero but too small to see.
_UNSEEN = 1e-18


@dataclass(frozen=True)
class EvenRun:
    """A run whose workers do about the same: all figures for one worker, summed over `layers`.

    `multiply_adds`, `bytes_sent`, `messages` (sent), and `seconds`, which is not needed to forecast.
    """

    channel: str
    workers: int
    layers: int
    multiply_adds: float
    bytes_sent: float
    messages: float
    seconds: float = 0.0

    def terms(self, channels: Sequence[str]) -> list[float]:
        """What the factors are multiplied with: the kernel's, then three for each channel."""
        own = [self.bytes_sent, self.messages, float(self.layers)]
        return [
            self.multiply_adds,
            *(term for kind in channels for term in (own if kind == self.channel else [0.0] * 3)),
        ]


def fit_model(runs: Sequence[EvenRun], name: str, date: str, source: str) -> Model:
    """The model that fits `runs` best; `InputError` if there are fewer runs of a channel than it has factors."""
    channels = sorted({run.channel for run in runs})
    for kind in channels:
        if sum(run.channel == kind for run in runs) < 3:
            raise InputError(f"fewer than 3 runs over {kind!r}: too few to fit its bytes, messages and waits")
    terms = np.array([run.terms(channels) for run in runs])
    seconds = np.array([run.seconds for run in runs])
    scale = terms.max(axis=0)
    scale[scale == 0] = 1.0
    factors, _ = nnls(terms / scale / seconds[:, None], np.ones(seconds.size))
    found = np.maximum(factors / scale, _UNSEEN)
    wires = {kind: _channel(found[1 + 3 * n : 4 + 3 * n]) for n, kind in enumerate(channels)}
    return Model(
        name=name,
        date=date,
        compute=ComputeModel(
            multiply_rate=float(1 / found[0]),
            codec_rate=1 / _UNSEEN,
            message_seconds=0.0,
            start_seconds=0.0,
            billed_start_seconds=0.0,
            invoke_seconds=0.0,
            runtime_bytes=0.0,
        ),
        store=StoreModel(put_seconds=0.0, get_seconds=0.0, bytes_per_second=1 / _UNSEEN),
        channels=wires,
        sources={"compute": source, "channels": source, "store": "part of what channels were fitted to"},
    )


def _channel(factors: Floats) -> ChannelModel:
    per_byte, per_message, per_layer = factors.tolist()
    return ChannelModel(
        send_seconds=per_message, delivery_seconds=per_layer, receive_seconds=0.0, bytes_per_second=1 / per_byte
    )


def even_timeline(run: EvenRun, model: Model) -> Timeline:
    """The forecast of an even run; bytes and messages are charged where they are sent, for both ends."""
    shape = (run.layers, run.workers)
    none = np.zeros(shape)

    def spread(total: float) -> Floats:
        return np.full(shape, total / run.layers)

    loads = Loads(
        local=none,
        remote=spread(run.multiply_adds),
        encoded=none,
        decoded=none,
        messages=spread(run.messages),
        sends=spread(run.messages),
        receives=none,
        bytes_out=spread(run.bytes_sent),
        bytes_in=none,
        edges=None,
        output_bytes=none[0],
    )
    return timeline([loads], model, model.channel(run.channel), 1, 1.0, none[0])
