"""Pictures and the self-contained page; computes nothing."""

from stalewise.report.page import write_report

__all__ = ["write_report"]
