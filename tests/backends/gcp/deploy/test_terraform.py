"""The Terraform module describes what `fsd deploy gcp` makes: names, numbers, labels, roles."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import hcl2
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

import fsd_gcp
from fsd_gcp.deploy.access import GRANTS
from fsd_gcp.deploy.claims import BUILDS, WORKERS, description
from fsd_gcp.deploy.function import function_of
from fsd_gcp.deploy.package import ENTRY
from fsd_gcp.deploy.project import APIS
from fsd_gcp.deploy.project import ROLES as BUILDING
from fsd_gcp.deploy.resources import make_bucket, subscription_of
from fsd_gcp.deployment import VARIABLE, Deployment
from fsd_gcp.settings import GcpSettings

FOLDER = Path(fsd_gcp.__path__[0]).parent / "terraform"
DIGEST = "0A" * 32
SETTINGS = GcpSettings(name="demo", region="europe-west4", python="3.12", lanes=2, cpu="2", ack_deadline=30, run_days=3)
DEPLOYMENT = Deployment.of(SETTINGS, project="p", workers=3)
GIVEN: dict[str, Any] = {
    **{field.name: getattr(SETTINGS, field.name) for field in dataclasses.fields(SETTINGS)},
    "project": "p",
    "workers": 3,
    "source_digest": DIGEST,
    "source_zip": "source.zip",
}
LANE, RANK = 1, 2
MEMBER = f"serviceAccount:{DEPLOYMENT.service_account}"
TERRAFORM = shutil.which("terraform")

# What an expression that is more than a reference stands for; one that is not here must be added, and thought about.
FUNCTIONS: dict[str, Any] = {
    "merge(local.labels, {fsd-source = substr(lower(var.source_digest), 0, 40)})": {
        **DEPLOYMENT.labels,
        "fsd-source": DIGEST[:40].lower(),
    },
    'replace(var.python, ".", "")': GIVEN["python"].replace(".", ""),
    'var.cpu == "" ? null : var.cpu': GIVEN["cpu"] or None,
    "var.workers * var.lanes": DEPLOYMENT.workers * DEPLOYMENT.lanes,
    "jsonencode(local.deployment)": DEPLOYMENT,
    "google_service_account.workers.email": DEPLOYMENT.service_account,
    "google_service_account.workers.name": f"projects/p/serviceAccounts/{DEPLOYMENT.service_account}",
    "google_storage_bucket.objects.name": DEPLOYMENT.bucket,
    "google_storage_bucket_object.source.name": f"source/{DIGEST}.zip",
    "google_pubsub_topic.rank[each.key].id": DEPLOYMENT.topic(LANE, RANK),
    "google_pubsub_topic.rank[each.value[0]].name": f"fsd-demo-{LANE}-{RANK}",
    "google_pubsub_subscription.rank[each.value[0]].name": f"fsd-demo-{LANE}-{RANK}",
    "google_cloudfunctions2_function.worker.name": "fsd-demo",
    "each.key": f"{LANE}-{RANK}",
    "each.value": MEMBER,
    "each.value[1]": MEMBER,
    "google_service_account.builder[0].email": DEPLOYMENT.build_account,
    "local.builder": f"projects/p/serviceAccounts/{DEPLOYMENT.build_account}",
    "local.service_account": MEMBER,
}


def parsed(kind: str) -> list[Any]:
    """All blocks of a kind in the module."""
    found = []
    for file in sorted(FOLDER.glob("*.tf")):
        with file.open() as stream:
            found += hcl2.load(stream).get(kind, [])
    return [_unquoted(block) for block in found]


def _unquoted(value: Any) -> Any:
    """As parsed, without the quotes of strings and the marks of blocks."""
    if isinstance(value, Mapping):
        return {_unquoted(key): _unquoted(item) for key, item in value.items() if key != "__is_block__"}
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


LOCALS: dict[str, Any] = {key: value for block in parsed("locals") for key, value in block.items()}
# Those of the builder and the project have tests of their own.
_APART = {"builder", "api"}
NAMED: dict[tuple[str, str], dict[str, Any]] = {
    (kind, name): block
    for found in parsed("resource")
    for kind, named in found.items()
    for name, block in named.items()
}
RESOURCES: dict[str, dict[str, Any]] = {kind: block for (kind, name), block in NAMED.items() if name not in _APART}
VARIABLES: dict[str, Any] = {name: block for variable in parsed("variable") for name, block in variable.items()}


def resolved(value: Any) -> Any:
    """The value with everything put in that it refers to."""
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\$\{([^{}]*(?:\{[^{}]*\}[^{}]*)?)\}", value)
    if whole:
        return _meaning(whole[1])
    return re.sub(r"\$\{([^{}]+)\}", lambda found: str(_meaning(found[1])), value)


def _meaning(expression: str) -> Any:
    if expression in FUNCTIONS:
        return FUNCTIONS[expression]
    kind, _, name = expression.partition(".")
    return GIVEN[name] if kind == "var" else resolved({"local": LOCALS}[kind][name])


def resource(kind: str, name: str = "") -> dict[str, Any]:
    found = NAMED[kind, name] if name else RESOURCES[kind]
    return {key: resolved(value) for key, value in found.items() if key not in ("for_each", "count", "depends_on")}


def test_what_workers_and_clients_read_is_the_deployment() -> None:
    told = resolved(LOCALS["deployment"])
    assert Deployment.from_json(json.dumps(told)) == DEPLOYMENT
    endpoints = {field for field in Deployment.__struct_fields__ if field.endswith("_endpoint")}
    assert set(told) == set(Deployment.__struct_fields__) - endpoints


def test_variables_are_the_settings_with_their_defaults() -> None:
    own = {"project", "region", "workers", "source_zip", "source_digest", "python"}
    settings = {field.name: field.default for field in dataclasses.fields(GcpSettings)}
    assert {name for name in VARIABLES if "default" not in VARIABLES[name]} == own
    told = {name: block["default"] for name, block in VARIABLES.items() if name not in own}
    assert told.pop("callers") == []
    assert told == {name: settings[name] for name in told}
    assert {*told, *own, "callers"} >= {name for name in settings if not name.endswith("_endpoint")}


def test_the_function_is_the_same() -> None:
    made = resource("google_cloudfunctions2_function")
    wanted = function_of(DEPLOYMENT, DIGEST, DEPLOYMENT.build_account)
    assert f"projects/{made['project']}/locations/{made['location']}/functions/{made['name']}" == wanted.name
    assert made["labels"] == dict(wanted.labels)
    (built,), (service,) = made["build_config"], made["service_config"]
    assert (built["runtime"], built["entry_point"]) == (wanted.build_config.runtime, wanted.build_config.entry_point)
    assert built["entry_point"] == ENTRY
    assert built["service_account"] == wanted.build_config.service_account
    assert service.pop("environment_variables") == {VARIABLE: DEPLOYMENT}
    assert service.pop("ingress_settings") == wanted.service_config.ingress_settings.name
    assert service == {name: getattr(wanted.service_config, name) for name in service}
    told = {field.name for field, _ in type(wanted.service_config).pb(wanted.service_config).ListFields()}
    assert {*service, "environment_variables", "ingress_settings"} == told


def test_topics_and_subscriptions_are_the_same() -> None:
    topic, made = resource("google_pubsub_topic"), resource("google_pubsub_subscription")
    wanted = subscription_of(DEPLOYMENT, LANE, RANK)
    assert f"projects/{topic['project']}/topics/{topic['name']}" == DEPLOYMENT.topic(LANE, RANK)
    assert topic["labels"] == made["labels"] == dict(wanted.labels)
    assert f"projects/{made['project']}/subscriptions/{made['name']}" == wanted.name
    assert made["topic"] == wanted.topic
    assert made["ack_deadline_seconds"] == wanted.ack_deadline_seconds
    assert made["message_retention_duration"] == f"{wanted.message_retention_duration.total_seconds():.0f}s"
    assert made["expiration_policy"] == [{"ttl": ""}]
    assert not wanted.expiration_policy.ttl
    assert "filter" not in made
    assert {RESOURCES[f"google_pubsub_{kind}"]["for_each"] for kind in ("topic", "subscription")} == {
        "${local.endpoints}"
    }


def test_the_bucket_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made, wanted = resource("google_storage_bucket"), dict[str, Any]()

    def post(_: str, content: dict[str, Any], **__: Any) -> dict[str, Any]:
        wanted.update(content)
        return {}

    with closing(Client("p", AnonymousCredentials())) as client:
        monkeypatch.setattr(client, "lookup_bucket", lambda *_, **__: None)
        monkeypatch.setattr(client, "list_buckets", lambda *_, **__: [])
        monkeypatch.setattr(client, "_post_resource", post)
        make_bucket(client, DEPLOYMENT)
    assert (made["name"], made["location"], made["labels"]) == (
        DEPLOYMENT.bucket,
        wanted["location"],
        wanted["labels"],
    )
    access = wanted["iamConfiguration"]
    assert made["uniform_bucket_level_access"] is access["uniformBucketLevelAccess"]["enabled"] is True
    assert made["public_access_prevention"] == access["publicAccessPrevention"]
    (soft,) = made["soft_delete_policy"]
    assert soft["retention_duration_seconds"] == int(wanted["softDeletePolicy"]["retentionDurationSeconds"])
    (rule,), (kept,) = made["lifecycle_rule"], wanted["lifecycle"]["rule"]
    (condition,), (action,) = rule["condition"], rule["action"]
    assert {"age": condition["age"], "matchesPrefix": condition["matches_prefix"]} == kept["condition"]
    assert action == kept["action"]


def test_the_service_account_is_the_same() -> None:
    made = resource("google_service_account")
    assert f"{made['account_id']}@{made['project']}.iam.gserviceaccount.com" == DEPLOYMENT.service_account
    assert made["description"] == description(DEPLOYMENT, WORKERS)


def test_the_builder_is_the_same() -> None:
    made, roles = resource("google_service_account", "builder"), NAMED["google_project_iam_member", "builder"]
    assert f"{made['account_id']}@{made['project']}.iam.gserviceaccount.com" == DEPLOYMENT.build_account
    assert made["description"] == description(DEPLOYMENT, BUILDS)
    assert resolved(roles["member"]) == f"serviceAccount:{DEPLOYMENT.build_account}"
    assert re.findall(r"roles/[\w.]+", LOCALS["building"]) == list(BUILDING)
    # None is made where one is brought; and the function waits for its roles.
    wanted = '${var.build_account == "" ? %s}'
    assert NAMED["google_service_account", "builder"]["count"] == wanted % "1 : 0"
    assert roles["for_each"] == wanted % "local.building : []"
    assert "google_project_iam_member.builder" in str(RESOURCES["google_cloudfunctions2_function"]["depends_on"])


def test_the_services_that_are_needed_are_enabled() -> None:
    assert [f"{name}.googleapis.com" for name in re.findall(r'"(\w+)"', LOCALS["apis"])] == list(APIS)
    assert resource("google_project_service", "api")["disable_on_destroy"] is False


def _waits(name: tuple[str, str], seen: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether a resource, or one that it is made of, is made after the services are enabled."""
    block = str(NAMED[name])
    if "google_project_service.api" in str(NAMED[name].get("depends_on", "")):
        return True
    used = {other for other in NAMED if other not in seen | {name} and f"{other[0]}.{other[1]}" in block + _via(block)}
    return any(_waits(other, seen | {name}) for other in used)


def _via(block: str) -> str:
    """The locals that a resource names, and those that they name."""
    found = " ".join(str(LOCALS[name]) for name in re.findall(r"local\.(\w+)", block))
    return found + _via(found) if found else ""


def test_nothing_is_made_before_its_service_is_enabled() -> None:
    late = [name for name in NAMED if name != ("google_project_service", "api")]
    assert len(late) > 10
    assert [name for name in late if not _waits(name)] == []


ROLES = {
    "google_storage_bucket_iam_member": "bucket",
    "google_pubsub_topic_iam_member": "topic",
    "google_pubsub_subscription_iam_member": "subscription",
    "google_service_account_iam_member": "account",
    "google_cloudfunctions2_function_iam_member": "function",
    "google_cloud_run_v2_service_iam_member": "service",
}
# For each of these sets of members: whether workers are among them, and whether callers are.
SETS = {
    "${local.members}": (True, True),
    "${local.places}": (True, True),
    "${local.invokers}": (True, True),
    "${var.callers}": (False, True),
}


def test_the_roles_are_the_same() -> None:
    made = {
        (resource(kind)["role"], on, *SETS[RESOURCES[kind]["for_each"]])
        for kind, on in ROLES.items()
        if resource(kind)["member"] == MEMBER
    }
    assert made == {(grant.role, grant.on, grant.workers, grant.callers) for grant in GRANTS}


# Of Terraform itself, which every resource has.
META = {"count", "depends_on", "for_each"}
# Those of maps are names of our own.
MAPS = {"labels", "environment_variables"}


def arguments(value: Any) -> set[str]:
    """The names of all arguments and blocks in a resource."""
    if isinstance(value, list):
        return set().union(*map(arguments, value))
    if not isinstance(value, dict):
        return set()
    own = {key: item for key, item in value.items() if not key.startswith("__")}
    return set(own).union(*(arguments(item) for key, item in own.items() if key not in MAPS))


def test_every_argument_is_in_the_providers_schema() -> None:
    """As it was read from the provider's own source; kept here, for the provider cannot be had everywhere."""
    schema = json.loads(Path(__file__).with_name("terraform_schema.json").read_text())["resources"]
    for (kind, _), block in NAMED.items():
        assert arguments(block) - META <= set(schema[kind]), kind


def test_nothing_else_is_made() -> None:
    source = "google_storage_bucket_object"
    described = {"google_service_account", "google_storage_bucket", "google_pubsub_topic", "google_pubsub_subscription"}
    assert set(RESOURCES) == {*described, "google_cloudfunctions2_function", *ROLES, source}
    assert not resource(source)["name"].startswith("runs/"), "it must outlive the runs"


def test_the_source_is_made_by_the_command(
    capsys: pytest.CaptureFixture[str], package_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(package_cache))
    monkeypatch.delitem(sys.modules, "fsd_gcp.deploy.package")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fsd_gcp.deploy.package", run_name="__main__")
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) <= set(VARIABLES)
    assert Path(told["source_zip"]).stat().st_size > 0


needs_terraform = pytest.mark.skipif(TERRAFORM is None, reason="the program terraform is not installed")


def program(folder: Path, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program, which needs no network for this, with no configuration of the user's."""
    settings = folder / "empty.tfrc"
    settings.touch()
    environ = {**os.environ, "TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1"}
    whole = [TERRAFORM or "terraform", *command]
    return subprocess.run(whole, cwd=folder, env=environ, input=text, capture_output=True, text=True, timeout=60)


@needs_terraform
def test_the_module_is_formatted(tmp_path: Path) -> None:
    done = program(tmp_path, "fmt", "-check", "-diff", str(FOLDER))
    assert (done.returncode, done.stdout) == (0, "")


@needs_terraform
def test_terraform_itself_finds_the_same(tmp_path: Path) -> None:
    """Of what needs no provider: the locals, with the name of the service account put in."""
    ann, robot, team = "user:ann@example.com", "serviceAccount:ci@q.iam.gserviceaccount.com", "group:team@example.com"
    shutil.copy(FOLDER / "variables.tf", tmp_path)
    own = (FOLDER / "locals.tf").read_text()
    known = own.replace("${google_service_account.workers.email}", DEPLOYMENT.service_account)
    known = known.replace("google_service_account.builder[0].id", '"builder"')
    (tmp_path / "locals.tf").write_text(known)
    given = {name: value for name, value in GIVEN.items() if name in VARIABLES}
    (tmp_path / "given.auto.tfvars.json").write_text(json.dumps({**given, "callers": [ann, robot, team]}))
    names = ("deployment", "endpoints", "stem", "labels", "members", "invokers", "places")
    done = program(tmp_path, "console", text=f"jsonencode([{', '.join(f'local.{name}' for name in names)}])")
    assert done.returncode == 0, done.stderr
    found = dict(zip(names, json.loads(json.loads(done.stdout)), strict=True))
    assert Deployment.from_json(json.dumps(found["deployment"])) == DEPLOYMENT
    endpoints = {f"{lane}-{rank}" for lane, rank in DEPLOYMENT.endpoints()}
    assert set(found["endpoints"]) == endpoints
    assert (found["stem"], found["labels"]) == (DEPLOYMENT.stem, DEPLOYMENT.labels)
    assert set(found["members"].values()) == {MEMBER, ann, robot, team}
    assert set(found["invokers"].values()) == {MEMBER, robot, team}
    assert {tuple(pair) for pair in found["places"].values()} == set(product(endpoints, (MEMBER, ann, robot, team)))


# Where Terraform looks for providers of its own accord, without a network.
MIRRORS = (
    *(Path.home() / folder for folder in (".terraform.d/plugins", ".local/share/terraform/plugins")),
    *(Path(folder, "terraform/plugins") for folder in ("/usr/local/share", "/usr/share")),
)
PROVIDER = "registry.terraform.io/hashicorp/google"


@needs_terraform
@pytest.mark.skipif(
    not any((folder / PROVIDER).exists() for folder in MIRRORS),
    reason=f"the provider {PROVIDER} is in none of {', '.join(map(str, MIRRORS))}",
)
def test_terraform_finds_the_module_valid(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "module")
    begun = program(tmp_path, "-chdir=module", "init", "-backend=false", "-input=false")
    assert begun.returncode == 0, begun.stderr
    done = program(tmp_path, "-chdir=module", "validate", "-json")
    assert (json.loads(done.stdout)["valid"], done.returncode) == (True, 0), done.stdout
