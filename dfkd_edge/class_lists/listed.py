"""What readers of class lists share."""

from typing import NamedTuple

LONG = 500
"""Characters of a line that patterns are tried on: a hostile one of blanks would take hours."""


class Listed(NamedTuple):
    """The names of a list, and what was read."""

    names: list[str]
    how: str


class ForeignError(Exception):
    """A format that is known and not read."""
