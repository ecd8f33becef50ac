"""Rules tried out without a cluster: cases, explanations and backtests run through the production step."""
