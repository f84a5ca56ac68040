"""Class lists of other tools: read as what they are, or refused by the name of their format.

Teachable Machine, Edge Impulse, jetson-inference, YOLO, COCO, LVIS, OpenImages, TensorFlow, Hugging
Face, CVAT and Label Studio write names with numbers, ids, headers, quotes or keys. Each reader
knows one form by all of its lines; what is of none of them is a plain list of names.
"""

import csv
import html
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dfkd_edge.errors import ClassNamesError

ONE_A_LINE = "write one class name a line into a text file"
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
PICTURE = re.compile(r"\.(jpe?g|png|bmp|gif|tiff?|webp|ppm)$", re.I)
OF_PICTURES = frozenset({"filename", "file", "file_name", "image", "path", "filepath", "image_id"})
KEYS = ("id2label", "categories", "names", "labels", "classes", "class_names", "label2id")
"""Keys of JSON documents that hold the names: Hugging Face, COCO, YOLO, Teachable Machine."""
LONG = 500
"""Characters of a line that patterns are tried on: a hostile one of blanks would take hours."""
SYNSET = re.compile(
    r"(?:\d{1,5}[\s,.:]\s*)?n\d{8}(?![0-9A-Za-z])(?:[\s,]+\d{1,5}(?=[\s,]))?(.*)", re.I
)
"""A line of ImageNet's: an id of WordNet, and perhaps numbers and words: `n02119789 1 kit_fox`."""
WORDNET_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:n\d{7,8}|wn:\d{8}[nvar])(?![0-9A-Za-z])|\w\.[nvasr]\.\d\d(?!\w)", re.I
)
"""In a name of whatever list: what a teacher of words reads as nothing."""
BULLET = re.compile(
    r"(?:[-*+\u2013\u2014]\s+|[\u2022\u25e6\u25aa\u2023\u00b7\u25cf\u25cb]\s*)(?=\S)"
)
NUMBER_FIRST = re.compile(
    r"(?:(?:class|label|id|index)\s*)?[\[(]?(\d{1,5})\s*(?:[.:)\]=-]\s*|\s)\s*(\S.*)", re.I
)
NUMBER_LAST = re.compile(r"(.*[^\s:=])\s*(?:[:=]\s*|\s)(\d{1,5})")
MARKUP = re.compile(r"<(\?xml|View\b|annotations?\b|html\b|!DOCTYPE|labels?\b|meta\b)", re.I)


class Listed(NamedTuple):
    """The names of a list, and what was read."""

    names: list[str]
    how: str


class _ForeignError(Exception):
    """A format that is known and not read."""


def translate(text: str, where: str) -> tuple[str, str]:
    """Write the list of another tool as one of ours, and say what it was read as.

    Args:
        text: of the file.
        where: its name.

    Returns:
        A list of ours and a few words; the very text and none where it is one of ours.

    Raises:
        ClassNamesError: the list is of a format that is not read.
    """
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in unified.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and re.fullmatch(r"sep=.", lines[0], re.I):  # Excel's, above a table
        lines = lines[1:]
    try:
        for read in READERS if lines else ():
            found = read(lines, unified)
            if found:
                return _as_ours(found), found.how
    except _ForeignError as error:
        what = f"class list is {error}, which is not read"
        raise ClassNamesError(what, where=where, hint=ONE_A_LINE) from error
    return text, ""


def _as_ours(found: Listed) -> str:
    broken = [name for name in found.names if not name.strip() or re.search(r"[\r\n\t]", name)]
    if broken or any(name.strip().startswith("#") for name in found.names):
        raise _ForeignError(f"{found.how} with names that are empty, or hold a tab or a line break")
    return "".join(f"{name.strip()}\n" for name in found.names)


def _json(lines: Sequence[str], text: str) -> Listed | None:
    if lines[0][0] not in "{[":
        return None
    try:
        return _of_json(json.loads(text, object_pairs_hook=_of_one_key_each))
    except (ValueError, RecursionError) as error:
        if lines[0][0] == "{" or re.match(r"\[\s*(['\"{\[]|$)", lines[0]):
            raise _ForeignError("JSON or Python that cannot be read as JSON") from error
        return None  # `[red]` is a name


def _of_one_key_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise _ForeignError("JSON with one key twice")
    return dict(pairs)


def _of_json(value: Any, how: str = "JSON") -> Listed:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return Listed(value, f"a list in {how}")
    if isinstance(value, list) and value and all(_has_name(item) for item in value):
        return Listed([item["name"] for item in _in_order(value)], f"names of a list in {how}")
    if isinstance(value, dict) and value:
        for key in KEYS:
            if isinstance(value.get(key), list | dict):
                return _of_json(value[key], f"JSON, key '{key}'")
        if isinstance(value.get("label"), dict):  # Datumaro of CVAT
            return _of_json(value["label"], how)
        if all(_is_synset(list(pair)) for pair in value.items()):
            return Listed(list(map(_first_word, value.values())), f"WordNet ids to words in {how}")
        if all(re.fullmatch(r"\d+", key) for key in value):
            named = sorted(value.items(), key=lambda pair: int(pair[0]))
            if all(_is_synset(pair) for _, pair in named):  # imagenet_class_index.json of Keras
                return Listed([_first_word(pair[1]) for _, pair in named], f"ids, words in {how}")
            if all(isinstance(name, str) for _, name in named):
                return Listed([name for _, name in named], f"a map of numbers to names in {how}")
        elif all(type(number) is int for number in value.values()):
            if len(set(value.values())) < len(value):
                raise _ForeignError(f"a map of names to numbers in {how}, one of them twice")
            names = sorted(value, key=value.__getitem__)
            return Listed(names, f"a map of names to numbers in {how}")
    raise _ForeignError("JSON without a list or map of class names")


def _is_synset(value: object) -> bool:
    """Whether a value is a pair of id and words."""
    if not isinstance(value, list) or [type(part) for part in value] != [str, str]:
        return False
    return bool(WORDNET_ID.fullmatch(value[0]))


def _has_name(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _in_order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    has_ids = all(type(item.get("id")) is int for item in items)
    if has_ids and len({item["id"] for item in items}) < len(items):
        raise _ForeignError("JSON with one id twice")
    return sorted(items, key=lambda item: item["id"]) if has_ids else items


def _markup(lines: Sequence[str], text: str) -> Listed | None:
    if not MARKUP.match(lines[0]):
        return None
    if "<!ENTITY" in text:
        raise _ForeignError("XML that defines words of its own")
    value = r"(?:\"([^\"]*)\"|'([^']*)')"
    found = re.findall(rf"<(?:Choice|Label)\b[^<>]*?\bvalue\s*=\s*{value}", text)
    if found:
        values = [html.unescape("".join(quoted)) for quoted in found]
        return Listed(values, "a labelling interface of Label Studio")
    names = re.findall(r"<label>\s*<name>([^<]*)</name>", text)
    if names:
        return Listed(list(map(html.unescape, names)), "labels of CVAT in XML")
    raise _ForeignError("XML or HTML")


def _yaml(lines: Sequence[str], text: str) -> Listed | None:
    """Read `names:` of YOLO and the like: a block or flow list, or a map of numbers."""
    if all(map(BULLET.match, lines)):
        return Listed([_plain(BULLET.sub("", ln, 1)) for ln in lines], "a list in YAML or Markdown")
    found = re.search(rf"^({'|'.join(KEYS)}) *: *([\[{{]?)(.*)$", text, re.MULTILINE)
    if found and not found[2] and re.match(r"[&*!|>]", found[3]):
        raise _ForeignError(f"YAML, key '{found[1]}', that refers to another place")
    if not found or (found[3] and not found[2] and not found[3].startswith("#")):
        if re.match(r"(---$|(nc|path|train|val)\s*:)", lines[0]):
            raise _ForeignError("YAML without names")
        return None
    how = f"YAML, key '{found[1]}'"
    items = _flow(text[found.start(3) :], found[2]) if found[2] else _block(text[found.end() + 1 :])
    named = [re.fullmatch(r"(?:- +)?name *: *(.+)", item) for item in items]
    if any(named):
        return Listed([_plain(match[1]) for match in named if match], how)
    numbered = [re.fullmatch(r"['\"]?(\d+)['\"]? *: *(.+)", item) for item in items]
    if items and all(numbered):
        pairs = sorted((int(match[1]), _plain(match[2])) for match in numbered if match)
        first = pairs[0][0]
        if first > 1 or [number for number, _ in pairs] != list(range(first, first + len(pairs))):
            raise _ForeignError(f"{how}, with numbers that do not run from 0 or 1 without a gap")
        return _of_all(Listed([name for _, name in pairs], how), text)
    names = [_plain(item.removeprefix("- ")) for item in items]
    if not names or (not found[2] and not all(item.startswith("- ") for item in items)):
        raise _ForeignError(f"{how}, but no list or map of numbers to names")
    return _of_all(Listed(names, how), text)


def _of_all(found: Listed, text: str) -> Listed:
    """Check a list against the number of names that YOLO states beside it."""
    stated = re.search(r"^nc *: *(\d{1,9})\b", text, re.MULTILINE)
    if stated and int(stated[1]) != len(found.names):
        raise _ForeignError(f"{found.how}, with {len(found.names)} of {stated[1]} names (nc)")
    return found


def _flow(text: str, opening: str) -> list[str]:
    """Part `a, 'b, c']` at the commas that stand in no quotes."""
    inside, closing, _ = text.partition("]" if opening == "[" else "}")
    if not closing:
        raise _ForeignError(f"YAML whose '{opening}' is not closed")
    items = re.findall(r"(?:[^,'\"]|'[^']*'|\"[^\"]*\")+", inside)
    return [item.strip() for item in items if item.strip()]


def _block(text: str) -> list[str]:
    """Take the lines that are indented, or begin with a dash, up to the next key."""
    lines = itertools.takewhile(
        lambda line: not line.strip() or line[0] in " \t#" or line.startswith("- "),
        text.split("\n"),
    )
    items = [line.strip() for line in lines]
    return [item for item in items if item and not item.startswith("#")]


def _plain(text: str) -> str:
    """Drop the quotes of a value, or the comment after it."""
    text = text.strip()
    if len(text) > LONG:
        return text
    quoted = re.match(r"(['\"])(.*)\1\s*(#.*)?$", text)
    return quoted[2] if quoted else re.sub(r"\s+#.*$", "", text)


def _of_label_map(text: str) -> Listed:
    value, num = r"(?:\"([^\"\n]*)\"|'([^'\n]*)')", len(re.findall(r"\bitem\s*\{", text))
    for key in ("display_name", "name"):
        found = ["".join(q) for q in re.findall(rf"\b{key}\s*:\s*{value}", text)]
        if len(found) == num:
            ids = re.findall(r"\bid\s*:\s*(\d{1,9})", text)
            names = _by_number(ids, found) if len(ids) == num else found
            return Listed(names, "a label map of TensorFlow")
    raise _ForeignError("a label map of TensorFlow, some of whose items have no name")


def _code(lines: Sequence[str], text: str) -> Listed | None:
    """Read TensorFlow's label map and Edge Impulse's header; refuse darknet's .data."""
    if re.match(r"item\s*\{", lines[0]):
        return _of_label_map(text)
    found = re.search(r"inferencing_categories\w{0,20}\[[^\]]{0,20}\]\s{0,9}=\s{0,9}\{", text)
    if found:
        names = re.findall(r"\"([^\"]*)\"", text[found.end() :].partition("}")[0])
        return Listed(names, "model_metadata.h of Edge Impulse")
    values = [line for line in lines if not re.fullmatch(r"\[[\w. ]+\]", line)]
    if values and all(re.match(r"\w+\s*=", line) for line in values):
        raise _ForeignError("settings such as darknet's .data (name the file behind names=)")
    if re.match(r"(#include|//|/\*|import |from \w+ import )", lines[0]):
        raise _ForeignError("source code")
    return None


def _synsets(lines: Sequence[str], text: str) -> Listed | None:
    found = [SYNSET.fullmatch(line[:LONG]) for line in lines]
    words = [match[1].lstrip(" \t,:;_|-") for match in found if match]
    if len(words) < len(lines):
        return None
    if not all(words):
        raise _ForeignError("a list of WordNet ids without words, such as ImageNet's folders")
    return Listed(list(map(_first_word, words)), "WordNet ids with words, the first of each")


def _first_word(words: str) -> str:
    """Take `tench` of `tench, Tinca tinca`; ImageNet writes blanks as underscores in places."""
    return words.strip("\"'").partition(",")[0].replace("_", " ").strip()


def _table(lines: Sequence[str], text: str) -> Listed | None:
    for delimiter, name in ((",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "bars")):
        try:
            read = csv.reader(lines, delimiter=delimiter)
            rows = [[cell.strip() for cell in row] for row in read]
        except csv.Error:  # such as a cell of 128 KiB
            continue
        if min(map(len, rows)) < 2:
            is_trailing = delimiter == "," and len(lines) > 1 and lines[-1][-1] != ","
            if is_trailing and all(line.endswith(",") for line in lines[:-1]):
                rows = [*rows[:-1], [*rows[-1], ""]]  # the last line of a list in code
            else:
                continue
        found = _of_rows(rows, f"a table with {name}")
        if found:
            return found
    return None


def _of_rows(rows: list[list[str]], how: str) -> Listed | None:
    header = [cell.lower().replace(" ", "_").replace("-", "_") for cell in rows[0]]
    if OF_PICTURES & set(header):
        raise _ForeignError("a table of pictures")
    if set(header) <= HEADERS and len(rows) > 1:
        width = len(header)
        if any(len(row) < width for row in rows):
            raise _ForeignError("a table whose rows differ in length")
        for title in (title for title in TITLES if title in header):
            column = header.index(title)
            names = [row[column] for row in rows[1:]]
            if not all(_is_id(name) for name in names):
                return Listed(names, f"{how}, column '{rows[0][column]}'")
        raise _ForeignError("a table without a column of names")
    if len(rows) > 1 and all(any(map(PICTURE.search, row)) for row in rows[1:]):
        raise _ForeignError("a table of pictures")
    widths = {len(row) for row in rows}
    if len(widths) == 1 and len(rows[0]) > 2 and all(row[0].isdecimal() for row in rows):
        raise _ForeignError(f"a table of {len(rows[0])} columns without a header")
    if widths != {2}:
        return None
    first, second = ([row[column] for row in rows] for column in (0, 1))
    if not any(second):
        return Listed([name.strip("'\"") for name in first], f"{how} behind the names")
    for ids, names in ((first, second), (second, first)):
        begin = int(len(ids) > 2 and not _is_id(ids[0]))  # a header in a language of its own
        if all(map(_is_id, ids[begin:])) and not all(map(_is_id, names[begin:])):
            listed = _by_number(ids[begin:], names[begin:])
            return Listed(listed, f"{how}, numbers or ids beside the names")
    return None


def _is_id(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?|/[mgt]/\w+|n\d{8}|[0-9a-f]{16,}|", text))


def _by_number(ids: Sequence[str], names: Sequence[str]) -> list[str]:
    """Sort names by their numbers where these count from 0 or 1; others are ids or counts."""
    if not _counts(ids):
        return list(names)
    return [name for _, name in sorted(zip(map(int, ids), names, strict=True))]


def _counts(numbers: Sequence[str]) -> bool:
    if not all(re.fullmatch(r"\d{1,6}", number) for number in numbers):
        return False
    found = sorted(map(int, numbers))
    return found in (list(range(len(found))), list(range(1, len(found) + 1)))


def _numbered(lines: Sequence[str], text: str) -> Listed | None:
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
        if len(pairs) == len(lines) == len(names) > 1 and _counts([n for n, _ in pairs]):
            return Listed(_by_number(*zip(*pairs, strict=True)), how)
    return None


def _coloured(lines: Sequence[str], text: str) -> Listed | None:
    """Read `car:255,0,0::` of CVAT's segmentation masks."""
    found = [re.fullmatch(r"([^:]+):\d{1,3},\d{1,3},\d{1,3}:[^:]*:[^:]*", ln) for ln in lines]
    names = [match[1] for match in found if match]
    return Listed(names, "a label map of CVAT") if len(names) == len(lines) else None


def _quoted(lines: Sequence[str], text: str) -> Listed | None:
    found = [re.fullmatch(r"([\"'])(.+)\1[,;]?", line) for line in lines]
    names = [match[2] for match in found if match]
    return Listed(names, "names in quotes") if len(names) == len(lines) else None


def _header(lines: Sequence[str], text: str) -> Listed | None:
    if len(lines) > 2 and lines[0].lower().replace(" ", "_") in TITLES:
        raise _ForeignError(f"a column under the header '{lines[0]}' (remove that line)")
    return None


Reader = Callable[[Sequence[str], str], Listed | None]
READERS: tuple[Reader, ...] = (
    *(_json, _markup, _yaml, _code, _synsets, _coloured, _table, _numbered, _quoted, _header),
)
