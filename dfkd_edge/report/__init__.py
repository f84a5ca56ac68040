"""The report: one offline HTML file that says what the student can do and where it fails."""

from dfkd_edge.report.page import gather, report_path, write_page, write_report

__all__ = ["gather", "report_path", "write_page", "write_report"]
