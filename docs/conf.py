"""How Sphinx makes a site of these pages: `tox run -e docs`."""

import anymate_guard

project = "anymate_guard"
version = release = anymate_guard.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
default_role = "code"  # docstrings are written with single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True  # attributes of errors have no signature of their own

html_theme = "furo"
html_title = f"anymate_guard {version}"
html_show_copyright = False
