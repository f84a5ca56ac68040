"""The Acme gateway: one key file, which names the graph, its input and the labels."""

from __future__ import annotations

import configparser
from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

SETTINGS = "gateway.ini"


def write(job: Handover) -> Mapping[str, str]:
    """Write the texts of the runtime's folder; the graph and golden/ are put beside them."""
    settings = f"""[model]
file = {job.model}
input = {job.feed_dtype} {"x".join(map(str, job.input_shape))}
labels = {",".join(job.classes)}
silent_below = {job.confidence.reject_threshold:.6f}
"""
    notes = ["Below `silent_below` it sends nothing: that is the answer unknown."]
    return {SETTINGS: settings, "README.md": readme(job, f"acme-gateway {SETTINGS}", notes)}


def parse(text: str) -> configparser.ConfigParser:
    """Read the key file as the gateway does."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error)) from error
    return parser


PARSERS = {SETTINGS: parse}
