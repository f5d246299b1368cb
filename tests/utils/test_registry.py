"""Registries of parts."""

from __future__ import annotations

import pytest

from afdcd.utils.registry import Registry


class Part:
    pass


def part_of(module: str) -> type[Part]:
    return type("SomePart", (Part,), {"__module__": module})


def test_names_are_told_once_earlier_and_later_ones():
    registry = Registry("PARTS")
    registry.register("first")(part_of("a"))
    told: list[str] = []
    registry.tell_names(told.append)
    registry.register("second")(part_of("a"))
    registry.register("second")(part_of("a"))
    assert told == ["first", "second"] == registry.names()


def test_a_name_that_a_listener_refuses_isnt_registered():
    def refuse(name: str) -> None:
        raise ValueError(f"no {name}")

    registry = Registry("PARTS")
    registry.tell_names(refuse)
    with pytest.raises(ValueError, match="no part"):
        registry.register("part")(part_of("a"))
    assert "part" not in registry


def test_a_name_belongs_to_one_module():
    registry = Registry("PARTS")
    registry.register("part")(part_of("one"))
    with pytest.raises(ValueError, match="PARTS already has 'part', of one: choose another name"):
        registry.register("part")(part_of("other"))
    again = part_of("one")
    registry.register("part")(again)
    assert registry.get("part") is again


@pytest.mark.parametrize("part", [int, print, Part()])
def test_parts_are_subclasses(part):
    registry = Registry("PARTS", base=Part)
    with pytest.raises(TypeError, match=r"PARTS takes subclasses of .*Part; got .* for 'part'"):
        registry.register("part")(part)


def test_unknown_names():
    registry = Registry("PARTS")
    registry.register("channel_means")(Part)
    with pytest.raises(ValueError, match="is called 'channel_mean'; did you mean channel_means"):
        registry.get("channel_mean")
    with pytest.raises(ValueError, match="there are channel_means"):
        registry.get("x")


def test_members_of_a_family_join_when_they_are_asked_for():
    registry = Registry("PARTS")
    told: list[str] = []
    registry.register("family:")(Part)
    registry.tell_names(told.append)
    assert "other:NAME" not in registry and "family" not in registry
    assert "family:one" in registry and registry.get("family:two") is Part
    assert registry.get("family:one") is Part
    assert told == ["family:", "family:one", "family:two"]
