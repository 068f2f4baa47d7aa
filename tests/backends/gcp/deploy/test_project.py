"""What a project must have, and one clear line and exit code 2 for each thing that is wrong, through ``fsd``."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.management import Management
from fsd_gcp.deploy.project import APIS, Room, room
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.cli.app import app
from fsdcore.errors import ConfigError
from tests.backends.gcp.deploy.conftest import BackendMaker


def fsd(*command: str) -> Result:
    return CliRunner().invoke(app, command)


def refused(*command: str) -> str:
    """The one line that a command ends with, which must be the user's to mend."""
    done = fsd(*command)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fsd: error:")]
    assert done.exit_code == 2, done.output
    return line


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A small network and inputs of it, to be run by the deployment of these tests."""
    monkeypatch.setenv("FSD_GCP_NAME", "demo")
    network, samples = str(tmp_path / "net.safetensors"), str(tmp_path / "inputs.npz")
    assert fsd("generate", "radixnet", "--neurons", "1024", "--layers", "2", "-o", network).exit_code == 0
    assert fsd("generate", "digits", "--samples", "10", "--neurons", "1024", "-o", samples).exit_code == 0
    return network, samples


def a_run(inputs: tuple[str, str], workers: int = 2) -> tuple[str, ...]:
    return ("run", *inputs, "--backend", "gcp", "--workers", str(workers))


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: tuple[str, str]) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "FSD_GCP_PROJECT", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true", "FSD_GCP_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    for command in ("status", "deploy"):
        assert "there are no Google Cloud credentials; run: gcloud auth" in refused(command, "gcp")
    assert "there are no Google Cloud credentials; run: gcloud auth" in refused(*a_run(inputs))
    told = fsd("doctor", "gcp")
    assert (told.exit_code, "FAIL" in told.stdout, "gcloud auth" in told.stdout) == (1, True, True)


@pytest.mark.parametrize("command", ["status", "deploy", "run"])
def test_a_project_that_there_is_not(
    make_backend: BackendMaker, management: Management, inputs: tuple[str, str], command: str
) -> None:
    del make_backend
    management.denied_projects.add(PROJECT)
    line = refused(*(a_run(inputs) if command == "run" else (command, "gcp", "--name", "demo")))
    assert f"project '{PROJECT}' does not exist, or these credentials may not use it" in line


def test_doctor_tells_of_a_project_that_there_is_not(make_backend: BackendMaker, management: Management) -> None:
    del make_backend
    management.denied_projects.add(PROJECT)
    told = fsd("doctor", "gcp", "--name", "demo")
    assert (told.exit_code, f"project '{PROJECT}' does not exist" in told.stdout) == (1, True)


@pytest.mark.parametrize("api", APIS)
def test_a_service_that_is_not_enabled(make_backend: BackendMaker, management: Management, api: str) -> None:
    backend = make_backend()
    management.disabled_apis.add(api)
    line = refused("deploy", "gcp", "--name", "demo", "--max-workers", "2")
    assert f"the API {api} is not enabled; run: gcloud services enable {api} --project {PROJECT}" in line
    told = fsd("doctor", "gcp", "--name", "demo")
    assert (told.exit_code, f"FAIL  services: not enabled: {api}; run: gcloud services enable" in told.stdout) == (
        1,
        True,
    )
    management.disabled_apis.clear()
    assert backend.provisioner().status().resources == (), "nothing may be made before the check"


def test_a_service_that_was_disabled_later(
    make_backend: BackendMaker, management: Management, inputs: tuple[str, str]
) -> None:
    make_backend().provisioner().deploy(2)
    management.disabled_apis.add("cloudfunctions.googleapis.com")
    assert "gcloud services enable cloudfunctions.googleapis.com" in refused(*a_run(inputs))


def test_without_a_deployment(make_backend: BackendMaker, inputs: tuple[str, str]) -> None:
    del make_backend
    missing = f"there is no deployment 'demo' in {REGION} of project {PROJECT}; run: fsd deploy gcp --name demo"
    assert missing in refused(*a_run(inputs))
    assert "there is no deployment 'demo'" in refused("status", "gcp", "--name", "demo")


def test_a_quota_that_is_too_small(make_backend: BackendMaker, management: Management) -> None:
    backend = make_backend()
    management.quotas["CpuAllocPerProjectRegion"] = 20_000
    line = refused("deploy", "gcp", "--name", "demo", "--max-workers", "62")
    assert "CpuAllocPerProjectRegion of Cloud Run in europe-west1 allows 20 instances, 62 are wanted" in line
    assert backend.provisioner().status().resources == ()
    told = fsd("doctor", "gcp", "--set", "name=demo", "--set", "lanes=3")
    assert "FAIL  instances: 20 of 2,048 MB by CpuAllocPerProjectRegion, 24 wanted" in told.stdout


def test_a_bucket_that_is_gone(make_backend: BackendMaker, inputs: tuple[str, str]) -> None:
    backend = make_backend()
    backend.provisioner().deploy(2)
    backend.clients.storage.bucket(f"fsd-demo-{PROJECT}").delete()
    line = refused(*a_run(inputs))
    assert f"the bucket 'fsd-demo-{PROJECT}' does not exist; run: fsd deploy gcp" in line


def test_more_workers_than_the_deployment_has(make_backend: BackendMaker, inputs: tuple[str, str]) -> None:
    make_backend().provisioner().deploy(2)
    assert "3 workers are more than the 2 this backend can run" in refused(*a_run(inputs, workers=3))


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("name=a", "name must be 2 to 24"),
        ("callers=ann@example.com", "callers: 'ann@example.com' is none; one is such as user:ann@example.com"),
        ("cpu=many", "cpu must be 1, 2, 4, 6 or 8 processors"),
        ("cpu=3", "or 0.08 to 0.99 of one, not '3'"),
        ("cpu=0.05", "or 0.08 to 0.99 of one, not '0.05'"),
        ("project=bad project!", "project must be the id of one, 6 to 30 lower-case letters"),
        ("region=europe west4", "region must be the name of one, such as europe-west4, not 'europe west4'"),
        ("region=europe", "region must be the name of one, such as europe-west4, not 'europe'"),
        ("region=europe-west1-b", "region must be the name of one, such as europe-west4, not 'europe-west1-b'"),
        ("storage_endpoint=127.0.0.1:4443", "storage_endpoint must be such as http://127.0.0.1:4443"),
        ("functions_endpoint=http://127.0.0.1:4443/v2", "functions_endpoint must be such as http://"),
        ("pubsub_endpoint=http://127.0.0.1:8085", "pubsub_endpoint must be such as 127.0.0.1:8085"),
        ("memory_mb=1", "memory_mb must be at least 256, not 1"),
    ],
)
def test_settings_that_cannot_be(assignment: str, text: str) -> None:
    assert text in refused("deploy", "gcp", "--dry-run", "--set", assignment)


ACCOUNTS = (
    "builds@p.iam.gserviceaccount.com",
    "1-compute@developer.gserviceaccount.com",
    "p@appspot.gserviceaccount.com",
)


@pytest.mark.parametrize("email", ACCOUNTS)
def test_accounts_that_can_build_and_call(email: str) -> None:
    GcpSettings(build_account=email, callers=f"serviceAccount:{email}")


@pytest.mark.parametrize(
    "email",
    [
        "ann@example.com",
        "x.gserviceaccount.com",
        "@p.iam.gserviceaccount.com",
        "a b@p.iam.gserviceaccount.com",
        "a@b@p.iam.gserviceaccount.com",
        "projects/p/serviceAccounts/a@p.iam.gserviceaccount.com",
        "serviceAccount:a@p.iam.gserviceaccount.com",
        "a@p.iam.gserviceaccount.com,",
        "a@gserviceaccount.com.example.com",
    ],
)
def test_only_service_accounts_build(email: str) -> None:
    with pytest.raises(ConfigError, match=r"build_account must be the e-mail of a service account, such as builds@"):
        GcpSettings(build_account=email)


POOLS = "projects/1/locations/global/workloadIdentityPools/ci", "locations/global/workforcePools/all"


@pytest.mark.parametrize(
    "member",
    [
        "user:Ann.Ann+1@mail.example.com",
        "group:team@example.com",
        "domain:example.com",
        "serviceAccount:p.svc.id.goog[default/robot]",
        *(f"principal://iam.googleapis.com/{pool}/subject/repo:a/b:main" for pool in POOLS),
        *(f"principalSet://iam.googleapis.com/{pool}/*" for pool in POOLS),
        "principalSet://iam.googleapis.com/locations/global/workforcePools/all/group/team",
    ],
)
def test_members_that_can_call(member: str) -> None:
    assert GcpSettings(callers=f" {member},").members == [member]


@pytest.mark.parametrize(
    "member",
    [
        "user:ann",
        "user:@",
        "user:ann@example",
        "user:@example.com",
        "user:a/b@example.com",
        "User:ann@example.com",
        "group:",
        "group:team",
        "domain:a@example.com",
        "domain:example",
        "serviceAccount:x",
        "serviceAccount:ann@example.com",
        "principal://iam.googleapis.com/x",
        "principal://iam.googleapis.com/projects/my-project/locations/global/workloadIdentityPools/ci/subject/x",
        "principal://example.com/locations/global/workforcePools/all/subject/x",
        "deleted:user:ann@example.com",
        "allUsers",
    ],
)
def test_members_that_cannot_be(member: str) -> None:
    with pytest.raises(ConfigError, match=r"callers: .* is none; one is such as user:ann@example\.com"):
        GcpSettings(callers=member)


def test_a_project_of_the_environment_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text('{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}')
    monkeypatch.delenv("FSD_GCP_PROJECT", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "Bad Project")
    monkeypatch.setenv("FSD_GCP_REGION", REGION)
    assert "project must be the id of one" in refused("deploy", "gcp")


def test_the_file_of_credentials_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    monkeypatch.setenv("FSD_GCP_REGION", REGION)
    named = f"there are no Google Cloud credentials in {tmp_path / 'none.json'}, which GOOGLE_APPLICATION_CREDENTIALS"
    assert named in refused("status", "gcp")


def test_doctor_finds_everything_as_it_must_be(make_backend: BackendMaker) -> None:
    make_backend().provisioner().deploy(8)
    told = fsd("doctor", "gcp", "--name", "demo")
    assert told.exit_code == 0
    names = [line.split()[1] for line in told.stdout.splitlines()]
    assert names == ["credentials:", "project:", "services:", "instances:", "builder:", "deployment:"]


def test_doctor_passes_over_quotas_that_cannot_be_seen(make_backend: BackendMaker, management: Management) -> None:
    make_backend().provisioner().deploy(8)
    management.disabled_apis.add("cloudquotas.googleapis.com")
    told = fsd("doctor", "gcp", "--name", "demo")
    assert (told.exit_code, "ok    instances: not known how many" in told.stdout) == (0, True)


@pytest.mark.parametrize(
    ("settings", "quotas", "expected"),
    [
        ({"memory_mb": 2_048}, {"Cpu": 20_000, "Mem": 1 << 40}, Room(20, "CpuAllocPerProjectRegion")),
        ({"memory_mb": 3_000}, {"Cpu": 20_000, "Mem": 1 << 40}, Room(10, "CpuAllocPerProjectRegion")),
        ({"memory_mb": 32_768}, {"Cpu": 20_000, "Mem": 1 << 40}, Room(2, "CpuAllocPerProjectRegion")),
        ({"memory_mb": 2_048, "cpu": "4"}, {"Cpu": 20_000, "Mem": 1 << 40}, Room(5, "CpuAllocPerProjectRegion")),
        ({"memory_mb": 2_048}, {"Cpu": -1, "Mem": 40 << 30}, Room(20, "MemAllocPerProjectRegion")),
        ({"memory_mb": 2_048}, {"Cpu": -1, "Mem": -1}, Room(None, f"no quota of Cloud Run is known for {REGION}")),
    ],
)
def test_how_many_instances_there_is_room_for(
    make_backend: BackendMaker,
    management: Management,
    settings: dict[str, object],
    quotas: dict[str, int],
    expected: Room,
) -> None:
    backend = make_backend(**settings)
    for name, value in quotas.items():
        management.quotas[f"{name}AllocPerProjectRegion"] = value
    assert isinstance(backend.settings, GcpSettings)
    wanted = Deployment.of(backend.settings, project=PROJECT, workers=1)
    assert room(backend.clients.rest, wanted) == expected
