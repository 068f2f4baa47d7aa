"""Decoders of files, and of what the environment says."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
from safetensors.numpy import load, save

import fsdcore
from fsdcore.cli.insight import read_forecast
from fsdcore.client.config import load_config
from fsdcore.estimate.bill import load_prices
from fsdcore.estimate.simulate.conditions import load_conditions
from fsdcore.estimate.speeds import load_model
from fsdcore.messages.segments import Arrays
from fsdcore.network.formats import load_categories, load_inputs, load_network, save_network, save_outputs
from fsdcore.network.formats.graph_challenge import load_graph_challenge
from fsdcore.partition import load_partition, save_partition
from fsdcore.record.file import read_record
from fsdcore.report import report
from fsdcore.report.notebook import card
from fsdcore.report.trace import make_trace
from tests.fuzz.draws import Draws
from tests.fuzz.world import SAMPLES, World

CONFIG = """workers = 4
channel = "queue"
method = "block"
run_seconds = 10.5
trace = true
[local]
path = "x"
visibility_timeout = 3.0
max_frame_bytes = 1000
[aws]
name = "a"
"""
PRICES = """name = "x"
currency = "USD"
date = "2025-01-01"
source = "s"
[prices]
a = 1.0
b = 2
[tariff]
defaults = {store = "s"}
not_counted = ["x"]
compute = {memory_mib = [128, 256], max_seconds = 900.0, bytes_per_vcpu = 1000}
[[tariff.line]]
item = "i"
meter = "gets"
price = "a"
channels = ["queue"]
when = {store = "s"}
step_bytes = 64
"""
SPARSE: dict[str, Any] = {
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "bsr": sp.bsr_array,
    "dia": sp.dia_array,
}
VARIABLES = ["FSD_WORKERS", "FSD_CHANNEL", "FSD_RUN_SECONDS", "FSD_LOCAL_PATH", "FSD_LOCAL_LANES", "FSD_TRACE", "FSD_X"]
VARIABLES += ["FSD_KERNEL", "FSD_LOCAL_X", "FSD_BACKEND", "FSD_SEED", "fsd_workers", "FSD_"]
SETTINGS = [
    "1",
    "-1",
    "x",
    "",
    "true",
    "1e9",
    "1e400",
    "nan",
    "9" * 5_000,
    "é",
    "\x00",
    "local",
    " 3 ",
    "0x10",
    "1_000",
]


def _shipped(name: str) -> str:
    """A file that comes with the project."""
    return resources.files(fsdcore).joinpath(name).read_text()


def _archive(arrays: Arrays) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return made.getvalue()


def _damaged_archive(draws: Draws, arrays: Arrays) -> bytes:
    """An ``.npz`` with other arrays, or with other bytes in or around one of them."""
    level = draws.random()
    if level < 0.5:
        return _archive(draws.arrays(arrays))
    data = _archive(arrays)
    return draws.damaged(data) if level < 0.75 else _repacked(draws, data)


def _repacked(draws: Draws, data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", draws.choice([0, 8])) as new:
        damaged = draws.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, draws.damaged(old.read(name)) if name == damaged else old.read(name))
    return made.getvalue()


def _saved(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def networks(world: World, draws: Draws) -> None:
    file = world.folder / "sound.safetensors"
    if not file.exists():
        save_network(world.network, file)
    data, level = file.read_bytes(), draws.random()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if level < 0.3:
        data = draws.damaged(data)
    elif level < 0.6:
        data = _with_header(draws, header, data[end:])
    else:
        data = save(draws.arrays(load(data)), metadata=header["__metadata__"])
    load_network(world.file("damaged.safetensors", data))


def _with_header(draws: Draws, header: Any, rest: bytes) -> bytes:
    text = header["__metadata__"]
    text["layers"] = draws.json(json.loads(text["layers"])).decode("latin1") if draws.chance(0.5) else text["layers"]
    packed = draws.json(header) if draws.chance(0.5) else json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + rest


def sparse_inputs(world: World, draws: Draws) -> None:
    kind = draws.choice(list(SPARSE))
    file = world.folder / f"{kind}.npz"
    if not file.exists():
        sp.save_npz(file, SPARSE[kind](world.inputs))
    arrays = _saved(file)
    if draws.chance(0.5):
        arrays["format"] = np.array(kind)
    _read_inputs(world.file("damaged.npz", _damaged_archive(draws, arrays)))


def dense_inputs(world: World, draws: Draws) -> None:
    file = world.folder / "sound.npy"
    if not file.exists():
        save_outputs(file, world.inputs.toarray())
    if draws.chance(0.5):
        _read_inputs(world.file("damaged.npy", draws.damaged(file.read_bytes())))
    else:
        _read_inputs(world.file("damaged.npz", _damaged_archive(draws, {"arr_0": np.load(file)})))


def _read_inputs(file: Path) -> None:
    """Inputs that are taken can be worked with."""
    found = load_inputs(file)
    if max(found.shape) < 1_000_000:
        found @ np.ones(found.shape[1], np.float32)


def _triples(world: World) -> bytes:
    found = sp.coo_array(world.inputs)
    lines = zip(*(axis.tolist() for axis in found.coords), found.data.tolist(), strict=True)
    return "".join(f"{row + 1}\t{column + 1}\t{value:g}\n" for row, column, value in lines).encode()


def texts(world: World, draws: Draws) -> None:
    text = draws.lines(_triples(world))
    name = draws.choice(["damaged.tsv", "damaged.tsv.gz"])
    if name.endswith("gz"):
        text = gzip.compress(text, 1)
        text = draws.damaged(text) if draws.chance(0.5) else text
    load_inputs(world.file(name, text), 24, draws.choice([None, SAMPLES]))


def markets(world: World, draws: Draws) -> None:
    made = io.BytesIO()
    scipy.io.mmwrite(made, world.inputs)
    _read_inputs(world.file("damaged.mtx", draws.lines(made.getvalue().replace(b" ", b"\t")).replace(b"\t", b" ")))


def graphs(world: World, draws: Draws) -> None:
    lines = _triples(world)[:600].rpartition(b"\n")[0] + b"\n"
    world.file("n24-l1.tsv", draws.lines(lines))
    load_graph_challenge(world.folder, 24, 1, -0.3)


def categories(world: World, draws: Draws) -> None:
    load_categories(world.file("categories.tsv", draws.lines(b"1\n5\n7\n100\n")))


def partitions(world: World, draws: Draws) -> None:
    file = world.folder / "partition.npz"
    if not file.exists():
        save_partition(file, world.partition)
    load_partition(world.file("damaged.npz", _damaged_archive(draws, _saved(file)))).check(world.network)


def records(world: World, draws: Draws) -> None:
    """A record that is taken can be shown."""
    found = read_record(world.file("record.json", draws.json(world.record)))
    report(found)
    card(found)
    if found.traced:
        make_trace(found)


def forecasts(world: World, draws: Draws) -> None:
    read_forecast(world.file("forecast.json", draws.json({"network": "n", "workers": 3, "counters": {"gets": 1.0}})))


def prices(world: World, draws: Draws) -> None:
    text = draws.choice([PRICES, _shipped("estimate/prices/aws/us-east-1.toml")])
    load_prices(str(world.file("prices.toml", draws.toml(text))))


def conditions(world: World, draws: Draws) -> None:
    load_conditions(str(world.file("conditions.toml", draws.toml(_shipped("estimate/simulate/worlds/rough.toml")))))


def models(world: World, draws: Draws) -> None:
    load_model(str(world.file("model.toml", draws.toml(_shipped("estimate/models/aws.toml")))))


def configurations(world: World, draws: Draws) -> None:
    load_config(world.file("fsd.toml", draws.toml(CONFIG)), {})


def environments(world: World, draws: Draws) -> None:
    load_config(None, {draws.choice(VARIABLES): draws.choice(SETTINGS) for _ in range(draws.randint(1, 3))})


DECODERS = {
    "networks": networks,
    "sparse inputs": sparse_inputs,
    "dense inputs": dense_inputs,
    "texts": texts,
    "markets": markets,
    "graphs": graphs,
    "categories": categories,
    "partitions": partitions,
    "records": records,
    "forecasts": forecasts,
    "prices": prices,
    "conditions": conditions,
    "models": models,
    "configurations": configurations,
    "environments": environments,
}
