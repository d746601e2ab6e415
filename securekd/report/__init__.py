"""`report.html`: one self-contained page that says what a run did, what is proven, and what was measured.

Importing this package loads neither jinja2 nor matplotlib (the `[report]` extra); `render` does.
"""

from securekd.report.page import render, write_report

__all__ = ["render", "write_report"]
