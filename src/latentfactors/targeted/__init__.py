"""What targeted factor models share between a panel and the kernels.

series       targets by name, pairs of predictors and targets, units, dated forecasts
leads        native forecasts without dynamics: one horizon, on the rows that the time rule names
states       factors with dynamics or of mixed frequency, and the laws of their states
cells        laws of single cells, which nowcasts ask for
estimates    what a fit found
forecasts    forecasts with dynamics or of mixed frequency
refits       refits for intervals and for the weight of targets
"""
