"""For authors of backends: suites that check the contracts, and faults to run under.

Subclass `StoreTests`, `ChannelTests`, `ComputeTests` and `BackendTests` in your own tests and give each the fixture it
asks for; wrap your backend in a `FaultyBackend`, with faults of `fsdcore.faults`, to see that runs stay right when the
service misbehaves. Needs pytest.
"""

from fsdcore.testing.backends import BackendTests
from fsdcore.testing.channels import ChannelTests
from fsdcore.testing.computes import ComputeTests
from fsdcore.testing.faults import FaultyBackend
from fsdcore.testing.networks import random_inputs, random_network
from fsdcore.testing.stores import StoreTests

__all__ = [
    "BackendTests",
    "ChannelTests",
    "ComputeTests",
    "FaultyBackend",
    "StoreTests",
    "random_inputs",
    "random_network",
]
