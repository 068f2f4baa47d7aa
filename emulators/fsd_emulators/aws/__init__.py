"""Local AWS: the services that this backend uses, on this machine, for tests and for `fsd emulate aws`.

One endpoint. Lambda is of this package: it runs the real deployment zip with AWS's own runtime client, each execution
environment a process of its own. Everything else is ministack's, behind the same endpoint, which logs every request,
keeps the limits that ministack does not keep, and makes faults on demand.
"""

from fsd_emulators.aws.local import LocalAws
from fsd_emulators.aws.records import EnvironmentRecord, InvocationRecord, RequestRecord

__all__ = ["EnvironmentRecord", "InvocationRecord", "LocalAws", "RequestRecord"]
