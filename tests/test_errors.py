"""Errors: one tree, drawn as it is, and each says where it happened."""

from __future__ import annotations

import re

import pytest

import fsdcore.errors as errors
from fsdcore.errors import DeadlineError, FormatError, FsdError, InputError, RunError


def classes(base: type[FsdError] = FsdError) -> set[type[FsdError]]:
    below = [classes(kind) for kind in base.__subclasses__() if kind.__module__ == errors.__name__]
    return {base}.union(*below)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = set(re.findall(r"\w+Error(?= |\n|$)", errors.__doc__ or "")) - {"ValueError", "TimeoutError"}
    assert {kind.__name__ for kind in classes()} <= drawn


@pytest.mark.parametrize("kind", sorted(classes(), key=repr), ids=repr)
def test_bad_input_is_exit_code_2_and_all_else_1(kind: type[FsdError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, InputError) else 1)


def test_an_error_names_the_places_it_knows() -> None:
    error = DeadlineError("nothing came", layer=3, peer=2).at(run="5f", rank=7, layer=9)
    assert str(error) == "run 5f, rank 7, layer 3, peer 2: nothing came"
    assert (error.run, error.rank, error.layer, error.batch, error.peer) == ("5f", 7, 3, None, 2)
    assert str(RunError("no place")) == "no place"


def test_an_error_of_a_file_names_file_and_line() -> None:
    assert str(FormatError("no number", file="a.tsv", line=3)) == "a.tsv:3: no number"
    assert str(FormatError("empty", file="a.tsv")) == "a.tsv: empty"


def test_the_natural_base_classes_catch_them() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(DeadlineError, TimeoutError)
