"""AfDCD's configuration keys, and reading config files."""

from afdcd.config.defaults import embedded_config
from afdcd.config.errors import ConfigError, ConfigKeyError
from afdcd.config.files import (
    COMMAND_LINE,
    differences,
    differing,
    flat_keys,
    flat_value,
    flat_values,
    is_overridden,
    merge_content,
    merge_file,
    merge_overrides,
)
from afdcd.config.keys import add_afdcd_config

__all__ = [
    "COMMAND_LINE",
    "ConfigError",
    "ConfigKeyError",
    "add_afdcd_config",
    "differences",
    "differing",
    "embedded_config",
    "flat_keys",
    "flat_value",
    "flat_values",
    "is_overridden",
    "merge_content",
    "merge_file",
    "merge_overrides",
]
