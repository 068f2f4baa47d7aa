"""Which request goes wrong: rules in order, each for so many requests."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_emulators.aws.actions import Action
from fsd_emulators.aws.records import Fault


class Faults:
    """The rules that stand; the first that meets a request takes it."""

    def __init__(self) -> None:
        self._rules: list[tuple[Fault, int]] = []

    def set(self, rules: Sequence[Fault]) -> None:
        """Replace all rules."""
        self._rules = [(rule, 0) for rule in rules]

    def take(self, action: Action, source: str) -> Fault | None:
        """The fault for this request, counted; None if it is to be answered well."""
        for place, (rule, seen) in enumerate(self._rules):
            if not _meets(rule, action, source):
                continue
            self._rules[place] = (rule, seen + 1)
            if seen >= rule.skip and (rule.times == 0 or seen < rule.skip + rule.times):
                return rule
        return None


def _meets(rule: Fault, action: Action, source: str) -> bool:
    return (
        rule.service in ("", action.service)
        and rule.action in ("", action.name)
        and rule.resource in action.resource
        and rule.source in ("", "worker" if source else "client")
    )
