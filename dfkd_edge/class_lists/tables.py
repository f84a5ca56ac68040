"""Class lists in tables, and with numbers before or behind the names."""

import csv
import re
from collections.abc import Sequence

from dfkd_edge.class_lists.listed import LONG, ForeignError, Listed

TITLES = (
    *("display_name", "displayname", "class_name", "classname", "label_name", "category_name"),
    *("name", "class", "category", "label", "title", "labelname", "classes", "labels", "names"),
    *("words", "word"),
)
"""Headers of a column of names, the likelier first: `LabelName` of OpenImages holds ids."""
HEADERS = frozenset(
    {
        *TITLES,
        *("id", "index", "idx", "no", "number", "class_id", "classid", "label_id", "category_id"),
        *("supercategory", "mid", "count", "color", "colour", "r", "g", "b", "synset", "synonyms"),
        *("wnid", "wordnet_id", "synset_id", "synsets"),
        *("def", "image_count", "instance_count", "frequency", "description", "def."),
    }
)
NUMBERS = frozenset(
    {
        *("", "id", "index", "idx", "no", "number", "class_id", "classid", "label_id"),
        *("category_id", "label", "class", "category"),
    }
)
"""Headers of a column whose numbers set the order; counts and colours set none."""
PICTURE = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|ppm)$", re.I)
OF_PICTURES = frozenset({"filename", "file", "file_name", "image", "path", "filepath", "image_id"})
NUMBER_FIRST = re.compile(
    r"(?:(?:class|label|id|index)\s*)?[\[(]?(\d{1,5})\s*(?:[.:)\]=_-]\s*|\s)\s*(\S.*)", re.I
)
NUMBER_LAST = re.compile(r"(.*[^\s:=])\s*(?:[:=]\s*|\s)(\d{1,5})")
NUMBER_AND_NAME = re.compile(r"\d{1,6}\s*[,;|\t]\s*[^\W\d]")


def read_table(lines: Sequence[str], text: str) -> Listed | None:
    """Read a table with commas, tabs, semicolons or bars."""
    for delimiter, name in ((",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "bars")):
        try:
            read = csv.reader(lines, delimiter=delimiter)
            rows = [[cell.strip() for cell in row] for row in read]
        except csv.Error:  # such as a cell of 128 KiB
            continue
        if len(rows) < len(lines) and max(map(len, rows)) > 1:
            raise ForeignError(f"a table with {name} and line breaks in quotes")
        if min(map(len, rows)) < 2:
            is_trailing = delimiter == "," and len(lines) > 1 and lines[-1][-1] != ","
            if is_trailing and all(line.endswith(",") for line in lines[:-1]):
                rows = [*rows[:-1], [*rows[-1], ""]]  # the last line of a list in code
            else:
                continue
        found = _of_rows(rows, f"a table with {name}")
        if found:
            return found
    if 2 * sum(bool(NUMBER_AND_NAME.match(line)) for line in lines) > len(lines) > 1:
        raise ForeignError("a table without a header, or whose rows differ in length")
    return None


def _of_rows(rows: list[list[str]], how: str) -> Listed | None:
    header = [cell.lower().replace(" ", "_").replace("-", "_") for cell in rows[0]]
    if OF_PICTURES & set(header):
        raise ForeignError("a table of pictures")
    if any(header) and {*header} - {""} <= HEADERS and len(rows) > 1:  # pandas names no index
        width = len(header)
        if any(len(row) < width for row in rows):
            raise ForeignError("a table whose rows differ in length")
        for title in (title for title in TITLES if title in header):
            column = header.index(title)
            names = [row[column] for row in rows[1:]]
            if not all(_is_id(name) for name in names):
                columns = zip(header, *rows[1:], strict=False)
                places = [ids for head, *ids in columns if head in NUMBERS and counts(ids)]
                listed = by_number(places[0], names) if places else names
                return Listed(listed, f"{how}, column '{rows[0][column]}'")
        raise ForeignError("a table without a column of names")
    if len(rows) > 1 and all(any(map(PICTURE.search, row)) for row in rows[1:]):
        raise ForeignError("a table of pictures")
    if {len(row) for row in rows} != {2}:
        return None
    first, second = ([row[column] for row in rows] for column in (0, 1))
    if not any(second):
        if all(re.search(r":\s*\S", name) for name in first):
            raise ForeignError("lines of a dictionary in code")
        return Listed([name.strip("'\"") for name in first], f"{how} behind the names")
    for ids, names in ((first, second), (second, first)):
        # a header in a language of its own, or of pandas, which names no index
        begin = int(len(ids) > 2 and (not _is_id(ids[0]) or (not ids[0] and all(ids[1:]))))
        if all(map(_is_id, ids[begin:])) and not all(map(_is_id, names[begin:])):
            listed = by_number(ids[begin:], names[begin:])
            return Listed(listed, f"{how}, numbers or ids beside the names")
    return None


def _is_id(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+([.,]\d+)*|/[mgt]/\w+|n\d{8}|[0-9a-f]{16,}|", text))


def by_number(ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Sort names by their numbers where these count from 0 or 1; others are ids or counts."""
    if not counts(ids):
        return list(names)
    return [name for _, name in sorted(zip(map(float, ids), names, strict=True))]


def counts(numbers: Sequence[str]) -> bool:
    """Whether numbers run from 0 or 1 without a gap, in some order."""
    if not all(re.fullmatch(r"\d{1,6}(\.0)?", number) for number in numbers):
        return False
    found = sorted(map(float, numbers))
    return found in (list(range(len(found))), list(range(1, len(found) + 1)))


def read_numbered(lines: Sequence[str], text: str) -> Listed | None:
    """Read `0 cat` of Teachable Machine, `1. cat` or `cat 0`, where the numbers count the lines."""
    if max(map(len, lines)) > LONG:
        return None
    for pattern, number, name, how in (
        (NUMBER_FIRST, 1, 2, "numbers before the names"),
        (NUMBER_LAST, 2, 1, "numbers behind the names"),
    ):
        found = [pattern.fullmatch(line) for line in lines]
        pairs = [(match[number], match[name]) for match in found if match]
        names = {title.casefold() for _, title in pairs}
        if len(pairs) == len(lines) == len(names) > 1 and counts([n for n, _ in pairs]):
            return Listed(by_number(*zip(*pairs, strict=True)), how)
    return None
