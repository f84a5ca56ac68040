"""Lines of a class list that may not be what was meant, found without a teacher.

A line that can only be wrong is refused when the list is read (`class_names.py`).
"""

import re
from collections.abc import Iterator, Sequence

from dfkd_edge.class_lint.findings import Finding
from dfkd_edge.class_names import ONE_TAB, WIDE_GAP, names_on_a_line
from dfkd_edge.interfaces import Reporter

PROMPT = re.compile(r"\ban? (photo|picture|image|drawing|painting|sketch) of\b", re.IGNORECASE)
MAX_NOTED = 3


def find_slips(names: Sequence[str]) -> Iterator[Finding]:
    """Find names that hold a prompt, several spaces or several names."""
    for name in names:
        parts, prompt = names_on_a_line(name), PROMPT.search(name)
        if prompt:
            before, text = name[: prompt.start()].rstrip(), f"is this a prompt? {ONE_TAB}"
            # nothing to suggest where the rest is no name, or that of another class
            is_plain = bool(before) and before not in names
            line = (before, name[prompt.start() :]) if is_plain else None
            yield Finding("prompt-in-name", (name,), text, better_line=line)
        elif WIDE_GAP.search(name):
            yield Finding("wide-gap", (name,), f"several spaces in a name: {ONE_TAB}, or one")
        elif len(parts) > 1:
            text = f"one class, not {len(parts)}: write one name a line, unless these are synonyms"
            # fine: ImageNet's class names are synonyms with commas between them
            yield Finding("many-in-one", (name,), text, is_fine=True)


def note_slips(names: Sequence[str], reporter: Reporter) -> None:
    """Note them in one line before anything is trained, where there are some."""
    found = list(find_slips(names))
    if found:
        listed = "; ".join(f"'{slip.names[0]}': {slip.text}" for slip in found[:MAX_NOTED])
        more = f"; and {len(found) - MAX_NOTED} more" if len(found) > MAX_NOTED else ""
        reporter.note(f"  look at the class list: {listed}{more}")
