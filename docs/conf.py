"""Sphinx configuration. The build needs no network."""

from docutils.parsers.rst.states import Inliner

from latentfactors._version import __version__

project = "latentfactors"
author = "the latentfactors authors"
copyright = "2026, the latentfactors authors"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"latentfactors {release}"
html_copy_source = False

# The default of mathjax is loaded by the reader's browser; nothing is fetched while building.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_imported_members = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Classes are documented where they stand; their members follow in full, so no second table of them.
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
add_module_names = False


def plain_bar(_, match, lineno):
    """Read "|r - f|" as an absolute value: formulas stand in the docstrings, substitutions do not."""
    end = match.end("start")
    return match.string[:end], [], match.string[end:], []


def keep_layout(app, what, name, obj, options, lines):
    """Show a module's docstring as it stands: its equations and its glossary are laid out by hand."""
    if what != "module":
        return
    head = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    body = lines[head:]
    if any(line.strip() for line in body):
        lines[head:] = ["", ".. code-block:: text", "", *(f"   {line}" for line in body[1:]), ""]


def setup(app):
    """Called by Sphinx. The hook runs before numpydoc's, which would reflow the text."""
    Inliner.dispatch["|"] = plain_bar
    app.connect("autodoc-process-docstring", keep_layout, priority=100)
