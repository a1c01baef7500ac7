"""The report: everything a run can show, on one page that needs nothing else.

Importing this package loads no drawing library; :func:`write_report` does, when it draws.
"""

from ppl_gen.report.page import write_report

__all__ = ["write_report"]
