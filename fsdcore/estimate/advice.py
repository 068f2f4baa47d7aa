"""Which way to run: variant, channel, workers, memory, branching, batches and replicas, for a deadline or a budget.

The search skips what cannot be best. Of several memory sizes with equally fast workers it tries only the smallest, and
it drops a combination whose lower bounds of seconds and dollars are already beaten.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fsdcore import text as units
from fsdcore.errors import InputError
from fsdcore.estimate.forecast import Forecast, Forecaster, Setting

SERIAL = "serial"


@dataclass(frozen=True)
class Goal:
    """What to look for: the cheapest within `deadline` seconds, the fastest within `budget` dollars, the cheapest
    within both; with neither, the least product of the two."""

    deadline: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("deadline", self.deadline), ("budget", self.budget)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0, not {value}")

    def met_by(self, forecast: Forecast) -> bool:
        """Whether `forecast` is within deadline and budget."""
        in_time = self.deadline is None or forecast.wall_seconds <= self.deadline
        return in_time and (self.budget is None or forecast.dollars <= self.budget)

    def rank(self, forecast: Forecast) -> tuple[float, float]:
        """The key to sort by; smaller is better."""
        seconds, dollars = forecast.wall_seconds, forecast.dollars
        if self.deadline is not None:
            return dollars, seconds
        if self.budget is not None:
            return seconds, dollars
        return seconds * dollars, seconds


@dataclass(frozen=True)
class Choices:
    """What to choose from. `plans`: a forecaster for each number of workers; 1 is the serial variant.

    `channels` for more than one worker, `memory_bytes` ascending, samples of a batch, children of a worker, groups.
    """

    plans: Mapping[int, Forecaster]
    channels: Sequence[str]
    memory_bytes: Sequence[int]
    batch_sizes: Sequence[int]
    branching: Sequence[int] = (2, 4, 8)
    replicas: Sequence[int] = (1, 2, 4, 8)

    def settings(self) -> Iterator[Setting]:
        """Every combination, whether it fits or not."""
        for group in self.groups():
            for memory, branching in itertools.product(self.memory_bytes, self.branching):
                yield group._replace(memory_bytes=memory, branching=branching)

    def groups(self) -> Iterator[Setting]:
        """The combinations of all but memory and branching, which are those of the first choice."""
        first = self.memory_bytes[0], self.branching[0]
        for workers, plan in self.plans.items():
            kinds = [SERIAL] if workers == 1 else self.channels
            replicas = [n for n in self.replicas if n <= plan.samples]
            for kind, size, groups in itertools.product(kinds, self.batch_sizes, replicas):
                yield Setting(kind, workers, *first, size, groups)


@dataclass(frozen=True)
class Advice:
    """`front`: the combinations that no other beats in both seconds and dollars, fastest first.
    `best`: the one that meets the goal best, None if none does.
    `by_variant`: the best of each channel and of the serial variant, whether it meets the goal or not.
    """

    goal: Goal
    front: tuple[Forecast, ...]
    best: Forecast | None
    by_variant: Mapping[str, Forecast]
    looked_at: int

    def __str__(self) -> str:
        return _sentence(self)


def pareto(forecasts: Iterable[Forecast]) -> tuple[Forecast, ...]:
    """The forecasts that no other beats in both seconds and dollars, fastest first; of equal ones, the first."""
    front: list[Forecast] = []
    for each in sorted(forecasts, key=lambda f: (f.wall_seconds, f.dollars)):
        if not front or each.dollars < front[-1].dollars:
            front.append(each)
    return tuple(front)


def best_of(forecasts: Iterable[Forecast], goal: Goal) -> Forecast | None:
    """The forecast that meets the goal best; None if none meets it."""
    return min((each for each in forecasts if goal.met_by(each)), key=goal.rank, default=None)


def advise(choices: Choices, goal: Goal | None = None) -> Advice:
    """The best way to run, and all others on the front; `InputError` if nothing fits a worker."""
    wanted = goal or Goal()
    fronts: dict[str, tuple[Forecast, ...]] = {}
    looked_at = 0
    kinds = list(dict.fromkeys(group.channel for group in choices.groups()))
    for kind in kinds:
        found = _search(choices, [group for group in choices.groups() if group.channel == kind])
        looked_at += len(found)
        fronts[kind] = pareto(found)
    front = pareto(itertools.chain.from_iterable(fronts.values()))
    if not front:
        raise InputError(
            "no choice fits: every worker would need more memory or time than it can have; try more workers"
        )
    by_variant = {kind: _nearest(each, wanted) for kind, each in fronts.items() if each}
    return Advice(wanted, front, best_of(front, wanted), by_variant, looked_at)


def _nearest(front: Sequence[Forecast], goal: Goal) -> Forecast:
    """The best of `front`; if none meets the goal, the one that comes nearest."""
    seconds_first = goal.deadline is not None
    return best_of(front, goal) or min(front, key=lambda f: f.wall_seconds if seconds_first else f.dollars)


def _search(choices: Choices, groups: Sequence[Setting]) -> list[Forecast]:
    bounded = [(_least(choices, group), group) for group in groups]
    found: list[Forecast] = []
    front: tuple[Forecast, ...] = ()
    for (seconds, dollars), group in sorted(bounded, key=lambda each: (each[0][0] * each[0][1], each[1])):
        if any(each.wall_seconds < seconds and each.dollars < dollars for each in front):
            continue
        fitting = [forecast for forecast in _within(choices, group) if forecast.fits]
        found += fitting
        front = pareto([*front, *fitting])
    return found


def _least(choices: Choices, group: Setting) -> tuple[float, float]:
    """Seconds and dollars that no memory size can bring the group below."""
    plan = choices.plans[group.workers]
    bounds = [plan.least(group._replace(memory_bytes=memory)) for memory in choices.memory_bytes]
    return min(seconds for seconds, _ in bounds), min(dollars for _, dollars in bounds)


def _within(choices: Choices, group: Setting) -> Iterator[Forecast]:
    """Forecasts of a group, for each speed of a worker that can be had with the smallest memory that gives it."""
    plan = choices.plans[group.workers]
    needed = float(plan.memory(group).max())
    sizes: dict[float, int] = {}
    for memory in choices.memory_bytes:
        if memory >= needed:
            sizes.setdefault(plan.target.share(memory), memory)
    for memory, branching in itertools.product(sizes.values(), choices.branching):
        yield plan.forecast(group._replace(memory_bytes=memory, branching=branching))


# In words ----------------------------------------------------------------------------------------------------


def _sentence(advice: Advice) -> str:
    best = advice.best
    if best is None:
        fastest, cheapest = advice.front[0], advice.front[-1]
        return (
            f"Nothing meets {_wanted(advice.goal)}: the fastest takes {_seconds(fastest)} for "
            f"{units.dollars(fastest.dollars)}, the cheapest {units.dollars(cheapest.dollars)} in {_seconds(cheapest)}."
        )
    return f"{_named(best)}: {_seconds(best)} for {units.dollars(best.dollars)}, {_reason(advice, best)}."


def _seconds(forecast: Forecast) -> str:
    return units.plain(units.seconds(forecast.wall_seconds))


def _wanted(goal: Goal) -> str:
    wishes = [f"a deadline of {goal.deadline:g} s"] if goal.deadline is not None else []
    wishes += [f"a budget of ${goal.budget:g}"] if goal.budget is not None else []
    return " and ".join(wishes)


def _named(forecast: Forecast) -> str:
    memory = f"{forecast.memory_limit_bytes >> 20:,} MiB"
    if forecast.channel == SERIAL:
        what = f"Run it serial, in one worker of {memory}"
    else:
        what = f"Use the {forecast.channel} channel with {forecast.workers} workers of {memory}"
    groups = f", {forecast.replicas} groups side by side" if forecast.replicas > 1 else ""
    return f"{what}{groups}, {forecast.batch_size:,} samples a batch"


def _reason(advice: Advice, best: Forecast) -> str:
    others = [each for kind, each in advice.by_variant.items() if kind != best.channel]
    meeting = [each for each in others if advice.goal.met_by(each)]
    other = min(meeting or others, key=advice.goal.rank, default=None)
    if other is None:
        return "the only variant that fits"
    return f"because {_against(advice.goal, best, other)}"


def _against(goal: Goal, best: Forecast, other: Forecast) -> str:
    name = "one worker" if other.channel == SERIAL else f"the {other.channel} channel at its best"
    if not goal.met_by(other):
        return f"{name} does not meet {_wanted(goal)}: it takes {_seconds(other)} and {units.dollars(other.dollars)}"
    dearest = max(other.bill.lines, key=lambda line: line.dollars)
    takes = f"{name} takes {other.wall_seconds / best.wall_seconds:.2g} times as long"
    costs = f"{other.dollars / best.dollars:.2g} times as many dollars, most of them for {dearest.item}"
    return f"{takes} and {costs}"
