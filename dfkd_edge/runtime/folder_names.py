"""Which class the name of a folder means: read in one way for all, or asked for."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dfkd_edge.runtime.faults import UsageFault

NEAR = 0.75  # Likeness of names that may mean the same: `dogs` and `dog`, but not `cat` and `car`
TOKENS = re.compile(r"[\s._,;:#()\[\]{}+-]+")
PUNCTUATION = re.compile(r"[.,:;'\"`\u2019/\\()\[\]!?*|<>]")
NUMBER = re.compile(r"(?:c|cls|class|label|id|k)?(\d{1,6})")  # `c0` of a drivers' data set
SIGNED = re.compile(r"\s*[-+]\d+\s*")  # `-1` of a table of labels is not 1
SPELT = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
BESIDE_NAMES = frozenset(
    {
        *("class", "cls", "label", "category", "id", "folder", "dir", "type", "group", "set"),
        *("img", "imgs", "image", "images", "photo", "photos", "pic", "pics", "picture"),
        *("pictures", "data", "dataset", "of", "samples", "train", "test", "val", "valid"),
    }
)
"""Words that stand before or after the name of a class, as `cat_images` and `class_cat` do."""
RENAME = "name each folder like its class"


def class_key(name: str) -> str:
    """Return the form under which a folder and a class name are the same."""
    plain = name if SIGNED.fullmatch(name) else name.replace("_", " ").replace("-", " ")
    return " ".join(unicodedata.normalize("NFKC", plain).casefold().split())  # macOS may decompose


def bare_key(name: str) -> str:
    """Drop numbers, WordNet ids and words such as `class` before and after a name."""
    return bare_keys(name)[-1]


def bare_keys(name: str) -> list[str]:
    """Drop one more at a time: `01 boeing 737` may be `boeing 737` before it is `boeing`."""
    if SIGNED.fullmatch(name):
        return [class_key(name)]
    tokens = [token for token in TOKENS.split(class_key(name)) if token]
    inside = [index for index, token in enumerate(tokens) if not _is_beside(token)]
    most = inside[0] if inside else len(tokens)
    before, behind = range(most + 1), range(len(tokens) - inside[-1] if inside else 1)
    cuts = sorted(((i, j) for i in before for j in behind), key=sum)
    keys = [" ".join(tokens[i : len(tokens) - j]) for i, j in cuts]
    is_dated = sum(token.isdigit() for token in tokens) > 1  # nor is `0.5` 0 or 5
    return [key for key in keys if not (is_dated and key.isdigit())]


def _is_beside(token: str) -> bool:
    return token in BESIDE_NAMES or bool(re.fullmatch(r"\d+|n\d{8}", token))


def nearest(name: str, classes: Sequence[str]) -> str:
    """Return the class that a folder's name may mean, as `dogs` means `dog`; empty for none.

    A class that is written like the folder is no news.
    """
    by_key = {class_key(known): known for known in classes if known != name}
    for key in (class_key(name), bare_key(name)):
        found = difflib.get_close_matches(key, by_key, n=1, cutoff=NEAR)
        if found:
            return by_key[found[0]]
    return ""


def folded(name: str) -> str:
    """Return the form under which two folders are called the same: `Dog` and `DOG`."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _compact(name: str) -> str:
    return class_key(name).replace(" ", "")  # as in `AlarmClock`


def _spoken(name: str) -> str:
    """Leave out what a file system or a keyboard lacks: `bird_s_nest`, `and_or`, `cafe`."""
    plain = unicodedata.normalize("NFKD", PUNCTUATION.sub(" ", name))
    return class_key("".join(c for c in plain if not "\u0300" <= c <= "\u036f"))


def _by_value(name: str) -> str:
    return re.sub(r"\b0+(?=\d)", "", class_key(name))  # `01` is the class `1`


@dataclass(frozen=True)
class NamedFolders:
    """Finds classes by the names of folders, the strictest likeness first."""

    classes: Sequence[str]
    ids: Mapping[str, int]  # What a mapping file says of WordNet ids
    is_bare: bool = False  # Whether numbers and words beside the names are dropped

    @property
    def how(self) -> str:
        """What the folders are."""
        if self.is_bare:
            return "names beside numbers or words such as 'class'"
        return "WordNet ids" if self.ids else "names"

    def label(self, name: str) -> int | None:
        """Return the index of the class that a folder means, or None.

        Raises:
            UsageFault: it may mean several.
        """
        if name in self.ids:
            return self.ids[name]
        for asked in bare_keys(name) if self.is_bare else (name,):
            for form, known in self._known:
                found = known.get(form(asked), ())
                if len(found) > 1:
                    both = " or ".join(f"'{self.classes[label]}'" for label in found[:2])
                    raise UsageFault(f"folder '{name}' may be class {both}", hint=RENAME)
                if found:
                    return found[0]
        parts = map(class_key, name.split(","))
        meant = {label for part in parts for label in self._synonyms.get(part, ())}
        return meant.pop() if len(meant) == 1 else None

    @cached_property
    def _known(self) -> list[tuple[Callable[[str], str], dict[str, list[int]]]]:
        """How names may be written, and the classes of each."""
        forms = (folded, _by_value, _compact, _spoken)
        return [(form, _by_form(self.classes, form)) for form in forms]

    @cached_property
    def _synonyms(self) -> dict[str, list[int]]:
        """What stands between commas, as in ImageNet's names."""
        found: dict[str, list[int]] = {}
        for label, known in enumerate(self.classes):
            for part in known.split(","):
                found.setdefault(class_key(part), []).append(label)
        return found


def _by_form(classes: Sequence[str], form: Callable[[str], str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for label, name in enumerate(classes):
        found.setdefault(form(name), []).append(label)
    return found


@dataclass(frozen=True)
class NumberedFolders:
    """Takes folders for numbers in the order of the list; `base` is settled when all are known."""

    num_classes: int
    how = "numbers"

    def label(self, name: str) -> int | None:
        """Return the number of a folder, or None where it is none that the list may have."""
        tokens = [token for token in TOKENS.split(class_key(name)) if token]
        if SIGNED.fullmatch(name):
            return None
        while len(tokens) > 1 and tokens[0] in BESIDE_NAMES:
            tokens.pop(0)
        if sum(any(c.isdigit() for c in token) for token in tokens) != 1:
            return None  # `1.0` is not ten, nor `2023-01` a class
        match = NUMBER.fullmatch("".join(tokens))
        return int(match.group(1)) if match and int(match.group(1)) <= self.num_classes else None


def first_number(numbers: Sequence[int], classes: Sequence[str], root: Path) -> int:
    """Decide whether folders are numbered from 0 or from 1.

    Raises:
        UsageFault: both may be, or neither is.
    """
    num, low, high = len(classes), min(numbers), max(numbers)
    first = 1 if low > 0 and high == num else 0 if low == 0 and high < num else None
    if first is not None:
        _refuse_other_numbers(numbers, first, classes, root)
        return first
    if low == 0:
        what = f"folders are numbered 0 to {high}, which are more than the {num} classes"
        raise UsageFault(what, str(root), RENAME)
    readings = f"from 0 folder {low} is '{classes[low]}', from 1 it is '{classes[low - 1]}'"
    raise UsageFault(f"folders are numbered from 0 or from 1: {readings}", str(root), RENAME)


def _refuse_other_numbers(
    numbers: Sequence[int], first: int, classes: Sequence[str], root: Path
) -> None:
    """Ask where names hold numbers themselves, and in another order: `grade 1`, ..., `grade 0`."""
    values = [_own_number(name) for name in classes]
    if len(set(values)) < len(values) or not set(numbers) <= set(values):
        return
    for number in numbers:
        listed, called = classes[number - first], classes[values.index(number)]
        if listed != called:
            what = f"folder {number} may be class '{called}', or by its place '{listed}'"
            raise UsageFault(what, str(root), RENAME)


def _own_number(name: str) -> int | None:
    key = class_key(name)
    if key in SPELT:
        return SPELT.index(key)
    found = re.findall(r"\d{1,6}", key)
    return int(found[0]) if len(found) == 1 else None
