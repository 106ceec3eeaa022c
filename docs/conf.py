"""The documentation site: ``sphinx-build -c docs . docs/_build`` from the root of the repository.

The source is the repository itself, so that pages may link to code, benchmarks and tests.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault(
    "KERAS_BACKEND", "torch"
)  # Keras asks for one when it is imported, and takes TensorFlow otherwise.

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx

import greedylr

project = "greedylr"
author = "The greedylr authors"
version = release = greedylr.__version__
html_title = f"greedylr {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
root_doc = "docs/index"
include_patterns = ["docs/**/*.md", "docs/*.md", "benchmarks/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/_build"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # Pages of a benchmark may begin with a smaller heading.

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_extra_path = ["_root"]  # The pages are in docs/, as in the repository: this leads there.
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _mathml(self: Any, node: nodes.Element) -> None:
    """MathML, which browsers draw themselves: the site loads nothing from anywhere."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Add the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
