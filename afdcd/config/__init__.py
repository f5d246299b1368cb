"""AfDCD's configuration keys, and reading config files."""

from afdcd.config.defaults import embedded_config
from afdcd.config.files import (
    ConfigError,
    ConfigKeyError,
    differences,
    merge_content,
    merge_file,
    merge_overrides,
)
from afdcd.config.keys import add_afdcd_config

__all__ = [
    "ConfigError",
    "ConfigKeyError",
    "add_afdcd_config",
    "differences",
    "embedded_config",
    "merge_content",
    "merge_file",
    "merge_overrides",
]
