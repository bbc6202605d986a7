"""Structural models: one paper, one file. Models never import each other."""
