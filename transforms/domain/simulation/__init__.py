"""Runs rules without a cluster, through the production step: cases, explanations and backtests."""
