"""What dynamic factor models share between a panel and the kernels.

series       options, reading a panel, forecasts of rows
periods      periods treated apart: hidden from estimation, or with larger shocks
states       states, laws of cells and expected values of a linear model
unscented    the same of a nonlinear decoder, by the unscented filter
tools        standard errors, impulse responses, contributions, draws, information criteria
"""
