"""How long things take and how large they are, as logs say it."""

import pytest

from afdcd.utils.progress import byte_count, clock


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0.0 KiB"),
        (7900, "7.7 KiB"),
        (999 * 1024, "999.0 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (7 * 2**29, "3.5 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_bytes(count: int, said: str):
    assert byte_count(count) == said


def test_seconds():
    assert clock(59.6) == "0:01:00" and clock(86400 + 61) == "1 day, 0:01:01"
