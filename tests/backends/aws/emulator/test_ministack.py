"""How ministack is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from fsd_emulators.aws.ministack import ministack_command


def test_modules_beside_the_program_do_not_hide_others(tmp_path: Path) -> None:
    """There are modules of such names beside it."""
    python, *options, program = ministack_command(print)
    script = tmp_path / "script.py"
    script.write_text("import sys; print([path for path in sys.path if path == sys.argv[1]])")
    done = subprocess.run([python, *options, script, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, os.path.exists(program)) == ("[]\n", True)
