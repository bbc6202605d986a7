"""Modules whose optional dependency is not installed have no doctests to collect."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("skfolio") else ["src/latentfactors/risk/skfolio.py"]
