"""The parameters of the forecast: how fast workers compute and services answer, in one file that says where from.

Seconds unless a name says otherwise. `fsd calibrate` writes such a file; ``docs/choosing.md`` describes it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from fsdcore.decoding import from_toml
from fsdcore.errors import InputError
from fsdcore.files import read_text
from fsdcore.text import suggestion

_DATA = resources.files("fsdcore.estimate").joinpath("models")


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
    return sorted(file.name.removesuffix(".toml") for file in _DATA.iterdir() if file.name.endswith(".toml"))


def load_model(name: str) -> Model:
    """A model by its name, or from a file (``*.toml``); `InputError` for one that is not there or not sound."""
    if not name.endswith(".toml"):
        if name not in model_names():
            raise InputError(f"there is no model {name!r}{suggestion(name, model_names())}")
        return _read(name, _DATA.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return _read(Path(name).name, read_text(name))


def _read(file: str, text: str) -> Model:
    model = from_toml(text, Model, lambda reason: InputError(f"{file}: {reason}"))
    parts: list[tuple[str, msgspec.Struct]] = [("compute", model.compute), ("store", model.store)]
    parts += [(f"channels.{kind}", channel) for kind, channel in model.channels.items()]
    for part, struct in parts:
        for field, value in msgspec.structs.asdict(struct).items():
            least = "above 0" if field.endswith(("_rate", "_per_second")) else "0 or more"
            if not (0 <= value < float("inf")) or (least == "above 0" and value == 0):
                raise InputError(f"{file}: {part}.{field} must be {least}, not {value}")
    return model


def model_text(model: Model) -> str:
    """The model as TOML."""
    lines = [f"{key} = {_quoted(getattr(model, key))}" for key in ("name", "date", "prices") if getattr(model, key)]
    tables: list[tuple[str, dict[str, object]]] = [
        ("compute", msgspec.structs.asdict(model.compute)),
        ("store", msgspec.structs.asdict(model.store)),
        *((f"channels.{kind}", msgspec.structs.asdict(channel)) for kind, channel in model.channels.items()),
        ("sources", dict(model.sources)),
    ]
    for name, values in tables:
        lines += ["", f"[{name}]", *(f"{key} = {_quoted(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    # A TOML basic string escapes what a JSON string does.
    return msgspec.json.encode(value).decode() if isinstance(value, str) else f"{value:.6g}"
