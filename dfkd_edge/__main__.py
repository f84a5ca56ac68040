"""Run as `python -m dfkd_edge`."""

from dfkd_edge.cli import main

main()
