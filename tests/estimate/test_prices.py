"""Price files: what comes with the project, a user's own, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdcore.errors import InputError
from fsdcore.estimate.bill import Usage, bill, load_prices, price_names
from fsdcore.record.record import COUNTERS

_OWN = """
name = "mine"
currency = "USD"
date = "2026-01-01"
source = "my contract"
tariff = "gcp"
[prices]
functions_request = 0.0
functions_vcpu_second = 1e-5
functions_gib_second = 1e-6
pubsub_byte = 1e-11
storage_class_a = 1e-6
storage_class_b = 1e-7
"""


def _usage(channel: str = "queue") -> Usage:
    return Usage(channel, dict.fromkeys(COUNTERS, 10), [1.0, 2.0], 1 << 30)


def _write(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_the_regions_that_come_with_the_project() -> None:
    assert {"aws/us-east-1", "aws/eu-west-1", "gcp/us-central1", "gcp/europe-west1", "paper/icde-2024"} <= set(
        price_names()
    )


@pytest.mark.parametrize("name", price_names())
def test_every_list_prices_every_channel_of_its_tariff_and_says_where_it_is_from(name: str) -> None:
    prices = load_prices(name)
    channels = {channel for line in prices.tariff.line for channel in line.channels} | {"serial", "object"}
    for channel in channels:
        assert bill(_usage(channel), prices).total > 0
    assert prices.source
    assert prices.date
    assert prices.name == name


def test_a_users_own_file_overrides(tmp_path: Path) -> None:
    prices = load_prices(_write(tmp_path, _OWN))
    assert prices.name == "mine"
    lines = {line.item: line.price for line in bill(_usage(), prices).lines}
    assert lines["Cloud Run functions, vCPU-seconds"] == 1e-5


def test_a_file_may_bring_its_own_lines(tmp_path: Path) -> None:
    text = """
name = "flat"
currency = "USD"
date = "2026-01-01"
source = "a contract"
[prices]
start = 0.5
[tariff]
not_counted = ["everything else"]
[tariff.compute]
memory_mib = [1024]
max_seconds = 60
bytes_per_vcpu = 1073741824
[[tariff.line]]
item = "starts"
meter = "invocations"
price = "start"
channels = ["queue"]
"""
    found = bill(_usage(), load_prices(_write(tmp_path, text)))
    assert (found.total, found.currency, found.not_counted) == (5.0, "USD", ("everything else",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("pubsub_byte = 1e-11\n", ""), "own.toml: there is no price 'pubsub_byte', which is needed for 'Pub/Sub pub"),
        (("1e-11", "-1.0"), "own.toml: the price 'pubsub_byte' must be 0 or more, not -1.0"),
        (("1e-11", "nan"), "own.toml: the price 'pubsub_byte' must be 0 or more, not nan"),
        (('"gcp"', '"azure"'), "own.toml: tariff must name one of aws, gcp, paper"),
        (("1e-11", '"cheap"'), "own.toml: Expected `float`, got `str`"),
        (('name = "mine"', ""), "own.toml: Object missing required field `name`"),
        (("[prices]", "[prices"), "own.toml: "),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = _write(tmp_path, _OWN.replace(*change))
    with pytest.raises(InputError) as caught:
        bill(_usage(), load_prices(path))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_region_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no prices for 'aws/us-east-9'; did you mean 'aws/us-east-1'"):
        load_prices("aws/us-east-9")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_prices(str(tmp_path / "none.toml"))


def test_options_choose_lines_and_unknown_ones_are_refused() -> None:
    prices = load_prices("aws/us-east-1")
    x86, arm = (bill(_usage(), prices, {"architecture": name}).total for name in ("x86_64", "arm64"))
    assert arm < x86
    with pytest.raises(InputError, match="architecture cannot be 'riscv'"):
        bill(_usage(), prices, {"architecture": "riscv"})
    with pytest.raises(InputError, match="has no option 'colour'"):
        bill(_usage(), prices, {"colour": "red"})


def test_a_channel_without_prices_is_refused() -> None:
    with pytest.raises(InputError, match="gcp/us-central1 has no prices for the channel 'sqs'"):
        bill(_usage("sqs"), load_prices("gcp/us-central1"))


def test_an_item_that_a_region_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="there is no price 's3_express_put'"):
        bill(_usage("object"), load_prices("aws/eu-west-1"), {"store": "express"})
