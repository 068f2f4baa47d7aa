"""moto, a second emulator of AWS, as a process of its own environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsd_emulators.processes import HOST, ServerProcess, free_port, http_ready

_SERVER = Path(__file__).resolve().parents[4] / ".venv-moto" / "bin" / "moto_server"


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, where the SDK finds it; the credentials are anything."""
    if not _SERVER.is_file():
        pytest.skip("needs moto in .venv-moto; run: make test-all")
    folder, port = tmp_path_factory.mktemp("moto"), free_port()
    url = f"http://{HOST}:{port}"
    server = ServerProcess(
        "moto",
        [_SERVER, "-H", HOST, "-p", str(port)],
        folder=folder,
        log=folder / "moto.log",
        ready=http_ready(f"{url}/moto-api/"),
    )
    server.start()
    yield url
    server.stop()


@pytest.fixture(scope="session")
def moto_variables(moto: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
