"""Colours of classes, where a data set's owners give a rule or none."""

from __future__ import annotations

from afdcd.data.spec import Color


def bit_palette(count: int, first: int = 0) -> tuple[Color, ...]:
    """Colours ``first`` to ``first + count - 1`` of Pascal VOC's colour map, (red, green, blue).

    Three bits of the number at a time give the highest bits of red, green and blue, so that any 256
    numbers have different colours; number 0 is black.
    """
    return tuple(_bit_color(number) for number in range(first, first + count))


def _bit_color(number: int) -> Color:
    channels = [0, 0, 0]
    for level in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * level + channel) & 1) << (7 - level)
    return channels[0], channels[1], channels[2]


def hex_colors(text: str) -> tuple[Color, ...]:
    """Colours written as words of six hexadecimal digits, e.g. ``787878 b47878``."""
    return tuple((int(w[:2], 16), int(w[2:4], 16), int(w[4:], 16)) for w in text.split())
