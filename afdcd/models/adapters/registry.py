"""The registry of the kinds of other people's models."""

from afdcd.utils.registry import Registry

# By the word before the colon of a name, or the kind of file that it names.
ADAPTERS = Registry("ADAPTERS")
