"""The documentation site: ``make docs``."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

from afdcd import __version__

project = "AfDCD"
copyright = "the authors of AfDCD; Apache-2.0"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "afdcd_reference",
    "mathml",
]
exclude_patterns = ["_extensions"]
myst_enable_extensions = ["dollarmath", "attrs_block", "colon_fence"]
myst_heading_anchors = 4
# Examples with comments that a highlighter stumbles over are shown plainly.
suppress_warnings = ["misc.highlighting_failure"]

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"AfDCD {version}"
html_static_path: list[str] = []
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_use_rtype = False
default_role = "literal"

# Their inventories are fetched: only where that is asked for, so that a build needs no network.
if os.environ.get("AFDCD_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "detectron2": ("https://detectron2.readthedocs.io/en/latest", None),
    }
