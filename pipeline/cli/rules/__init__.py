"""The ``rules`` commands: check, test, explain, backtest, publish."""
