"""The function of a deployment: made, changed and removed by long-running operations that are followed to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
from google.api_core import exceptions
from google.cloud.functions_v2 import (
    BuildConfig,
    CreateFunctionRequest,
    Environment,
    Function,
    FunctionServiceClient,
    OperationMetadata,
    ServiceConfig,
    Stage,
    UpdateFunctionRequest,
)

from fsd_gcp.calls.connections import go_direct
from fsd_gcp.calls.errors import one_line
from fsd_gcp.deploy.claims import Claim, by_labels
from fsd_gcp.deploy.package import ENTRY
from fsd_gcp.deploy.settling import Settling, is_of_new_builder
from fsd_gcp.deployment import VARIABLE, Deployment
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import DeploymentError

if TYPE_CHECKING:
    from google.cloud.functions_v2 import StorageSource

    from fsdcore.deploy import Package
    from fsdcore.record.observer import Observer

# The label that tells which source a function was made of.
_SOURCE = "fsd-source"
_DIGEST = 40
_KEPT = ("max_instance_count", "max_instance_request_concurrency", "timeout_seconds", "service_account_email")
_TIMEOUT, _UPLOAD, _LONGEST = 60.0, 600.0, 1_800.0
_POLL_SECONDS = 0.5


def function_of(deployment: Deployment, digest: str, build_account: str = "") -> Function:
    """The function as it is made, but for its source; built by the project's default account if none is named."""
    builder = f"projects/{deployment.project}/serviceAccounts/{build_account}" if build_account else ""
    return Function(
        name=deployment.function,
        environment=Environment.GEN_2,
        labels={**deployment.labels, _SOURCE: digest[:_DIGEST].lower()},
        build_config=BuildConfig(
            runtime=f"python{deployment.python.replace('.', '')}", entry_point=ENTRY, service_account=builder
        ),
        service_config=ServiceConfig(
            available_memory=f"{deployment.memory_mb}Mi",
            available_cpu=deployment.cpu,
            timeout_seconds=deployment.timeout_seconds,
            max_instance_count=deployment.workers * deployment.lanes,
            max_instance_request_concurrency=1,
            environment_variables={VARIABLE: deployment.to_json()},
            ingress_settings=ServiceConfig.IngressSettings.ALLOW_ALL,
            service_account_email=deployment.service_account,
        ),
    )


def find_function(client: FunctionServiceClient, name: str) -> Function | None:
    """The function; None if there is none."""
    try:
        return client.get_function(name=name, timeout=_TIMEOUT)
    except exceptions.NotFound:
        return None


def claim_on_function(client: FunctionServiceClient, deployment: Deployment) -> Claim | Function | None:
    """The function; a claim if it was made for something else; None if there is none."""
    found = find_function(client, deployment.function)
    return found and (by_labels(deployment, f"function {deployment.stem}", found.labels) or found)


def _settled(client: FunctionServiceClient, name: str, observer: Observer) -> Function | None:
    """The function once nobody is changing it: an earlier call that was stopped may have left work under way."""
    deadline = Deadline.after(_LONGEST, SYSTEM_CLOCK)
    while (found := find_function(client, name)) is not None and found.state.name in ("DEPLOYING", "DELETING"):
        if deadline.passed():
            raise DeploymentError(f"{name.rpartition('/')[2]} is {found.state.name.lower()} without end")
        observer.progress("waiting for an earlier change", 0, 1)
        SYSTEM_CLOCK.sleep(_POLL_SECONDS)
    return found


def make_function(
    client: FunctionServiceClient,
    deployment: Deployment,
    package: Package,
    observer: Observer,
    build_account: str = "",
    settling: Settling | None = None,
) -> None:
    """Make the function, or change it; one that is as it should be is left alone.

    Again while accounts of the deployment that were just made are not known yet, or lack roles just given.
    """
    settling = settling or Settling(deployment.service_account, deployment.build_account)
    own = build_account == deployment.build_account

    def passes(error: exceptions.GoogleAPICallError, new: bool) -> bool:
        return settling.is_unknown(error, new) or (own and is_of_new_builder(error, new))

    settling.repeat(lambda: _make(client, deployment, package, observer, build_account), passes)


def _make(
    client: FunctionServiceClient, deployment: Deployment, package: Package, observer: Observer, build_account: str
) -> None:
    wanted = function_of(deployment, package.digest, build_account)
    found = _settled(client, deployment.function, observer)
    if found is not None and _is_same(found, wanted):
        return
    wanted.build_config.source.storage_source = _uploaded(client, deployment, package, observer)
    operation: Any
    if found is None:
        creation = CreateFunctionRequest(parent=deployment.parent, function=wanted, function_id=deployment.stem)
        operation = client.create_function(request=creation, timeout=_TIMEOUT)
    else:
        operation = client.update_function(request=UpdateFunctionRequest(function=wanted), timeout=_TIMEOUT)
    _follow(operation, "deploying the function", observer)


def _is_same(found: Function, wanted: Function) -> bool:
    """Whether it was made so and, in what may be changed by hand as well, still is."""
    told, tells = (one.service_config.environment_variables.get(VARIABLE) for one in (found, wanted))
    described, describes = ([getattr(one.service_config, field) for field in _KEPT] for one in (found, wanted))
    same_source = found.labels.get(_SOURCE) == wanted.labels[_SOURCE]
    same = same_source and told == tells and described == describes and _is_built_so(found, wanted)
    return same and found.state.name == "ACTIVE"


def _is_built_so(found: Function, wanted: Function) -> bool:
    """By the same account, which a name tells with or without the project; which the default one is, is not known."""
    by, wants = (one.build_config.service_account.rpartition("/")[2] for one in (found, wanted))
    return not wants or by == wants


def _uploaded(
    client: FunctionServiceClient, deployment: Deployment, package: Package, observer: Observer
) -> StorageSource:
    """Upload the source, and return where it lies."""
    place = client.generate_upload_url(request={"parent": deployment.parent}, timeout=_TIMEOUT)
    observer.progress("uploading", 0, 1)
    try:
        with package.path.open("rb") as archive, requests.Session() as session:
            go_direct(session, place.upload_url)
            # The URL is its own permission: credentials would be refused.
            headers = {"Content-Type": "application/zip"}
            session.put(place.upload_url, data=archive, headers=headers, timeout=_UPLOAD).raise_for_status()
    except requests.RequestException as error:
        raise DeploymentError(f"uploading the source: {one_line(error)}") from error
    observer.progress("uploading", 1, 1)
    return place.storage_source


def _follow(operation: Any, task: str, observer: Observer) -> None:
    """Wait for the end of an operation, telling of its stages; raises what it ends with."""
    deadline = Deadline.after(_LONGEST, SYSTEM_CLOCK)
    while not operation.done():
        if deadline.passed():
            raise DeploymentError(f"{task}: not done after {_LONGEST:g} s; look at it in the console, and run again")
        done, stages = _stages(operation.metadata)
        observer.progress(task, min(done, stages - 1), stages)
        SYSTEM_CLOCK.sleep(_POLL_SECONDS)
    observer.progress(task, 1, 1)
    operation.result()


def _stages(metadata: OperationMetadata | None) -> tuple[int, int]:
    """How many stages are done, and of how many."""
    stages = list(metadata.stages) if metadata is not None else []
    return sum(stage.state == Stage.State.COMPLETE for stage in stages), max(1, len(stages))


def remove_function(client: FunctionServiceClient, name: str, observer: Observer) -> bool:
    """Remove the function; False if there is none."""
    if _settled(client, name, observer) is None:
        return False
    try:
        operation = client.delete_function(name=name, timeout=_TIMEOUT)
    except exceptions.NotFound:
        return False
    _follow(operation, "removing the function", observer)
    return True
