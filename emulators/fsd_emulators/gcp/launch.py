"""Runs ``functions-framework`` as an instance does: on the uploaded source and the installed packages alone.

Started with ``python -S``, so that a project installed for editing is not seen: what the source lacks must fail here
as it would in the cloud. Arguments: the folder of the source; the folders of packages, joined by ``:``; a file that
is written, with the port in it, once the function is loaded and requests may come.
"""

import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

# Where gunicorn looks for sockets that it is to take over, as systemd hands them on.
_FIRST_SOCKET = 3


def main() -> None:
    source, packages, port_file = sys.argv[1:]
    # The first is the folder of this file, which is no part of the function.
    sys.path[:1] = [source]
    sys.path.extend(packages.split(":"))
    port = _listen()
    os.environ["PORT"] = str(port)
    from functions_framework import create_app
    from functions_framework._http import create_server

    app: Any = create_app()  # type: ignore[no-untyped-call]
    app.wsgi_app = _guarded(app.wsgi_app)
    server = create_server(app, False)  # type: ignore[no-untyped-call]
    with open(f"{port_file}.unfinished", "w", encoding="utf-8") as stream:
        stream.write(str(port))
    os.rename(f"{port_file}.unfinished", port_file)
    server.run("127.0.0.1", port)


def _guarded(app: Any) -> Any:
    """The function, but for requests that no program of this machine sends."""
    refusal = runpy.run_path(str(Path(__file__).resolve().parents[1] / "visitors.py"))["refusal"]

    def guarded(environ: Any, start_response: Any) -> Any:
        sent = [[environ[name]] if name in environ else [] for name in ("HTTP_HOST", "HTTP_ORIGIN")]
        refused = refusal(*sent)
        if refused is None:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [refused.encode()]

    return guarded


def _listen() -> int:
    """Hold a port before anybody else does, and leave the socket to gunicorn."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    port = int(listener.getsockname()[1])
    if listener.fileno() != _FIRST_SOCKET:
        os.dup2(listener.fileno(), _FIRST_SOCKET)
        listener.close()
    else:
        listener.detach()
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    return port


if __name__ == "__main__":
    main()
