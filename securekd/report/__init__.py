"""One self-contained page that says what a run did, what is proven and what was measured; or what an audit found.

Importing this package loads neither jinja2 nor matplotlib (the `[report]` extra); `render` does.
"""

from securekd.report.deployment import render_audit, write_audit_report
from securekd.report.page import render, write_report

__all__ = ["render", "render_audit", "write_audit_report", "write_report"]
