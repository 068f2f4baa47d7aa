"""``fsd deploy aws``, ``fsd status aws``, ``fsd destroy aws``."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import botocore.exceptions as sdk
from boto3.exceptions import S3UploadFailedError

from fsd_aws.clients import Clients
from fsd_aws.compute import too_few, unreserved
from fsd_aws.deploy.cleanup import delete_objects, remove_tagged
from fsd_aws.deploy.package import LARGEST_BYTES, lambda_package
from fsd_aws.deploy.policies import deployer_policy, runner_policy
from fsd_aws.deploy.probe import await_delivery, new_pairs
from fsd_aws.deploy.stacks import Stack, Stacks, asking
from fsd_aws.deploy.templates import (
    FUNCTION_OUTPUT,
    PACKAGES,
    TEMPLATES,
    check_size,
    main_template,
    part_templates,
)
from fsd_aws.deployment import OUTPUT, Deployment, find_deployment, stack_name
from fsd_aws.errors import BucketMissingError, error_code, remake
from fsd_aws.settings import AwsSettings
from fsd_aws.store import S3Store
from fsdcore.contracts.backend import Check, DeploymentStatus, Provisioner, Removal
from fsdcore.deploy import Package
from fsdcore.errors import DeploymentError, DeploymentMissingError
from fsdcore.record.observer import Observer
from fsdcore.worker.leases import LEASES

# Workers that still run may write to the bucket after it was emptied.
_TRIES = 3


class AwsProvisioner(Provisioner):
    """Makes the stacks of a deployment with CloudFormation.

    The names of all resources follow from account, region and the deployment's name, so nothing need be remembered
    between calls.
    """

    def __init__(self, clients: Clients, settings: AwsSettings, observer: Observer) -> None:
        self._clients, self._settings, self.observer = clients, settings, observer

    @cached_property
    def _account(self) -> str:
        with asking(self._clients, "asking whose credentials these are"):
            return str(self._clients.client("sts").get_caller_identity()["Account"])

    def _deployment(self, workers: int, account: str, region: str) -> Deployment:
        partition = self._clients.partition
        return Deployment.of(self._settings, region=region, account=account, partition=partition, workers=workers)

    def _here(self, workers: int) -> Deployment:
        """What the settings describe, in the account and region of the credentials."""
        deployment = self._deployment(workers, self._account, self._clients.region)
        check_size(deployment)
        return deployment

    def _stacks(self) -> Stacks:
        return Stacks(self._clients, self._settings.name, self._here(1).bucket)

    # Describe

    def describe(self, workers: int) -> str:
        """Templates of all stacks and two IAM policies, as JSON; ``ACCOUNT`` stands for the account's number."""
        region = self._settings.region or self._clients.session.region_name or "REGION"
        deployment = self._deployment(workers, "ACCOUNT", region)
        check_size(deployment)
        queues, topics = part_templates(deployment)
        main = main_template(deployment, self._settings, f"{PACKAGES}SHA256.zip")
        described = {
            "stacks": {deployment.stack: main, **queues, **topics},
            "policy for the user who deploys": deployer_policy(deployment),
            "policy for users who run": runner_policy(deployment),
        }
        return json.dumps(described, indent=2)

    # Deploy

    def deploy(self, workers: int) -> DeploymentStatus:
        """Uploads the package, applies the stacks, and waits until test messages pass each new subscription.

        The wait is for SNS, whose subscription filters take up to 15 minutes to work. Stacks that are not
        needed any more are removed last.
        """
        deployment = self._here(workers)
        package = lambda_package(self._settings, self.observer)
        stacks = self._stacks()
        code = self._upload(deployment, package, stacks)
        before = _described(stacks.find(deployment.stack))
        main = {deployment.stack: main_template(deployment, self._settings, code)}
        queues, topics = part_templates(deployment)
        if before is not None and before.workers > workers:
            # Fewer workers: nobody may think them there when their queues go.
            stacks.apply(main, self.observer)
        if before is not None and before.express_bucket not in ("", deployment.express_bucket):
            # CloudFormation would leave it behind with what is in it.
            delete_objects(self._clients, before.express_bucket)
        stacks.apply(queues, self.observer)
        stacks.apply(topics, self.observer)
        stacks.apply(main, self.observer)
        await_delivery(self._clients, deployment, new_pairs(deployment, before), self.observer)
        surplus = stacks.all().keys() - {deployment.stack, *queues, *topics}
        not_removed = stacks.removed(sorted(surplus), self.observer)
        delete_objects(self._clients, deployment.bucket, PACKAGES, frozenset({code}))
        delete_objects(self._clients, deployment.bucket, TEMPLATES)
        status = self.status()
        notes = (
            _size(package),
            *package.notices,
            *filter(None, [too_few(self._clients, workers)]),
            *(f"stack {name} was left: {why}" for name, why in not_removed.items()),
        )
        return dataclasses.replace(status, resources=(*status.resources, *notes))

    def _upload(self, deployment: Deployment, package: Package, stacks: Stacks) -> str:
        """Put the package into the deployment's bucket, which is made first if need be; returns its key."""
        if not stacks.usable(deployment.stack):
            stacks.apply({deployment.stack: main_template(deployment, self._settings, None)}, self.observer)
        key, s3 = f"{PACKAGES}{package.digest}.zip", self._clients.client("s3")
        doing = f"uploading the package to {deployment.bucket}"
        with asking(self._clients, doing):
            if _missing(s3.head_bucket, Bucket=deployment.bucket):
                raise BucketMissingError(f"bucket {deployment.bucket} is gone; run: {remake(deployment.name)}")
            if _missing(s3.head_object, Bucket=deployment.bucket, Key=key):
                told = _Told(self.observer, package.zipped_bytes)
                try:
                    s3.upload_file(str(package.path), deployment.bucket, key, Callback=told)
                except S3UploadFailedError as error:
                    raise DeploymentError(f"{doing}: {error}") from error
        return key

    # Status

    def status(self) -> DeploymentStatus:
        """Reads the stacks by their tag, and asks S3 and Lambda whether bucket and function still exist."""
        name, found = self._settings.name, self._stacks().all()
        command = f"run: fsd deploy aws --name {name}"
        if not found:
            return DeploymentStatus(name, False, 0, problem=f"none in {self._clients.region}; {command}")
        deployment = _described(found.get(stack_name(name)))
        problem = _problem(found, deployment)
        if problem:
            problem = f"{problem}; {command}"
        elif deployment and (gone := self._gone(deployment)):
            problem = f"{gone} is gone; run: {remake(name)}"
        lines = tuple(_lines(found, deployment))
        workers = deployment.workers if deployment else 0
        return DeploymentStatus(name, not problem, workers, lines, problem)

    def _gone(self, deployment: Deployment) -> str:
        """The bucket or the function if somebody removed it, which CloudFormation does not see; empty if not."""
        parts = {
            f"bucket {deployment.bucket}": ("s3", "head_bucket", {"Bucket": deployment.bucket}),
            f"function {deployment.function}": (
                "lambda",
                "get_function_configuration",
                {"FunctionName": deployment.function},
            ),
        }
        for part, (service, call, request) in parts.items():
            with asking(self._clients, f"looking for {part}"):
                if _missing(getattr(self._clients.client(service), call), **request):
                    return part
        return ""

    # Destroy

    def destroy(self) -> Removal:
        """Deletes the stacks of queues and topics, empties the buckets and deletes the main stack.

        Then it removes what bears the deployment's tag and is in no stack.
        """
        stacks, name = self._stacks(), self._settings.name
        main = stack_name(name)
        buckets = self._buckets(stacks.find(main))
        parts = sorted(stacks.all().keys() - {main})
        there = [*parts, *([main] if stacks.find(main) is not None else ())]
        # Topics and queues may go together: a subscription without its queue is removed like any other.
        left = stacks.removed(parts, self.observer)
        left |= self._remove_main(stacks, [main] if main in there else [], buckets)
        tagged, not_removed = remove_tagged(self._clients, name)
        removed = [f"stack {stack}" for stack in there if stack not in left]
        removed += [_emptied(bucket, objects) for bucket, objects in buckets.items() if objects]
        lines = [f"stack {stack}: {why}" for stack, why in left.items()]
        return Removal((*removed, *tagged), (*lines, *not_removed))

    def _remove_main(self, stacks: Stacks, main: list[str], buckets: dict[str, int]) -> dict[str, str]:
        """Empty the buckets, counting their objects, and remove the stack that has them; why, if it cannot be."""
        failed: dict[str, str] = {}
        for _ in range(_TRIES):
            for bucket in buckets:
                buckets[bucket] += delete_objects(self._clients, bucket)
            failed = stacks.removed(main, self.observer) if main else {}
            if not failed:
                break
        return failed

    def _buckets(self, main: Stack | None) -> dict[str, int]:
        """The buckets of the deployment, with as many objects as are removed yet: none.

        Of a directory bucket the stack tells: that of the settings may never have been made, or be another by now.
        """
        made = _described(main)
        express = [made.express_bucket] if made and made.express_bucket else []
        return dict.fromkeys([self._here(1).bucket, *express], 0)


def _emptied(bucket: str, objects: int) -> str:
    return f"{objects:,} {'object' if objects == 1 else 'objects'} in bucket {bucket}"


class _Told:
    """Tells an observer of an upload; called from several threads with the bytes of each piece."""

    def __init__(self, observer: Observer, total: int) -> None:
        self.observer, self._total, self._done, self._lock = observer, total, 0, threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            self.observer.progress("uploading, bytes", self._done, self._total)


def _missing(head: Any, **request: str) -> bool:
    try:
        head(**request)
    except sdk.ClientError as error:
        if error_code(error) not in ("404", "NoSuchBucket", "NoSuchKey", "NotFound", "ResourceNotFoundException"):
            raise
        return True
    return False


def _outputs(stack: Stack | None) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in (stack or {}).get("Outputs", ())}


def _described(stack: Stack | None) -> Deployment | None:
    """The deployment that its main stack tells of; None before that is made in full, or if another release made it."""
    return Deployment.told(_outputs(stack).get(OUTPUT))


def _problem(found: dict[str, Stack], deployment: Deployment | None) -> str:
    """Why the deployment cannot be used; empty if it can."""
    if deployment is None:
        return "it was not made to its end, or by another release"
    queues, topics = part_templates(deployment)
    missing = sorted({deployment.stack, *queues, *topics} - found.keys())
    if missing:
        return f"stacks are missing: {', '.join(missing)}"
    unfinished = [f"{name} is {stack['StackStatus']}" for name, stack in found.items() if not _done(stack)]
    return f"stack {', '.join(unfinished)}" if unfinished else ""


def _done(stack: Stack) -> bool:
    status = str(stack["StackStatus"])
    return status.startswith("UPDATE_COMPLETE") or status.endswith(("CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"))


def _lines(found: dict[str, Stack], deployment: Deployment | None) -> Iterator[str]:
    if deployment is not None:
        about = _outputs(found[deployment.stack]).get(FUNCTION_OUTPUT, "")
        yield f"account {deployment.account}, region {deployment.region}"
        yield f"function {deployment.function}: {deployment.memory_mb:,} MB, {deployment.timeout_seconds} s, {about}"
        yield f"bucket {deployment.bucket}"
        yield from ([f"directory bucket {deployment.express_bucket}"] if deployment.express_bucket else [])
        queues = deployment.lanes * deployment.workers
        yield f"{deployment.topics} topics, {queues} queues, {deployment.topics * queues} subscriptions"
        yield f"log group {deployment.log_group}"
    states = sorted({str(stack["StackStatus"]) for stack in found.values()})
    yield f"{len(found)} stacks: {', '.join(states)}"


def _size(package: Package) -> str:
    zipped, unzipped, most = (count / 1e6 for count in (package.zipped_bytes, package.unzipped_bytes, LARGEST_BYTES))
    return f"package {zipped:.1f} MB zipped, {unzipped:.1f} MB unzipped (at most {most:.1f})"


# SNS counts by region and second; it is the channel queue's, the others have no such limit.
_RATES = "SNS takes 300 to 30,000 a second by region (Service Quotas L-F8E2BA85); beyond, runs on queue are slower"


def checks(clients: Clients, name: str, workers: int) -> Iterator[Check]:
    """Region, credentials, concurrency for `workers`, and the deployment of that `name`, in that order."""
    yield Check("region", True, clients.region)
    yield Check("credentials", True, clients.credentials())
    with asking(clients, "asking whose credentials these are"):
        who = clients.client("sts").get_caller_identity()
    yield Check("account", True, f"{who['Account']}, {who['Arn']}")
    yield _concurrency(clients, workers)
    yield Check("messages", True, _RATES)
    yield _deployment(clients, name, workers)


def _concurrency(clients: Clients, workers: int) -> Check:
    with asking(clients, "asking for the quota of Lambda"):
        free = unreserved(clients)
    remedy = "ask for more in Service Quotas: AWS Lambda, Concurrent executions; or take fewer workers"
    return Check("concurrency", free >= workers, f"{free:,} functions at once, {workers} workers wanted", remedy)


def _deployment(clients: Clients, name: str, workers: int) -> Check:
    try:
        found = find_deployment(clients, name)
        S3Store(clients, found.data_bucket, remake(name)).list(LEASES)
    except (DeploymentMissingError, BucketMissingError) as error:
        return Check("deployment", False, error.message)
    remedy = f"run: fsd deploy aws --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
