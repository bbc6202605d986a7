"""Judgement: what forecasts are worth, predictors side by side."""

from latentfactors.evaluate.tables import metrics_table, predictions_table, weights_table

__all__ = ["metrics_table", "predictions_table", "weights_table"]
