"""What CloudFormation asks IAM when it makes, changes or removes a resource, as AWS itself publishes it.

The permissions of each type's handlers are in the schemas that cfn-lint ships; what a permission can be limited to is
in the data of parliament and of cfn-lint. Nothing here knows of the project's own policies.

A handler names the permissions of all that its type can do. Left out are those for what a resource does not use: those
limited to a kind of resource that it does not name, those named for a property that it does not have and, of those
that cannot be limited, what reads other services, or writes something that is not of this type.

ministack's Python runs this file by its path, so that nothing but the standard library may be imported at its top.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

# By type: its properties and, by handler and permission, the ARNs it can be limited to, each with its kind.
Table = dict[str, dict[str, Any]]

# Which handlers an operation calls: what is made or changed is read afterwards.
_HANDLERS = {"create": ("create", "read"), "update": ("update", "read"), "delete": ("delete",)}
_READS = ("Describe", "Get", "List")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
# A shorter name of a property is in that of a permission by chance.
_SHORTEST_PROPERTY = 6


class Place(NamedTuple):
    """Where a resource is."""

    partition: str
    region: str
    account: str


class Asked(NamedTuple):
    """One question to IAM: may this be done with that resource?"""

    action: str
    resource: str


# From the data of AWS -----------------------------------------------------------------------------------------


def rights_table(kinds: Iterable[str], region: str) -> Table:
    """What `asked` needs to know of resource types, such as ``AWS::SNS::Topic``; can be written as JSON.

    Needs the packages cfn-lint and parliament.
    """
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

    limits = _Limits()
    table: Table = {}
    for kind in kinds:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, kind).schema
        handlers = {
            name: {action: arns for action in sorted(handler["permissions"]) if (arns := limits.of(action)) is not None}
            for name, handler in schema["handlers"].items()
        }
        table[kind] = {"properties": sorted(schema["properties"]), "handlers": handlers}
    return table


class _Limits:
    """The resources that permissions can be limited to."""

    def __init__(self) -> None:
        definitions = json.loads(files("parliament").joinpath("iam_definition.json").read_text(encoding="utf-8"))
        policies = files("cfnlint.data.AdditionalSpecs").joinpath("Policies.json").read_text(encoding="utf-8")
        self._parliament: dict[str, Any] = {service["prefix"]: service for service in definitions}
        self._cfnlint: dict[str, Any] = json.loads(policies)

    def of(self, action: str) -> dict[str, str] | None:
        """The ARNs by kind of resource; empty where either source has none, None for what neither knows."""
        service, _, name = action.partition(":")
        known = [found for found in (self._older(service, name), self._newer(service, name)) if found is not None]
        if not known:
            return None
        arns = {_plain(one["resource"]): one["arn"] for one in self._parliament.get(service, {}).get("resources", ())}
        kinds = set().union(*known) if all(known) else set()
        return {kind: arns[kind] for kind in sorted(kinds) if kind in arns}

    def _older(self, service: str, name: str) -> set[str] | None:
        for privilege in self._parliament.get(service, {}).get("privileges", ()):
            if privilege["privilege"].lower() == name.lower():
                kinds = (one["resource_type"].rstrip("*") for one in privilege["resource_types"])
                return {_plain(kind) for kind in kinds if kind}
        return None

    def _newer(self, service: str, name: str) -> set[str] | None:
        found = self._cfnlint.get(service, {}).get("Actions", {}).get(name.lower())
        return None if found is None else {_plain(kind) for kind in found.get("Resources", ())}


def _plain(kind: str) -> str:
    """``log-group`` and ``LogGroup`` are one kind."""
    return re.sub(r"[^a-z0-9]", "", kind.lower())


# Of one resource ----------------------------------------------------------------------------------------------


def asked(
    table: Table, kind: str, operation: str, place: Place, properties: Mapping[str, Any], physical_id: str = ""
) -> Iterator[Asked]:
    """All that IAM is asked for an `operation`, ``create``, ``update`` or ``delete``, of a resource of type `kind`."""
    about = table[kind]
    unused = [name for name in about["properties"] if name not in properties and len(name) >= _SHORTEST_PROPERTY]
    names = [(_plain(key), value) for key, value in properties.items()]
    itself = _plain(kind.rpartition("::")[2])
    for handler in _HANDLERS[operation]:
        for action, arns in about["handlers"].get(handler, {}).items():
            verb = action.partition(":")[2]
            reads = verb.startswith(_READS)
            if not reads and any(name in verb for name in unused):
                continue
            if arns:
                known = [*names, (itself, physical_id)] if itself in arns and physical_id else names
                yield from (Asked(action, arn) for arn in sorted(set(_named(arns, known, place))))
            elif _concerns(kind, action, handler, reads):
                yield Asked(action, "*")


def _concerns(kind: str, action: str, handler: str, reads: bool) -> bool:
    """Whether a permission that cannot be limited is for what the handler does with any resource of the type."""
    service, _, verb = action.partition(":")
    own = service == kind.split("::")[1].lower()
    if reads or handler == "delete":
        return own or handler == "read"
    return own and kind.rpartition("::")[2] in verb


def _named(arns: Mapping[str, str], names: Iterable[tuple[str, Any]], place: Place) -> Iterator[str]:
    """The ARNs of the resources that the properties name."""
    for kind, pattern in arns.items():
        for key, value in names:
            if key.startswith(kind):
                given = value if isinstance(value, list) else [value]
                yield from (arn for one in given if isinstance(one, str) and (arn := _filled(pattern, one, place)))


def _filled(pattern: str, name: str, place: Place) -> str:
    """An ARN, of a name, an ARN, or the address of a queue; empty where one name does not make it."""
    if name.startswith("arn:"):
        return name
    known = {"Partition": place.partition, "Region": place.region, "Account": place.account}
    others = [found for found in _PLACEHOLDER.findall(pattern) if found not in known]
    if len(others) != 1:
        return ""
    known[others[0]] = name.rpartition("/")[2] if "://" in name else name
    return _PLACEHOLDER.sub(lambda found: known[found[1]], pattern)
