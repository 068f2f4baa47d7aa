"""Progress bars: only on a terminal, never backwards, gone at the end."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console
from rich.progress import Progress

from fsdcore.cli.output import Bars, watching
from fsdcore.record.observer import notice


def drawn() -> Progress:
    return Progress(console=Console(file=io.StringIO()), disable=True)


def test_only_notices_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with watching() as observer:
        observer.progress("layers", 3, 10)
        notice(observer, "waiting for a lane")
    assert capsys.readouterr() == ("", "fsd: waiting for a lane\n")


def test_a_notice_is_written_above_the_bars() -> None:
    written = io.StringIO()
    Bars(Progress(console=Console(file=written), disable=True)).notice("waiting for [a lane]")
    assert written.getvalue() == "fsd: waiting for [a lane]\n"


def test_a_bar_never_goes_back_and_goes_away_at_the_end() -> None:
    progress = drawn()
    bars = Bars(progress)
    bars.progress("layers", 3, 10)
    bars.progress("layers", 2, 10)
    assert [(task.description, task.completed, task.total) for task in progress.tasks] == [("layers", 3, 10)]
    bars.progress("layers", 10, 10)
    assert not progress.tasks


def test_a_task_may_come_again() -> None:
    progress = drawn()
    bars = Bars(progress)
    for done in (1, 2, 1):
        bars.progress("load", done, 2)
    assert [task.completed for task in progress.tasks] == [1]


def test_a_task_of_nothing_is_over_at_once() -> None:
    progress = drawn()
    Bars(progress).progress("nothing", 0, 0)
    assert not progress.tasks


def test_threads_may_speak_at_once() -> None:
    progress = drawn()
    bars = Bars(progress)

    def speak(task: str) -> None:
        for done in range(500):
            bars.progress(task, done, 500)

    speakers = [threading.Thread(target=speak, args=(str(rank),)) for rank in range(8)]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    assert sorted((task.description, task.completed) for task in progress.tasks) == [
        (str(rank), 499) for rank in range(8)
    ]
