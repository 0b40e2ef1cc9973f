"""The aggregator: stages, verifies and folds updates, commits rounds, serves models. Knows no model code."""
