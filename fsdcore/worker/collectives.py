"""Barrier, gather and reduce over the workers of a run.

All ranks must call the same operations in the same order. Results do not depend on the order in which messages arrive:
everything is combined in rank order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fsdcore.contracts.channel import Address, Slot
from fsdcore.errors import WireError
from fsdcore.messages.frames import COLLECTIVE, make_body, open_body
from fsdcore.messages.messenger import Messenger
from fsdcore.messages.segments import pack_arrays, unpack_arrays

_LARGEST = 256 * 1024 * 1024

Operator = Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], npt.NDArray[np.generic]]


class Collectives:
    """The collective operations of one rank. `limit` bounds the bytes one rank may contribute."""

    def __init__(self, messenger: Messenger, address: Address, limit: int = _LARGEST) -> None:
        self._messenger, self._address, self._limit = messenger, address, limit
        self._sequence = 0

    def _next(self) -> Slot:
        slot = Slot(COLLECTIVE, self._sequence, 0)
        self._sequence += 1
        return slot

    def gather(self, data: bytes, root: int = 0) -> list[bytes] | None:
        """Every rank's `data`, by rank, at `root`; None at the other ranks."""
        slot, address = self._next(), self._address
        if address.rank != root:
            self._messenger.send(slot, [(root, make_body(data))])
            self._messenger.flush()
            return None
        others = [rank for rank in range(address.workers) if rank != root]
        self._messenger.expect(slot, others)
        parts = {rank: open_body(self._messenger.receive(slot, rank), self._limit) for rank in others}
        return [data if rank == root else parts[rank] for rank in range(address.workers)]

    def broadcast(self, data: bytes, root: int = 0) -> bytes:
        """`root`'s `data`, at every rank; what the others pass is not looked at."""
        slot, address = self._next(), self._address
        if address.rank == root:
            body = make_body(data)
            self._messenger.send(slot, [(rank, body) for rank in range(address.workers) if rank != root])
            self._messenger.flush()
            return data
        self._messenger.expect(slot, [root])
        return open_body(self._messenger.receive(slot, root), self._limit)

    def barrier(self) -> None:
        """Returns once every rank has called it."""
        self.gather(b"")
        self.broadcast(b"")

    def reduce(
        self, array: npt.NDArray[np.generic], operator: Operator = np.add, root: int = 0
    ) -> npt.NDArray[np.generic] | None:
        """``operator`` folded over the ranks' arrays in rank order, at `root`; None at the other ranks.

        All ranks must give the same shape and dtype, `WireError` at the root if not.
        """
        gathered = self.gather(pack_arrays({"array": array}), root)
        if gathered is None:
            return None
        arrays = [array for part in gathered for array in unpack_arrays(part).values()]
        if len(arrays) != len(gathered) or len({(array.shape, array.dtype) for array in arrays}) != 1:
            raise WireError("the arrays of a reduce differ in number, shape or dtype")
        result = arrays[0]
        for part in arrays[1:]:
            result = operator(result, part)
        return result
