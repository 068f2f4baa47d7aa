"""Every decoder, fed what was sound and has been damaged. ``python -m tests.fuzz`` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.trial import DECODERS, try_input
from tests.fuzz.world import World

INPUTS, SEED = 150, 1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_inputs_are_taken_or_refused_in_one_line(world: World, decoder: str) -> None:
    surprises = {number: try_input(world, decoder, SEED, number) for number in range(INPUTS)}
    assert {number: surprise for number, surprise in surprises.items() if surprise is not None} == {}


def test_json_and_toml_are_decoded_in_one_place() -> None:
    """So that no decoder need know what the libraries raise."""
    root = Path(__file__).parents[1]
    calls = ("msgspec.json.decode(", "msgspec.convert(", "json.loads(", "json.load(", "tomllib.loads(", "tomllib.load(")
    files = {
        str(file.relative_to(root))
        for folder in ("fsdcore", "backends")
        for file in (root / folder).rglob("*.py")
        if "emulator" not in file.parts and any(call in file.read_text() for call in calls)
    }
    # The configuration names the line of a file in which TOML is wrong.
    assert files == {"fsdcore/client/config.py", "fsdcore/decoding.py"}
