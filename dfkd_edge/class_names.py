"""classes.txt -> ClassNames: what may stand in a class list, and what each fault is called.

One name a line, UTF-8 with or without BOM, any line ending. Blank lines and lines that start with
`#` are skipped; spaces around a name are dropped. `name<TAB>prompt` gives a class its own prompt;
several spaces in the tab's place, a second tab, a tab without a prompt, or all names on one line
are errors.
What other tools write is translated first (`class_lists`).
Names are text, never paths: `slugs` makes safe folder names from them.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.class_lists.formats import BULLET, WORDNET_ID, translate
from dfkd_edge.errors import ClassNamesError
from dfkd_edge.runtime.counting import first_few
from dfkd_edge.runtime.plain_text import code_point, hidden_character
from dfkd_edge.runtime.safe_files import reading

MIN_CLASSES, MAX_CLASSES = 2, 1_000
MAX_NAME_CHARACTERS, MAX_PROMPT_CHARACTERS = 100, 300
MAX_FILE_BYTES = 1 << 20
RESERVED = {
    "unknown": "predict answers so where it refuses to name a class",
    "__background__": "other tools keep it for what is of no class",
    **dict.fromkeys(("__ignore__", "_background_"), "labelme keeps it for what is of no class"),
    "_background_noise_": "other tools keep it for what is of no class",
}
"""Folded names that no class may have, and why."""
BINARY = {
    b"PK\3\4": "it is a ZIP archive, or a workbook of Excel: unpack it, or save it as text",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"\x80": "it is a pickle of Python: write one class name a line",
}
"""How files begin that are no text."""


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The categories, in the order of the list."""

    names: tuple[str, ...]  # As written, without surrounding spaces
    prompts: tuple[str | None, ...]  # The class's own prompt, or None for the templates

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def slugs(self) -> tuple[str, ...]:
        """Return unique folder names of letters, digits and dashes, such as 003-great-dane."""
        return tuple(f"{index:03d}-{slug(name)}" for index, name in enumerate(self.names))


def slug(name: str) -> str:
    """Reduce a name to ASCII letters, digits and dashes; empty names become `class`."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:40] or "class"


def folded(name: str) -> str:
    """Return the form under which two names count as the same."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())  # "Straße" is "STRASSE"


def read_class_names(path: Path) -> ClassNames:
    """Read a class list of ours, as runs keep it.

    Raises:
        ClassNamesError: the file is missing, binary, too large, or breaks a rule of the list.
    """
    return parse_class_names(_read_text(path), str(path))


def read_given_list(path: Path) -> tuple[ClassNames, str]:
    """Read the class list of a user, which another tool may have written.

    Returns:
        The names, and what the list was read as; empty for a list as this tool has it.

    Raises:
        ClassNamesError: as `read_class_names`, or it is of a format that is not read.
    """
    text, how = translate(_read_text(path), str(path))
    class_names = parse_class_names(text, f"{path}, read as {how}" if how else str(path))
    for name in class_names.names:
        if folded(name) in RESERVED:
            hint = f"give the class another name, or remove it: {RESERVED[folded(name)]}"
            raise ClassNamesError(f"'{name}' is no name for a class", where=str(path), hint=hint)
        if WORDNET_ID.search(name):
            hint = "write words in place of ids; ImageNet's LOC_synset_mapping.txt has them"
            raise ClassNamesError(f"'{name}' holds an id of WordNet", where=str(path), hint=hint)
        if BULLET.match(name) or re.search(r"\s#\s", name):
            hint = "remove the bullet, and give a comment a line of its own"
            what = f"'{name}' begins like an item of a list, or holds a comment"
            raise ClassNamesError(what, where=str(path), hint=hint)
    return class_names, how


def translated_text(class_names: ClassNames, how: str) -> str:
    """Say what the list of another tool was read as."""
    names = first_few([f"'{name}'" for name in class_names.names], 3)
    return f"class list read as {how}: {names}"


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            hint = "name a text file"
            raise ClassNamesError("class list is a folder", where=str(path), hint=hint)
        is_given = str(path).startswith("/dev/")  # `<(sort names)` of a shell is a pipe there
        with path.open("rb") if is_given else reading(path) as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ClassNamesError("class list is larger than 1 MiB", where=str(path))
    except FileNotFoundError as error:
        hint = "write one class name a line into it"
        raise ClassNamesError("no such class list", where=str(path), hint=hint) from error
    except OSError as error:
        text = f"cannot read class list: {error.strerror}"
        raise ClassNamesError(text, where=str(path)) from error
    try:
        return raw.decode("utf-8-sig")  # editors on Windows begin a file with a BOM
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        known = (hint for begin, hint in BINARY.items() if raw.startswith(begin))
        raise ClassNamesError(
            "class list is not UTF-8 text",
            where=f"{path}, line {line}",
            hint=next(known, "save it as UTF-8"),
        ) from error


def parse_class_names(text: str, where: str) -> ClassNames:
    """Parse the text of a class list.

    Raises:
        ClassNamesError: see the module's rules.
    """
    names: list[str] = []
    prompts: list[str | None] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):  # not at U+2028
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{where}, line {number}"
        before, tab, after = line.lstrip().partition("\t")
        name, prompt = before.strip(), after.strip()
        fault, hint = _fault(name, prompt, bool(tab))
        if fault:
            raise ClassNamesError(fault, where=place, hint=hint)
        first = seen.setdefault(folded(name), number)
        if first != number:
            raise ClassNamesError(
                f"'{name}' is already on line {first}", where=place, hint="remove one of the two"
            )
        names.append(name)
        prompts.append(prompt or None)
    if len(names) < MIN_CLASSES:
        raise _too_few(names, seen, where)
    if len(names) > MAX_CLASSES:
        raise ClassNamesError(
            f"{len(names)} class names in the list", where=where, hint=f"list at most {MAX_CLASSES}"
        )
    return ClassNames(tuple(names), tuple(prompts))


def _too_few(names: list[str], seen: dict[str, int], where: str) -> ClassNamesError:
    if not names:
        return ClassNamesError("no class name in the list", where=where, hint="list at least two")
    (name,), (number,) = names, seen.values()
    num, place = len(names_on_a_line(name)), f"{where}, line {number}"
    if num > 1:
        text = f"{num} names on one line make one class, '{name}'"
        return ClassNamesError(text, where=place, hint="write one name a line")
    text = f"only one class name, '{name}' in the list"
    return ClassNamesError(text, where=place, hint="list at least two, one a line")


def _fault(name: str, prompt: str, has_tab: bool) -> tuple[str, str]:
    """Say what is wrong with a line, and what to do; empty texts for a line that is right."""
    if "\t" in prompt:
        return "several tabs in one line", "put one tab, between name and prompt"
    unprintable = [c for c in name + prompt if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn")]
    if unprintable:
        return f"control character {code_point(unprintable[0])}", "is this a text file?"
    if hidden := hidden_character(name + prompt):  # U+202E shows what follows backwards
        return f"hidden character {code_point(hidden)}", "write the line anew without it"
    parted = WIDE_GAP.split(name, maxsplit=1)
    if len(parted) > 1 and len(parted[1].split()) > 1:  # a phrase: a prompt without its tab
        hint = "put one space between the words of a name, and each name on a line of its own"
        hint += "" if has_tab else "; between name and prompt a tab"
        return f"several spaces between '{parted[0][:40]}' and '{parted[1][:40]}'", hint
    if len(name) > MAX_NAME_CHARACTERS or len(prompt) > MAX_PROMPT_CHARACTERS:
        hint = f"names have at most {MAX_NAME_CHARACTERS}, prompts {MAX_PROMPT_CHARACTERS}"
        return f"name or prompt of {max(len(name), len(prompt))} characters", hint
    if not any(c.isalnum() for c in name):  # such as a line of dashes
        return f"'{name}' has no letter or digit", ""
    if "{}" in prompt:
        return (
            "the prompt holds {}, which nothing fills",
            "write the name of the class in its place",
        )
    if has_tab and not prompt:
        hint = "write the prompt after the tab, or remove the tab"
        return f"'{name}' has a tab but no prompt", hint
    return "", ""


WIDE_GAP = re.compile(r"\s{2,}")
SEPARATORS = re.compile(r"[,;]")
ONE_TAB = "put one tab between name and prompt"


def names_on_a_line(name: str) -> list[str]:
    """Part a name at commas and semicolons; ImageNet's names have them between synonyms."""
    return [part.strip() for part in SEPARATORS.split(name) if part.strip()]
