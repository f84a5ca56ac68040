"""Class lists of other tools: read as what they are, or refused by the name of their format.

Teachable Machine, Edge Impulse, jetson-inference, YOLO, COCO, LVIS, OpenImages, TensorFlow, Hugging
Face, CVAT and Label Studio write names with numbers, ids, headers, quotes or keys. Each reader
knows one form by all of its lines; what is of none of them is a plain list of names.
"""

import html
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from dfkd_edge.class_lists.listed import LONG, ForeignError, Listed
from dfkd_edge.class_lists.tables import TITLES, by_number, read_numbered, read_table
from dfkd_edge.errors import ClassNamesError

ONE_A_LINE = "write one class name a line into a text file"
KEYS = ("id2label", "categories", "names", "labels", "classes", "class_names", "label2id")
"""Keys of JSON documents that hold the names: Hugging Face, COCO, YOLO, Teachable Machine."""
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
DOCUMENTS = {
    "%PDF": "a PDF",
    "{\\rtf": "RTF",
    "PAR1": "Parquet",
    "(lp": "a pickle",
    "(dp": "a pickle",
}
MARKUP = re.compile(r"<(\?xml|View\b|annotations?\b|html\b|!DOCTYPE|labels?\b|meta\b)", re.I)


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
    if lines and re.fullmatch(r"sep=.", lines[0], re.I):  # Excel reads it, and shows it to nobody
        lines = lines[1:]
    try:
        for read in READERS if lines else ():
            found = read(lines, unified)
            if found:
                return _as_ours(found), found.how
    except ForeignError as error:
        what = f"class list is {error}, which is not read"
        raise ClassNamesError(what, where=where, hint=ONE_A_LINE) from error
    return text, ""


def _as_ours(found: Listed) -> str:
    broken = [name for name in found.names if not name.strip() or re.search(r"[\r\n\t]", name)]
    if broken or any(name.strip().startswith("#") for name in found.names):
        raise ForeignError(f"{found.how} with names that are empty, or hold a tab or a line break")
    return "".join(f"{name.strip()}\n" for name in found.names)


def _json(lines: Sequence[str], text: str) -> Listed | None:
    if lines[0][0] not in "{[":
        return None
    try:
        return _of_json(json.loads(text, object_pairs_hook=_of_one_key_each))
    except (ValueError, RecursionError) as error:
        if lines[0][0] == "{" or re.match(r"\[\s*(['\"{\[]|$)", lines[0]):
            raise ForeignError("JSON or Python that cannot be read as JSON") from error
        return None  # `[red]` is a name


def _of_one_key_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ForeignError("JSON with one key twice")
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
                numbers = [int(number) for number, _ in named]
                _require_once(numbers)
                is_whole = numbers[-1] - numbers[0] + 1 == len(numbers)
                how += "" if is_whole else ", numbered anew without the gaps"
                return Listed([name for _, name in named], f"a map of numbers to names in {how}")
        elif all(type(number) is int for number in value.values()):
            _require_once(list(value.values()))
            names = sorted(value, key=value.__getitem__)
            return Listed(names, f"a map of names to numbers in {how}")
    raise ForeignError("JSON without a list or map of class names")


def _require_once(numbers: Sequence[int]) -> None:
    if len(set(numbers)) < len(numbers):
        raise ForeignError("JSON with one number for two names")


def _is_synset(value: object) -> bool:
    """Whether a value is a pair of id and words."""
    if not isinstance(value, list) or [type(part) for part in value] != [str, str]:
        return False
    return bool(WORDNET_ID.fullmatch(value[0]))


def _has_name(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _in_order(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    has_ids = all(type(item.get("id")) is int for item in items)
    if has_ids:
        _require_once([item["id"] for item in items])
    return sorted(items, key=lambda item: item["id"]) if has_ids else items


def _markup(lines: Sequence[str], text: str) -> Listed | None:
    if not MARKUP.match(lines[0]):
        return None
    if "<!ENTITY" in text:
        raise ForeignError("XML that defines words of its own")
    value = r"(?:\"([^\"]*)\"|'([^']*)')"
    found = re.findall(rf"<(?:Choice|Label)\b[^<>]*?\bvalue\s*=\s*{value}", text)
    if found:
        values = [html.unescape("".join(quoted)) for quoted in found]
        return Listed(values, "a labelling interface of Label Studio")
    names = re.findall(r"<label>\s*<name>([^<]*)</name>", text)
    if names:
        return Listed(list(map(html.unescape, names)), "labels of CVAT in XML")
    raise ForeignError("XML or HTML")


def _yaml(lines: Sequence[str], text: str) -> Listed | None:
    """Read `names:` of YOLO and the like: a block or flow list, or a map of numbers."""
    if all(map(BULLET.match, lines)):
        items = [re.sub(r"^\[[ xX]\] ", "", BULLET.sub("", line, count=1)) for line in lines]
        return Listed([_plain(item) for item in items], "a list in YAML or Markdown")
    pattern = rf"^({'|'.join(KEYS)}) *: *([\[{{]?)(.*)$"
    found, *more = [*re.finditer(pattern, text.split("\n---")[0], re.MULTILINE), None]
    if any(again and found and again[1] == found[1] for again in more):
        raise ForeignError(f"YAML with the key '{found[1]}' twice" if found else "YAML")
    if not found or (found[3] and not found[2] and not found[3].startswith("#")):
        is_nested = re.search(r"^[\w-]+ *:[ \t]*(#.*)?\n[ \t]+\S", text, re.MULTILINE)
        is_marked = found and found[3][0] in "&!*|>"
        if is_nested or is_marked or re.match(r"(---$|(nc|path|train|val)\s*:)", lines[0]):
            raise ForeignError("YAML without names that begin a line")
        return None
    how = f"YAML, key '{found[1]}'"
    items = _flow(text[found.start(3) :], found[2]) if found[2] else _block(text[found.end() + 1 :])
    named = [re.fullmatch(r"(?:- +)?name *: *(.+)", item) for item in items]
    if any(named):
        found_ids = [re.fullmatch(r"(?:- +)?id *: *(\d{1,9})", item) for item in items]
        names = [_plain(match[1]) for match in named if match]
        ids = [int(match[1]) for match in found_ids if match]
        in_order = [name for _, name in sorted(zip(ids, names, strict=False))]
        return Listed(in_order if len(ids) == len(names) else names, how)
    numbered = [re.fullmatch(r"['\"]?(\d+)['\"]? *: *(.+)", item) for item in items]
    if items and all(numbered):
        pairs = sorted((int(match[1]), _plain(match[2])) for match in numbered if match)
        first = pairs[0][0]
        if first > 1 or [number for number, _ in pairs] != list(range(first, first + len(pairs))):
            raise ForeignError(f"{how}, with numbers that do not run from 0 or 1 without a gap")
        return _of_all(Listed([name for _, name in pairs], how), text)
    names = [_plain(item.removeprefix("- ")) for item in items]
    if not names or (not found[2] and not all(item.startswith("- ") for item in items)):
        raise ForeignError(f"{how}, but no list or map of numbers to names")
    return _of_all(Listed(names, how), text)


def _of_all(found: Listed, text: str) -> Listed:
    """Check a list against the number of names that YOLO states beside it."""
    stated = re.search(r"^nc *: *(\d{1,9})\b", text, re.MULTILINE)
    if stated and int(stated[1]) != len(found.names):
        raise ForeignError(f"{found.how}, with {len(found.names)} of {stated[1]} names (nc)")
    return found


def _flow(text: str, opening: str) -> list[str]:
    """Part `a, 'b, c']` at the commas that stand in no quotes."""
    inside, closing, _ = text.partition("]" if opening == "[" else "}")
    if not closing:
        raise ForeignError(f"YAML whose '{opening}' is not closed")
    if inside.count('"') % 2 or re.search(r"(^|,)\s*'[^']*$", inside):
        raise ForeignError("YAML with brackets in quotes")
    items = re.findall(r"(?:[^,'\"]|'[^']*'|\"[^\"]*\")+", inside)
    if any(item.strip()[:1] in ("[", "{") for item in items):
        raise ForeignError("YAML with lists in a list")
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
    if not quoted:
        return re.sub(r"\s+#.*$", "", text)
    if quoted[1] == "'":
        return quoted[2].replace("''", "'")
    return re.sub(r"\\([\"\\/])", r"\1", quoted[2])


def _of_label_map(text: str) -> Listed:
    value, num = r"(?:\"([^\"\n]*)\"|'([^'\n]*)')", len(re.findall(r"\bitem\s*\{", text))
    for key in ("display_name", "name"):
        found = ["".join(q) for q in re.findall(rf"\b{key}\s*:\s*{value}", text)]
        if len(found) == num:
            ids = re.findall(r"\bid\s*:\s*(\d{1,9})", text)
            names = by_number(ids, found) if len(ids) == num else found
            return Listed(names, "a label map of TensorFlow")
    raise ForeignError("a label map of TensorFlow, some of whose items have no name")


def _code(lines: Sequence[str], text: str) -> Listed | None:
    """Read TensorFlow's label map and Edge Impulse's header; refuse darknet's .data."""
    if re.match(r"item\s*\{", lines[0]):
        return _of_label_map(text)
    found = re.search(r"inferencing_categories\w{0,20}\[[^\]]{0,20}\]\s{0,9}=\s{0,9}\{", text)
    if found:
        names = re.findall(r"\"([^\"]*)\"", text[found.end() :].partition("}")[0])
        return Listed(names, "model_metadata.h of Edge Impulse")
    if all(re.match(r"\w+\s*=", line) for line in lines):
        raise ForeignError("settings such as darknet's .data (name the file behind names=)")
    if re.match(r"\[[\w. -]+\]$", lines[0]) and any("=" in line for line in lines):
        raise ForeignError("settings in TOML or INI")
    known = next((name for mark, name in DOCUMENTS.items() if text.startswith(mark)), "")
    if known:
        raise ForeignError(known)
    if re.match(r"(#include|//|/\*|import |from \w+ import )", lines[0]):
        raise ForeignError("source code")
    return None


def _synsets(lines: Sequence[str], text: str) -> Listed | None:
    found = [SYNSET.fullmatch(line[:LONG]) for line in lines]
    words = [match[1].lstrip(" \t,:;_|-") for match in found if match]
    if len(words) < len(lines):
        return None
    if not all(words):
        raise ForeignError("a list of WordNet ids without words, such as ImageNet's folders")
    return Listed(list(map(_first_word, words)), "WordNet ids with words, the first of each")


def _first_word(words: str) -> str:
    """Take `tench` of `tench, Tinca tinca`; ImageNet writes blanks as underscores in places."""
    return words.strip("\"'").partition(",")[0].replace("_", " ").strip()


def _coloured(lines: Sequence[str], text: str) -> Listed | None:
    """Read `car:255,0,0::` of CVAT's segmentation masks."""
    found = [re.fullmatch(r"([^:]+):\d{1,3},\d{1,3},\d{1,3}:[^:]*:[^:]*", ln) for ln in lines]
    names = [match[1] for match in found if match]
    return Listed(names, "a label map of CVAT") if len(names) == len(lines) else None


def _keyed(lines: Sequence[str], text: str) -> Listed | None:
    """Read `label: cat` on every line."""
    found = [re.fullmatch(r"(\w+)\s*:\s+(\S.*)", line[:LONG]) for line in lines]
    pairs = [(match[1].lower(), _plain(match[2])) for match in found if match]
    if len(pairs) < len(lines) or len({key for key, _ in pairs}) > 1 or pairs[0][0] not in TITLES:
        return None
    return Listed([name for _, name in pairs], f"lines with the key '{pairs[0][0]}'")


def _quoted(lines: Sequence[str], text: str) -> Listed | None:
    found = [re.fullmatch(r"([\"'])(.+)\1[,;]?", line) for line in lines]
    names = [match[2] for match in found if match]
    return Listed(names, "names in quotes") if len(names) == len(lines) else None


def _header(lines: Sequence[str], text: str) -> Listed | None:
    if len(lines) > 2 and lines[0].lower().replace(" ", "_") in TITLES:
        raise ForeignError(f"a column under the header '{lines[0]}' (remove that line)")
    return None


Reader = Callable[[Sequence[str], str], Listed | None]
READERS: tuple[Reader, ...] = (
    *(
        _json,
        _markup,
        _yaml,
        _code,
        _synsets,
        _coloured,
        read_table,
        read_numbered,
        _quoted,
        _keyed,
        _header,
    ),
)
