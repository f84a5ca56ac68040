"""The report: one offline HTML file that says what the student can do and where it fails."""

from dfkd_edge.report.page import report_path, write_report

__all__ = ["report_path", "write_report"]
