"""Sphinx configuration: `make docs` builds the site from the pages beside this file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The reference engine is the specification: its classes have the docstrings and the annotated signatures, and it needs
# no compiler.
os.environ["VTHREADS_ENGINE"] = "reference"
# `argparse` formats the help of the commands for this terminal.
os.environ.update(COLUMNS="88", NO_COLOR="1")
sys.path.insert(0, str(Path(__file__).parent / "_site"))

from sphinx.domains.python._object import PyObject as PythonObject

import vthreads._core.engine

assert vthreads._core.engine.engine_name == "reference"

project = "vthreads"
author = "the vthreads developers"
copyright = author
# The folder `_site` beside this file contains the last three.
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "public_names",
    "listed_names",
    "source_links",
]
exclude_patterns = ["_site"]

# --- Markdown

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# Pages describe their examples in the order of a program, and a page may begin below the first level.
suppress_warnings = ["myst.header"]

# --- the reference

default_role = "code"  # `spawn` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # methods and attributes have entries already
# The site is built without a network, so it cannot link to the documentation of Python.
nitpick_ignore_regex = [("py:.*", r".*")]

# Napoleon writes the section "Attributes" of a class as fields of this type, which Sphinx calls "Variables".
next(field for field in PythonObject.doc_field_types if field.name == "variable").label = "Attributes"

# --- the look

html_theme = "furo"
html_title = "vthreads"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
