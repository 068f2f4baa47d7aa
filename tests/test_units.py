"""Numbers for people: three digits that count, and nothing that is not nothing shown as nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.text import bytes_, count, dollars, percent, quantity, rate, seconds

_SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def read(shown: str, units: dict[str, float]) -> float:
    number, unit = shown.split("\u00a0")
    return float(number.replace(",", "")) * units[unit]


@given(st.floats(1e-6, 1e6))
def test_seconds_are_right_to_three_digits(spent: float) -> None:
    assert read(seconds(spent), _SECONDS) == pytest.approx(spent, rel=0.006)
    assert "e" not in seconds(spent)


@given(st.floats(1, 1e14))
def test_bytes_are_right_to_three_digits(size: float) -> None:
    assert read(bytes_(size), _BYTES) == pytest.approx(size, rel=0.006)
    assert "e" not in bytes_(size)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (seconds(0.0), "0\u00a0s"),
        (seconds(0.9999), "1.00\u00a0s"),
        (seconds(0.0123456), "12.3\u00a0ms"),
        (seconds(123.4), "123\u00a0s"),
        (percent(0.0), "0\u00a0%"),
        (percent(0.0001), "<\u00a01\u00a0%"),
        (percent(0.416), "42\u00a0%"),
        (count(1234567), "1,234,567"),
        (count(1234.5), "1,234.5"),
        (dollars(0.0012345), "$0.001234"),
        (dollars(1234.5), "$1,234.50"),
        (quantity(44013557.25), "44,013,557"),
        (quantity(42.4061), "42.4061"),
        (rate(1228.4), "1,228"),
        (rate(3.14159), "3.14"),
    ],
)
def test_numbers(shown: str, expected: str) -> None:
    assert shown == expected
