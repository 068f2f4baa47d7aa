"""Servers as processes: ready, ended, hung, stopped with their children."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fsd_emulators.processes import ServerProcess, free_port, http_ready, tcp_ready
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import MissingExtraError, ServerError

HTTP_SERVER = """
import http.server, sys
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
# Ignores SIGTERM, as does the child whose id it writes.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("child", "w").write(str(child.pid))
print("up", flush=True)
time.sleep(600)
"""


def server(folder: Path, code: str, *arguments: str, **options: object) -> ServerProcess:
    settings = {"ready": lambda: True, "log": folder / "log", "folder": folder, **options}
    return ServerProcess("toy", [sys.executable, "-c", code, *arguments], **settings)  # type: ignore[arg-type]


def wrote(folder: Path, word: str) -> Callable[[], bool]:
    return lambda: word in (folder / "log").read_text()


def gone(pid: int) -> bool:
    """Whether the process ends in a moment; one that waits to be collected by its parent has ended."""
    deadline = Deadline.after(10, SYSTEM_CLOCK)
    while not deadline.passed():
        stat = Path(f"/proc/{pid}/stat")
        try:
            os.kill(pid, 0)
            if stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        SYSTEM_CLOCK.sleep(0.02)
    return False


@pytest.mark.parametrize("check", [lambda port: http_ready(f"http://127.0.0.1:{port}/"), tcp_ready])
def test_start_returns_when_it_answers_and_stop_ends_it(
    tmp_path: Path, check: Callable[[int], Callable[[], bool]]
) -> None:
    port = free_port()
    ready = check(port)
    assert not ready()
    with server(tmp_path, HTTP_SERVER, str(port), ready=ready) as started:
        assert ready()
        assert started.pid is not None
        assert os.getpgid(started.pid) == started.pid != os.getpgid(0)
    assert not ready()
    assert started.pid is None
    started.stop()


def test_an_http_error_is_not_ready(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path, HTTP_SERVER, str(port), ready=tcp_ready(port)):
        assert not http_ready(f"http://127.0.0.1:{port}/nothing")()


def test_a_server_that_ends_says_what_it_wrote(tmp_path: Path) -> None:
    code = "import sys; print('the port is taken'); sys.exit(3)"
    with pytest.raises(ServerError, match=r"(?s)toy ended with code 3 .*log ends:\nthe port is taken$"):
        server(tmp_path, code, ready=lambda: False).start()


def test_a_server_that_hangs_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    hung = server(tmp_path, "import time; time.sleep(600)", ready=lambda: False, start_seconds=0.3)
    with pytest.raises(ServerError, match=r"toy was not ready in 0.3 s; it wrote nothing"):
        hung.start()
    assert hung.pid is None


def test_stop_kills_what_does_not_listen_and_its_children(tmp_path: Path) -> None:
    stubborn = server(tmp_path, STUBBORN, stop_seconds=0.2, ready=wrote(tmp_path, "up"))
    with stubborn:
        child = int((tmp_path / "child").read_text())
        leader = stubborn.pid
        assert leader is not None
    assert gone(leader)
    assert gone(child)


def test_children_of_a_dead_server_are_ended_too(tmp_path: Path) -> None:
    stubborn = server(tmp_path, STUBBORN, ready=wrote(tmp_path, "up"))
    with stubborn:
        child = int((tmp_path / "child").read_text())
        assert stubborn.pid is not None
        os.kill(stubborn.pid, signal.SIGKILL)
        assert gone(stubborn.pid or 0) or stubborn.pid is None
    assert gone(child)


def test_the_environment_is_the_one_given(tmp_path: Path) -> None:
    code = "import os, time; print(os.environ.get('HOME'), os.environ['ONLY'], flush=True); time.sleep(600)"
    given = server(tmp_path, code, environ={"ONLY": "this"}, ready=wrote(tmp_path, "this"))
    with given:
        assert given.log_tail() == "None this"


def test_a_program_that_is_missing_or_cannot_run(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no program")
    for command, kind, text in (
        ("no-such-program", MissingExtraError, "the program 'no-such-program' is not installed"),
        (str(script), ServerError, f"toy: {script} cannot be run: Permission denied"),
    ):
        with pytest.raises(kind, match=re.escape(text)):
            ServerProcess("toy", [command], ready=lambda: True, log=tmp_path / "log").start()
