"""Text that others wrote, before it reaches a terminal: nothing in it may move, hide or colour."""

from __future__ import annotations

import codecs
import io
import sys
import traceback
import unicodedata

JOINERS = "\u200c\u200d"  # Within words of Persian or Hindi, and within emoji
KEPT = "\n\t"
ESCAPES = "dfkd_edge.escapes"


def hidden_character(text: str) -> str:
    """Return the first character that a reader cannot see, or that reorders others; else empty.

    Control characters, halves of a surrogate pair, separators of lines, and format characters such
    as U+202E, which shows what follows backwards.
    """
    return next((c for c in text if not c.isprintable() and _is_hidden(c)), "")


def _is_hidden(character: str) -> bool:
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")  # not Cn: an old Python knows fewer characters
    return character not in JOINERS and unicodedata.category(character) in kinds


def printable(text: str) -> str:
    """Write hidden characters as JSON does, such as `\\u202e`; lines and tabs stay."""
    if text.isprintable():  # nearly all of it
        return text
    return "".join(_escaped(c) if c not in KEPT and _is_hidden(c) else c for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))


def one_line(text: str) -> str:
    """Join the lines of a text: a name or a library's words may hold several."""
    return text if text.isprintable() else " ".join(text.splitlines())


def code_point(character: str) -> str:
    """Name a character that cannot be shown: `U+202E`."""
    return f"U+{ord(character):04X}"


def escape_in_streams() -> None:
    """Let the standard streams write what their encoding lacks as JSON does.

    A log in ASCII or a console of Windows knows few letters, and no stream half a surrogate pair,
    as which Python reads names that are no UTF-8.
    """
    codecs.register_error(ESCAPES, _escape_error)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escaped, error.object[error.start : error.end])), error.end


def unexpected(error: BaseException) -> str:
    """Say in one line what a library raised that nobody here expected, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    reason = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{reason and ': '}{reason} ({place})"
