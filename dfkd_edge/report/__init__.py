"""The report: one offline HTML file that says what the student can do and where it fails."""

from dfkd_edge.report.page import report_path, write_page, write_report
from dfkd_edge.report.reading import gather

__all__ = ["gather", "report_path", "write_page", "write_report"]
