"""Who may ask a server of this machine: programs of this machine, and no page of a browser.

Programs without this project run this file by its path: it imports nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Also names of buckets before it, as clients of S3 write them. Browsers lead these names nowhere else.
_HERE = re.compile(r"(([\w-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)


def refusal(hosts: Sequence[str], origins: Sequence[str]) -> str | None:
    """Why a request with these headers ``Host`` and ``Origin`` is refused; None if it is not.

    A page may send requests to any address, and its name may be made to lead here; but then they bear that name, or
    that of the page.
    """
    if origins:
        return "this server answers programs of this machine: what pages send, with an Origin, is refused"
    if len(hosts) != 1 or _HERE.fullmatch(hosts[0].strip()) is None:
        return "this server answers requests for 127.0.0.1 and localhost alone"
    return None
