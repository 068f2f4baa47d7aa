"""Whoever one is on Google Cloud, a run starts: by an identity of one's own, or by one that is borrowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.identities import MetadataServer
from fsd_emulators.gcp.local import LocalGcp
from fsd_gcp import GcpBackend
from fsd_gcp.settings import GcpSettings

PERSON, STRANGER = "ann@example.com", "eve@example.com"
ROBOT, MACHINE = f"robot@{PROJECT}.iam.gserviceaccount.com", "123-compute@developer.gserviceaccount.com"
WORKERS = f"fsd-who@{PROJECT}.iam.gserviceaccount.com"
PROGRAM = Path(__file__).with_name("as_somebody.py")
# A machine without a metadata server: nobody listens there.
LAPTOP = {"GCE_METADATA_HOST": "127.0.0.1:9", "GCE_METADATA_IP": "127.0.0.1:9"}


@pytest.fixture(scope="module")
def local_gcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGcp]:
    """With a deployment that a person, a robot and a machine may use, and a stranger may not."""
    folder = tmp_path_factory.mktemp("gcp")
    with LocalGcp(folder) as local, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        management = local.functions.management
        for email in (ROBOT, MACHINE):
            management.accounts[email] = {"name": f"projects/{PROJECT}/serviceAccounts/{email}", "uniqueId": email}
        settings = GcpSettings(
            name="who",
            project=PROJECT,
            region=REGION,
            callers=f"user:{PERSON},serviceAccount:{ROBOT},serviceAccount:{MACHINE}",
            storage_endpoint=local.storage.url,
            pubsub_endpoint=local.pubsub.target,
            functions_endpoint=local.functions.url,
        )
        with closing(GcpBackend(settings)) as backend:
            assert backend.provisioner().deploy(3).ready
        yield local


@pytest.fixture
def login(tmp_path: Path) -> Mapping[str, str]:
    """What `gcloud auth application-default login` leaves for a person."""
    return _file(tmp_path, {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": PERSON})


@pytest.fixture
def key(tmp_path: Path, local_gcp: LocalGcp) -> Mapping[str, str]:
    """A key of a service account."""
    private = rsa.generate_private_key(65_537, 2_048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": ROBOT, "private_key": private.decode(), "private_key_id": "1", "client_id": "1"}
    token_uri = f"{local_gcp.functions.url}/token"
    return _file(tmp_path, {"type": "service_account", "project_id": PROJECT, "token_uri": token_uri, **account})


@pytest.fixture
def machine() -> Iterator[Mapping[str, str]]:
    yield from _served(MetadataServer(PROJECT, MACHINE))


@pytest.fixture
def shell() -> Iterator[Mapping[str, str]]:
    """Cloud Shell, in which a person is logged in."""
    yield from _served(MetadataServer(PROJECT, PERSON, shell=True))


def _served(server: MetadataServer) -> Iterator[Mapping[str, str]]:
    server.open()
    yield server.environment
    server.end()


def _file(folder: Path, content: Mapping[str, str]) -> Mapping[str, str]:
    (folder / "credentials.json").write_text(json.dumps(content))
    return {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "credentials.json")}


def starters(local: LocalGcp, folder: Path, *variables: Mapping[str, str]) -> tuple[str, str]:
    """Run as whoever `variables` make one: who started the first worker, and the others; or the last error."""
    environ = {**os.environ, "HOME": str(folder), **local.environment, "FSD_GCP_NAME": "who"}
    for given in variables:
        environ.update(given)
    local.functions.callers.clear()
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environ, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        return "", done.stderr.strip().splitlines()[-1]
    first, *others = local.functions.callers
    assert len(others) == 2
    return first, ", ".join(sorted(set(others)))


def test_a_person_on_a_laptop_borrows(local_gcp: LocalGcp, login: Mapping[str, str], tmp_path: Path) -> None:
    assert starters(local_gcp, tmp_path, LAPTOP, login) == (WORKERS, WORKERS)


def test_a_person_on_a_machine_of_googles_does_not_start_as_the_machine(
    local_gcp: LocalGcp, login: Mapping[str, str], machine: Mapping[str, str], tmp_path: Path
) -> None:
    assert starters(local_gcp, tmp_path, machine, login) == (WORKERS, WORKERS)


def test_a_person_in_cloud_shell_borrows(local_gcp: LocalGcp, shell: Mapping[str, str], tmp_path: Path) -> None:
    assert starters(local_gcp, tmp_path, shell) == (WORKERS, WORKERS)


def test_a_key_is_an_identity_of_its_own(local_gcp: LocalGcp, key: Mapping[str, str], tmp_path: Path) -> None:
    assert starters(local_gcp, tmp_path, LAPTOP, key) == (ROBOT, WORKERS)


def test_a_machine_is_an_identity_of_its_own(local_gcp: LocalGcp, machine: Mapping[str, str], tmp_path: Path) -> None:
    assert starters(local_gcp, tmp_path, machine) == (MACHINE, WORKERS)


def test_who_may_not_borrow_is_told_which_role_is_missing(local_gcp: LocalGcp, tmp_path: Path) -> None:
    stranger = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": STRANGER}
    _, said = starters(local_gcp, tmp_path, LAPTOP, _file(tmp_path, stranger))
    assert "roles/iam.serviceAccountOpenIdTokenCreator on it is missing" in said
    assert "application-default login" not in said
