"""Configuration: precedence, origins, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.client import registry
from fsdcore.client.config import Config, load_config
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings, kinds
from fsdcore.errors import BackendNotFoundError, ConfigError, MissingExtraError


@dataclass(frozen=True)
class ToySettings:
    path: str = ".toy"
    size: int = 3
    strict: bool = False
    limit: float | None = None
    zones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size > 100:
            raise ConfigError("size must be at most 100")


class ToyBackend(Backend):
    name = "toy"
    summary = "for tests"
    channels = ("queue", "pigeon")
    settings_type = ToySettings

    store = compute = open_channel = channel_capabilities = None  # type: ignore[assignment]


class PlainBackend(ToyBackend):
    name = "toy-plain"


POINTS = [
    EntryPoint("local", f"{__name__}:ToyBackend", registry.GROUP),
    EntryPoint("toy", f"{__name__}:ToyBackend", registry.GROUP),
    EntryPoint("toy-plain", f"{__name__}:PlainBackend", registry.GROUP),
    EntryPoint("absent", "no_such_package_of_a_cloud:Backend", registry.GROUP),
]


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: POINTS)
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fsd.toml"


def load(text: str, file: Path, environ: dict[str, str] | None = None, **arguments: Any) -> Config:
    file.write_text(text)
    return load_config(file, environ or {}, **arguments)


def refusal(text: str, file: Path, environ: dict[str, str] | None = None, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, file, environ, **arguments)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_without_any_source_all_is_default() -> None:
    config = load_config(environ={})
    assert config.run == RunSettings()
    assert config.backend_settings == ToySettings()
    assert set(config.origins.values()) == {"default"}
    assert set(config.origins) == set(kinds(RunSettings)) | {f"local.{f.name}" for f in fields(ToySettings)}


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    text = "workers = 2\nseed = 2\nbranching = 2\n[local]\npath = 'file'\nsize = 2\n"
    environ = {"FSD_WORKERS": "3", "FSD_SEED": "3", "FSD_LOCAL_PATH": "env", "OTHER": "x"}
    config = load(text, file, environ, workers=4, settings={"strict": True})
    assert (config.run.workers, config.run.seed, config.run.branching) == (4, 3, 2)
    assert config.backend_settings == ToySettings(path="env", size=2, strict=True)
    assert config.origins["workers"] == "argument"
    assert config.origins["seed"] == "environment FSD_SEED"
    assert config.origins["branching"] == f"file {file}"
    assert config.origins["local.path"] == "environment FSD_LOCAL_PATH"
    assert config.origins["local.strict"] == "argument"
    assert config.origins["local.limit"] == "default"


@given(values=st.lists(st.none() | st.integers(1, 60_000), min_size=3, max_size=3))
def test_the_last_source_that_speaks_decides(
    values: list[int | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    in_file, in_environment, argument = values
    file = tmp_path_factory.mktemp("c") / "fsd.toml"
    text = "" if in_file is None else f"workers = {in_file}\n[toy]\nsize = {in_file % 101}\n"
    environ = {"FSD_BACKEND": "toy"}
    if in_environment is not None:
        environ |= {"FSD_WORKERS": str(in_environment), "FSD_TOY_SIZE": str(in_environment % 101)}
    settings = None if argument is None else {"size": argument % 101}
    config = load(text, file, environ, workers=argument, settings=settings)
    spoken = [value for value in values if value is not None]
    names = [f"file {file}", "environment FSD_WORKERS", "argument"]
    origins = [name for name, value in zip(names, values, strict=True) if value is not None]
    assert config.run.workers == (spoken[-1] if spoken else RunSettings().workers)
    assert config.backend_settings.size == (spoken[-1] % 101 if spoken else ToySettings.size)
    assert config.origins["workers"] == (origins[-1] if origins else "default")


def test_the_environment_may_name_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text("workers = 5")
    other = tmp_path / "other.toml"
    other.write_text("workers = 6")
    environ = {"FSD_CONFIG": str(other)}
    assert load_config(environ=environ).run.workers == 6
    assert load_config(file, environ).run.workers == 5, "an argument wins over FSD_CONFIG"


def test_types_of_the_environment_are_read_from_text() -> None:
    environ = {
        "FSD_BACKEND": "toy-plain",
        "FSD_CHANNEL": "pigeon",
        "FSD_DEADLINE_SECONDS": "2.5",
        "FSD_RUN_SECONDS": "3",
        "FSD_TOY_PLAIN_STRICT": "true",
        "FSD_TOY_PLAIN_LIMIT": "1e3",
        "FSD_TOY_PLAIN_ZONES": "a, b",
        "FSD_TOY_SIZE": "not for this run",
        "FSD_WORKERS": "",
    }
    config = load_config(environ=environ)
    assert config.run == RunSettings(backend="toy-plain", channel="pigeon", deadline_seconds=2.5, run_seconds=3.0)
    assert config.backend_settings == ToySettings(strict=True, limit=1000.0, zones=("a", "b"))
    assert config.origins["workers"] == "default", "an empty variable is one that is not set"
    assert config.origins["toy-plain.zones"] == "environment FSD_TOY_PLAIN_ZONES"


def test_paths_and_numpy_numbers_are_good_arguments() -> None:
    config = load_config(environ={}, workers=np.int64(3), settings={"path": Path("a") / "b"})
    assert config.run.workers == 3
    assert type(config.run.workers) is int
    assert config.backend_settings.path == str(Path("a/b"))


def test_tables_of_other_backends_are_for_other_runs(file: Path) -> None:
    config = load("backend = 'toy'\n[absent]\nregion = 'x'\n[local]\nnonsense = 1\n", file)
    assert config.backend_settings == ToySettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workres = 3", "unknown key 'workres'; did you mean 'workers'?"),
        ("[locl]\npath = 'x'", "unknown table 'locl'; did you mean 'local'?"),
        ("local = 3", "local must be a table, [local], with the settings of that backend"),
        ("[local]\npaht = 'x'", "backend 'local' has no setting 'paht'; did you mean 'path'?"),
        ("[local]\nsize = 'x'", "local.size: expected int, got str"),
        ("workers = '8'", "workers: expected int, got str '8'"),
        ("workers = 8.0", "workers: expected int, got float"),
        ("workers = true", "workers: expected int, got bool"),
        ("workers = 0", "workers must be at least 1, not 0"),
        ("seed = -1", "seed must be at least 0, not -1"),
        ("deadline_seconds = 0", "deadline_seconds must be above 0, not 0"),
        ("deadline_seconds = nan", "deadline_seconds must be a finite number, not nan"),
        ("run_seconds = 1e9", "run_seconds must be at most 604800, not 1000000000"),
        ("channel = ''", "channel must not be empty"),
        ("method = 'blok'", "method must be one of hypergraph, block, random, not 'blok'"),
        ("channel = 'queu'", "backend 'local' has no channel 'queu'; did you mean 'queue'?"),
    ],
)
def test_a_refusal_names_the_file(text: str, message: str, file: Path) -> None:
    assert refusal(text, file).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"workers = 1\nseed =\n", 2, "Invalid value"),
        (b"workers = 1\nchannel = 'que\n", 2, ""),
        (b"a = 1\nb = '''", 2, "Expected"),
        (b"a = 1\n\nb = '\xff'\n", 3, "not UTF-8 text"),
        (b"a = 1\na = 2\n", 2, "Cannot overwrite a value"),
    ],
)
def test_broken_toml_names_file_and_line(text: bytes, line: int, message: str, file: Path) -> None:
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert caught.value.message.startswith(f"{file}:{line}: {message}")
    assert "(at " not in caught.value.message


@pytest.mark.parametrize("text", [b"x = " + b"[" * 50_000, b"x = " + b"9" * 10_000, b"x = 1 \0"])
def test_hostile_toml_is_one_line_too(text: bytes, file: Path) -> None:
    file.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert caught.value.message.startswith(str(file))


@pytest.mark.parametrize("name", ["absent.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(f"{tmp_path}/{name}", {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"FSD_WORKRES": "3"}, "unknown environment variable FSD_WORKRES; did you mean 'FSD_WORKERS'?"),
        ({"FSD_workers": "3"}, "unknown environment variable FSD_workers"),
        ({"FSD_LOCAL_PAHT": "3"}, "environment FSD_LOCAL_PAHT: backend 'local' has no setting 'paht'"),
        ({"FSD_WORKERS": "abc"}, "environment FSD_WORKERS: workers: expected int, got str 'abc'"),
        ({"FSD_WORKERS": "0"}, "environment FSD_WORKERS: workers must be at least 1, not 0"),
        ({"FSD_RUN_SECONDS": "inf"}, "environment FSD_RUN_SECONDS: run_seconds must be a finite number"),
        ({"FSD_LOCAL_SIZE": "7.5"}, "environment FSD_LOCAL_SIZE: local.size: expected int"),
        ({"FSD_LOCAL_STRICT": "maybe"}, "environment FSD_LOCAL_STRICT: local.strict: expected bool"),
        ({"FSD_LOCAL_SIZE": "101"}, "environment FSD_LOCAL_SIZE: local.size must be at most 100"),
    ],
)
def test_a_refusal_names_the_variable(environ: dict[str, str], message: str, file: Path) -> None:
    assert refusal("", file, environ).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wrokers": 3}, "unknown argument 'wrokers'; did you mean 'workers'?"),
        ({"workers": "3"}, "workers: expected int, got str '3'"),
        ({"workers": 70_000}, "workers must be at most 65535, not 70000"),
        ({"settings": {"pth": "x"}}, "backend 'local' has no setting 'pth'; did you mean 'path'?"),
        ({"settings": {"path": 3}}, "local.path: expected str, got int"),
    ],
)
def test_a_refusal_of_an_argument(arguments: dict[str, Any], message: str, file: Path) -> None:
    assert refusal("", file, **arguments) == message


def test_a_backend_that_is_not_there_names_who_asked(file: Path) -> None:
    file.write_text("backend = 'locl'")
    with pytest.raises(BackendNotFoundError, match=r"fsd.toml: there is no backend 'locl'; did you mean"):
        load_config(file, {})
    with pytest.raises(BackendNotFoundError, match=r"^there is no backend 'locl'"):
        load_config(environ={}, backend="locl")
    with pytest.raises(MissingExtraError, match=r"environment FSD_BACKEND: backend 'absent' needs .* pip install"):
        load_config(environ={"FSD_BACKEND": "absent"})


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"workers": "8"}, {"workers": True}, {"backend": ""}, {"run_seconds": -1.0}]
)
def test_settings_made_by_hand_are_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RunSettings(**wrong)


def test_whole_numbers_are_good_seconds() -> None:
    settings = RunSettings(deadline_seconds=5)
    assert (settings.deadline_seconds, type(settings.deadline_seconds)) == (5.0, float)


@given(st.text(max_size=12).filter(lambda key: key not in kinds(RunSettings)))
def test_no_unknown_key_is_passed_over(key: str) -> None:
    if key not in {"file", "environ", "settings", "assignments"}:
        arguments: dict[str, Any] = {key: 1}
        with pytest.raises(ConfigError, match="unknown argument"):
            load_config(None, {}, **arguments)
    with pytest.raises(ConfigError, match="unknown environment variable"):
        load_config(environ={f"FSD_{key.upper()}_": "1"})


def test_assignments_are_text_and_come_last() -> None:
    config = load_config(
        environ={}, settings={"path": "a", "size": 1}, assignments=["size = 7", "path=x=y", "zones=a,b"]
    )
    settings = config.backend_settings
    assert (settings.path, settings.size, settings.zones) == ("x=y", 7, ("a", "b"))
    assert config.origins["local.size"] == "--set size"


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("size", "--set size: must be KEY=VALUE, such as name=demo"),
        ("=3", "--set =3: must be KEY=VALUE, such as name=demo"),
        ("size=much", "--set size: local.size: expected int, got str"),
        ("sise=3", "--set sise: backend 'local' has no setting 'sise'; did you mean 'size'?"),
    ],
)
def test_assignments_that_are_wrong_say_which(assignment: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environ={}, assignments=[assignment])
    assert str(caught.value) == problem


OF_SERVICES = {
    "SERVICE_HOST": "10.0.0.5",
    "SERVICE_PORT": "80",
    "SERVICE_PORT_HTTP": "80",
    "PORT": "tcp://10.0.0.5:80",
    "PORT_80_TCP": "tcp://10.0.0.5:80",
    "PORT_80_TCP_PROTO": "tcp",
    "PORT_80_TCP_PORT": "80",
    "PORT_80_TCP_ADDR": "10.0.0.5",
    "PORT_53_UDP": "udp://10.0.0.5:53",
}


@pytest.mark.parametrize("service", ["FSD", "FSD_LOCAL", "FSD_AWS", "FSD_GCP", "FSD_WORKERS", "FSD_MY_OTHER"])
def test_variables_that_an_orchestrator_sets_for_a_service_are_passed_over(service: str) -> None:
    environ = {f"{service}_{name}": value for name, value in OF_SERVICES.items()}
    assert load_config(environ=environ) == load_config(environ={})


@pytest.mark.parametrize(
    "environ", [{"FSD_PORT": "80"}, {"FSD_SERVICE": "x"}, {"FSD_LOCAL_PORT": "80"}, {"FSD_SERVICE_HOSTS": "x"}]
)
def test_other_variables_are_refused_as_ever(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        load_config(environ=environ)


def test_the_bound_of_what_unpacks_is_known() -> None:
    assert load_config(environ={"FSD_UNPACK_MB": "5"}) == load_config(environ={})
    with pytest.raises(ConfigError, match="FSD_UNPACK_MB"):
        load_config(environ={"FSD_UNPACK_MIB": "5"})


def test_a_setting_that_a_backend_refuses_is_named_by_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "fsd.toml").write_text("[local]\nsize = 101\n")
    with pytest.raises(ConfigError, match=r"fsd\.toml: local\.size must be at most 100"):
        load_config(tmp_path / "fsd.toml", environ={})
