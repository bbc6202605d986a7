"""Numerical kernels: pure functions on NumPy float64 arrays.

Linear algebra, fixed-point acceleration, alternating least squares, EM, state-space recursions, rotations and
panel statistics. A kernel imports nothing of the library but other kernels, never changes its input and keeps
no state, so every one can be read, tested against a slow twin and reused on its own. Arguments are trusted:
the models that call a kernel have validated them.
"""
