"""`report.html`: the scores, and what is behind them, as one page that needs nothing but itself."""
