"""Conditions as files: what comes with the project, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate.simulate import Conditions, Limit, Spread, condition_names, load_conditions
from fsdcore.estimate.simulate.conditions import Chance, Factors, Gate


@pytest.mark.parametrize("name", condition_names())
def test_conditions_that_come_with_the_project_say_where_they_are_from(name: str) -> None:
    conditions = load_conditions(name)
    assert conditions.name == name
    assert conditions.source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Object missing required field `name`"),
        ('name = "x"\nwind = 1', "unknown field `wind`"),
        ('name = "x"\n[latency]\nsea = {}', "latency of 'sea'; known are invoke, start, put"),
        ('name = "x"\n[limits]\nstart = {}', "limits of 'start'; known are invoke, put, get, send"),
        ('name = "x"\nduplicates = 1.5', "duplicates must be between 0 and 1, not 1.5"),
        ('name = "x"\n[latency]\nput = { sigma = -1.0 }', "latency.put.sigma must be 0 or more, not -1.0"),
        ('name = "x"\n[latency]\nput = { tail = nan }', "latency.put.tail must be between 0 and 1, not nan"),
        ('name = "x"\n[limits]\nput = { refused = 1.0 }', "limits.put.refused is 1: no call would ever be taken"),
        ('name = "x"\n[limits]\nput = { per_second = 1.0, backoff_seconds = 0.0 }', "backoff_seconds must be above 0"),
        ("name = ", "own.toml: "),
    ],
)
def test_conditions_that_are_not_sound_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_conditions(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conditions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no conditions 'usuall'; did you mean 'usual'"):
        load_conditions("usuall")
    with pytest.raises(InputError, match="cannot be read"):
        load_conditions(str(tmp_path / "none.toml"))


def test_a_steady_answer_is_drawn_without_chance() -> None:
    factors = Factors(Spread(), np.random.default_rng(0))
    assert (factors.take(100_000) == 1).all()


def test_answers_have_their_median_and_tail() -> None:
    drawn = Factors(Spread(sigma=0.5, tail=0.02, tail_factor=100.0), np.random.default_rng(0)).take(200_000)
    assert np.median(drawn) == pytest.approx(1.0, rel=0.05)
    assert np.mean(drawn > 20) == pytest.approx(0.02, rel=0.1)


def test_what_one_service_draws_does_not_depend_on_another() -> None:
    conditions = load_conditions("usual")
    apart, together = Chance(conditions, 4, 1), Chance(conditions, 4, 1)
    together.factors["put"].take(1000)
    np.testing.assert_array_equal(apart.factors["get"].take(50), together.factors["get"].take(50))


def test_a_share_of_frames_is_chosen() -> None:
    chance = Chance(Conditions(name="x"), 1, 0)
    assert chance.chosen(0.0, 1000).size == 0
    assert chance.chosen(1.0, 7).tolist() == list(range(7))
    counted = sum(chance.chosen(0.001, 10).size for _ in range(50_000))
    assert counted == pytest.approx(500, rel=0.2)


def test_a_gate_lets_its_burst_through_and_then_its_rate() -> None:
    gate = Gate(Limit(per_second=10.0, burst=5.0, backoff_seconds=0.01), np.random.default_rng(0))
    delays = gate.delays(np.zeros(25))
    assert (delays[:5] == 0).all()
    assert gate.refused > 0
    # The last of 20 beyond the burst is let through no sooner than 2 seconds later.
    assert 1.9 <= delays.max() < 2.9
