"""Readers of the files that the field works with: FRED-MD and FRED-QD, Ken French, global-q, Goyal-Welch.

A module for each source; the public names are those of `latentfactors` itself.
"""
