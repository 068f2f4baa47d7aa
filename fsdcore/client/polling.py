"""When a client looks whether its run has ended, and by which request: the law that `run` and forecasts follow."""

from __future__ import annotations

__all__ = ["Polling"]

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
# The client looks again after this share of the time it has waited, so that little is lost on a short run.
_SHARE_PER_LOOK = 0.02
# A list costs as much as ten reads. Between two of them the client waits as long as so many small requests take, or
# this share of the time the run has taken, whichever is longer: so a run of any length takes less than a hundred.
_REQUESTS_PER_LIST = 50
_SHARE_PER_LIST = 0.05


class Polling:
    """The looks of one client. All times are seconds of one clock, whichever it is; the run began at `since`.

    `latency`: what a request of the store takes; 0 where requests cost nothing. Where they take time and money, the
    end is asked for by name, and failures are looked for less often, by a list.
    """

    def __init__(self, latency: float, since: float) -> None:
        self._latency, self._since, self._next_list = latency, since, since

    def lists(self, now: float) -> bool:
        """Whether the look at `now` is a list; if not, it is a read of the end by its name."""
        if now < self._next_list:
            return False
        if self._latency:
            gap = max(_REQUESTS_PER_LIST * self._latency, _SHARE_PER_LIST * (now - self._since))
            self._next_list = now + gap
        return True

    def pause(self, waited: float) -> float:
        """Until the next look, of a client that has waited for `waited` seconds."""
        shortest = max(_SHORTEST_PAUSE, self._latency)
        return max(shortest, min(_SHARE_PER_LOOK * waited, _LONGEST_PAUSE))
