"""The order in which batches are used."""

from __future__ import annotations

import pytest

from afdcd.data.stream import Echo


@pytest.mark.parametrize("first", range(6))
def test_echo_goes_on_where_it_was(first: int):
    every = [batch for batch in range(4) for _ in range(3)]
    loader = ([{"number": number}] for number in range(first // 3, 4))
    given = [batch[0]["number"] for batch in Echo(loader, times=3, first=first)]
    assert given == every[first:]
