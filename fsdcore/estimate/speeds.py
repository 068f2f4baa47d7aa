"""The parameters of the forecast: how fast workers compute and services answer, in one file that says where from.

Seconds unless a name says otherwise. `fsd calibrate` writes such a file; ``docs/choosing.md`` describes it.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import msgspec

from fsdcore.errors import InputError, MissingExtraError
from fsdcore.estimate.shelf import Shelf, file_of
from fsdcore.text import suggestion

_MODELS = Shelf(resources.files("fsdcore.estimate").joinpath("models"), "there is no model")


class ComputeModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker with one whole vCPU; with less, all of its computing takes longer in proportion.

    `multiply_rate`: multiply-adds a second. `codec_rate`: values a second that are encoded, or decoded.
    `message_seconds`: computing for each message at either end, whatever its size. `start_seconds`: from the call to
    the worker's first line, and `billed_start_seconds` of it that are billed. `invoke_seconds`: to start one child.
    `runtime_bytes`: interpreter and libraries.
    """

    multiply_rate: float
    codec_rate: float
    message_seconds: float
    start_seconds: float
    billed_start_seconds: float
    invoke_seconds: float
    runtime_bytes: float


class StoreModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The object store: a request's answer, and bytes a second of one worker."""

    put_seconds: float
    get_seconds: float
    bytes_per_second: float


class ChannelModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The speed of a kind of channel.

    `send_seconds`: one publish. `delivery_seconds`: from its end until a receiver can get the frame. `receive_seconds`:
    one receive that returns something. `bytes_per_second`: of one worker, each way. `gathering`: a receive returns ``1
    + gathering * n`` frames where n arrive for a layer, up to the channel's limit. `poll_seconds`: between two polls
    for a missing object, each of which is billed; 0 where a receive blocks by itself.
    """

    send_seconds: float
    delivery_seconds: float
    receive_seconds: float
    bytes_per_second: float
    gathering: float = 0.0
    poll_seconds: float = 0.0


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All parameters; `sources` says of each group where it comes from.

    `prices`: the price list that stands in where the backend itself costs nothing.
    """

    name: str
    date: str
    prices: str = ""
    compute: ComputeModel
    store: StoreModel
    channels: dict[str, ChannelModel]
    sources: dict[str, str]

    def channel(self, kind: str) -> ChannelModel:
        """The parameters of a channel; `InputError` if there are none."""
        if kind not in self.channels:
            raise InputError(f"model {self.name} has no channel {kind!r}{suggestion(kind, sorted(self.channels))}")
        return self.channels[kind]


def model_names() -> list[str]:
    """The models that come with the project."""
    return _MODELS.names()


def load_model(name: str) -> Model:
    """A model by its name, or from a file (``*.toml``); `InputError` for one that is not there or not sound."""
    model, file = _MODELS.load(name, Model), file_of(name)
    parts: list[tuple[str, msgspec.Struct]] = [("compute", model.compute), ("store", model.store)]
    parts += [(f"channels.{kind}", channel) for kind, channel in model.channels.items()]
    for part, struct in parts:
        for field, value in msgspec.structs.asdict(struct).items():
            least = "above 0" if field.endswith(("_rate", "_per_second")) else "0 or more"
            if not (0 <= value < float("inf")) or (least == "above 0" and value == 0):
                raise InputError(f"{file}: {part}.{field} must be {least}, not {value}")
    return model


def model_text(model: Model) -> str:
    """The model as TOML, its numbers to six digits; `MissingExtraError` without what writes it."""
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("a model is written with tomli-w; run: pip install 'fsd-inference[client]'") from error
    return tomli_w.dumps(_rounded(msgspec.to_builtins(model)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
