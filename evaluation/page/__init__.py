"""`report.html`: the scores, and what is behind them, as one page that needs nothing but itself."""

from evaluation.page.markdown import tables as markdown_tables
from evaluation.page.render import render_page
from evaluation.page.runs import Run, runs_of

REPORT = "report.html"

__all__ = ["REPORT", "Run", "markdown_tables", "render_page", "runs_of"]
