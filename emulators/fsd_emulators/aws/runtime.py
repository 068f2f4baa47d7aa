"""What a function finds beside its own code: Lambda's runtime packages, and the variables of its environment."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

from fsd_emulators.aws.functions import Function
from fsd_emulators.aws.ministack import ACCESS_KEY, SECRET_KEY

# What Lambda's Python runtime has of its own: everything else must be in the function's zip.
_PACKAGES = (
    "awslambdaric",
    "boto3",
    "botocore",
    "jmespath",
    "python-dateutil",
    "s3transfer",
    "simplejson",
    "six",
    "snapshot-restore-py",
    "urllib3",
)


class Credentials(dict[str, str]):
    """The variables that make a client sign as somebody."""

    @classmethod
    def of(cls, key: str = ACCESS_KEY, secret: str = SECRET_KEY, token: str = "") -> Credentials:
        found = cls(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
        return cls(found, AWS_SESSION_TOKEN=token) if token else found


def make_runtime(folder: Path) -> Path:
    """Link the runtime's packages, and nothing else, into a new `folder`."""
    folder.mkdir(parents=True)
    for package in _PACKAGES:
        files = metadata.files(package) or []
        for name in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (folder / name).symlink_to(Path(str(files[0].locate())).parents[len(files[0].parts) - 1] / name)
    return folder


def command(function: Function) -> list[str]:
    """What runs the function: this interpreter without the packages installed for it."""
    return [sys.executable, "-s", "-S", "-m", "awslambdaric", function.handler]


def variables(
    function: Function, runtime: Path, home: Path, api: str, endpoint: str, credentials: Credentials, log: str
) -> dict[str, str]:
    """The whole environment of the function's process; nothing of this process's comes through but PATH."""
    return {
        **function.variables,
        **credentials,
        "AWS_DEFAULT_REGION": function.region,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log,
        "AWS_LAMBDA_RUNTIME_API": api,
        "AWS_REGION": function.region,
        "HOME": str(home),
        "LAMBDA_RUNTIME_DIR": str(runtime),
        "LAMBDA_TASK_ROOT": str(function.folder),
        "LANG": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join((str(function.folder), str(runtime))),
        "TMPDIR": str(home),
        "TZ": ":UTC",
        "_HANDLER": function.handler,
    }
