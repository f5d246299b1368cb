"""Seeds for independent streams of random numbers."""

from __future__ import annotations

# What a stream is for: the second word of its seed.
MASKS, DROPOUT, MODULES = 1, 2, 3
_MASK = (1 << 64) - 1


def stream_seed(*words: int) -> int:
    """A 63-bit hash of whole numbers, such as a run's seed, a purpose, a rank and a step.

    Seeding every step's draws from such a hash, rather than letting one stream run on, makes a step
    a function of its number: a resumed run needs no random state, whatever the device.
    """
    state = 0
    for word in words:
        state = _splitmix64(state + word)
    return state >> 1


def _splitmix64(word: int) -> int:
    """A 64-bit hash (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators")."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
