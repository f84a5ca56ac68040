"""How a folder of labelled pictures is read: which folder is a domain, a class, or only a wrapper.

Known are the layouts of PACS, VLCS, OfficeHome, DomainNet, VisDA, Office-Caltech and ImageNet. The
rule is one for all: a domain is the folder above the class folders; `train`, `val` or `images`
between the two is looked through, and so is a wrapper such as PACS's `kfold` above the domains.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import UsageFault

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SPLITS = ("full", "test", "val", "validation", "crossval", "train", "images")
"""Folders that part or hold the pictures of one domain."""
MAPPING_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
"""Lines of a WordNet id and its names: `n02084071 dog, domestic dog`."""
BENCHMARKS = {
    "PACS": ("art painting", "cartoon", "photo", "sketch"),
    "VLCS": ("caltech", "labelme", "pascal", "sun"),
    "OfficeHome": ("art", "clipart", "product", "real world"),
    "DomainNet": ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
    "Office-Caltech": ("amazon", "caltech", "dslr", "webcam"),
    "VisDA": ("train", "validation"),
    "ImageNet": ("val",),
}
"""Folded names of the domains."""
NEAR = 0.75
"""Likeness from which a name may be meant: `dogs` is near to `dog`, `cat` is not near to `car`."""
MAX_NEAR = 3
EXPECTED = "expected DIR/<domain>/<class>/*.jpg or DIR/<class>/*.jpg with the classes of the list"


@dataclass(frozen=True)
class ClassFolder:
    """One folder of pictures, and what they show."""

    path: Path
    domain: str
    label: int | None
    """Index into the class list; None when the folder names no class of it."""
    near: str = ""
    """Class without a folder beside this one that its name may mean; empty for none."""


@dataclass(frozen=True)
class Layout:
    """A folder of labelled pictures, as it was read."""

    folders: tuple[ClassFolder, ...]
    description: str
    """One line for the user."""


def class_key(name: str) -> str:
    """Return the form under which a folder and a class name are the same."""
    plain = name.replace("_", " ").replace("-", " ")
    return " ".join(unicodedata.normalize("NFKC", plain).casefold().split())


class NearNames:
    """Finds the class that a folder's name may mean, as `dogs` means `dog`.

    A thousand folders against as many classes are a million pairs. The letters that two names share
    bound their likeness from above, and are counted as bits; few pairs are compared in full.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        """Give a bit to every letter of the names, another where it comes again in one."""
        self._by_key = {class_key(known): known for known in classes}
        self._bits: dict[tuple[str, int], int] = {}
        for letter in (pair for key in self._by_key for pair in _numbered(key)):
            self._bits.setdefault(letter, 1 << len(self._bits))
        self._masks = {key: self._mask(key) for key in self._by_key}

    def nearest(self, name: str) -> str:
        """Return the nearest class; empty where none is near."""
        wanted = class_key(name)
        mask, length = self._mask(wanted), len(wanted)
        possible = [
            key
            for key, letters in self._masks.items()
            if 2 * bin(letters & mask).count("1") >= NEAR * (len(key) + length)
        ]
        found = difflib.get_close_matches(wanted, possible, n=1, cutoff=NEAR)
        return self._by_key[found[0]] if found else ""

    def _mask(self, key: str) -> int:
        return sum(self._bits.get(letter, 0) for letter in _numbered(key))


def _numbered(key: str) -> list[tuple[str, int]]:
    """Number each letter by how often it came before."""
    return [(letter, key[:at].count(letter)) for at, letter in enumerate(key)]


def expected_layout(root: Path, classes: tuple[str, ...]) -> str:
    """Say how a folder that names no class should look, and which names in it are near to one."""
    children = folders_in(root)
    folders = [*children, *(below for child in children for below in folders_in(child))]
    near_names = NearNames(classes)
    near = ((name, near_names.nearest(name)) for name in dict.fromkeys(f.name for f in folders))
    named = (f"folder {name}: did you mean {known}?" for name, known in near if known)
    return " ".join([*islice(named, MAX_NEAR), EXPECTED])


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures of one folder, sorted."""
    return [file for file in _content(folder) if file.suffix.lower() in PICTURE_SUFFIXES]


def folders_in(folder: Path) -> list[Path]:
    """List the folders of one folder, sorted."""
    return [child for child in _content(folder) if child.is_dir()]


def _content(folder: Path) -> list[Path]:
    """List a folder, sorted.

    Raises:
        UsageFault: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UsageFault(
            f"folder cannot be read: {error.strerror}", str(folder), "make it readable"
        ) from error


class ClassFinder:
    """Finds the class that a folder's name means."""

    def __init__(self, classes: tuple[str, ...], root: Path) -> None:
        """Index the names, and the WordNet ids where a mapping file lies at the root."""
        self._by_key = {class_key(name): number for number, name in enumerate(classes)}
        for key, number in list(self._by_key.items()):
            self._by_key.setdefault(key.replace(" ", ""), number)
        self.num_ids = 0
        for wnid, names in _wordnet_names(root).items():
            labels = [self._by_key[key] for key in map(class_key, names) if key in self._by_key]
            if labels:
                self._by_key.setdefault(wnid, labels[0])
                self.num_ids += 1

    def label(self, folder: Path) -> int | None:
        """Return the index of the class that the folder names, or None."""
        key = class_key(folder.name)
        return self._by_key.get(key, self._by_key.get(key.replace(" ", "")))

    def holds_classes(self, folder: Path) -> bool:
        """Whether a folder directly below names a class."""
        return any(self.label(child) is not None for child in folders_in(folder))


class NumberFinder(ClassFinder):
    """Takes folders named 0, 1, 2, ... for the classes in the order of the list (VLCS)."""

    def __init__(self, classes: tuple[str, ...], root: Path) -> None:
        """Index the numbers."""
        super().__init__((), root)
        self._by_key = {str(number): number for number in range(len(classes))}


def _wordnet_names(root: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for file in (root / name for name in MAPPING_FILES):
        if file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                wnid, _, rest = line.replace("\t", " ").partition(" ")
                names[wnid] = rest.split(",")
    index = root / "imagenet_class_index.json"
    if index.is_file():
        try:
            pairs = json.loads(index.read_text(encoding="utf-8")).values()
            names.update({str(wnid): [str(name)] for wnid, name in pairs})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageFault(
                "is no list of WordNet ids and names", str(index), "mend or remove it"
            ) from error
    return names


def _class_parents(domain: Path, finder: ClassFinder) -> list[Path]:
    """List the folders that hold the class folders of a domain: itself, or its splits."""
    if finder.holds_classes(domain):
        return [domain]
    splits = [domain / name for name in SPLITS if (domain / name).is_dir()]
    splits = [split for split in splits if finder.holds_classes(split)]
    return splits[:1] if splits and splits[0].name == "full" else splits


def _domains(root: Path, finder: ClassFinder) -> dict[str, list[Path]]:
    """Map the name of each domain to the folders that hold its class folders."""
    if finder.holds_classes(root):
        return {root.resolve().name: [root]}
    children = folders_in(root)
    found = {child.name: _class_parents(child, finder) for child in children}
    found = {name: parents for name, parents in found.items() if parents}
    if set(found) == {"train", "val"}:  # ImageNet: the pictures of `train` are for training
        return {"val": found["val"]}
    if found:
        return found
    for child in children:  # a wrapper such as PACS's kfold
        below = {c.name: _class_parents(c, finder) for c in folders_in(child)}
        below = {name: parents for name, parents in below.items() if parents}
        if below:
            return below
    return {}


def _benchmark(domains: list[str]) -> str:
    """Name the benchmark whose domains these are; empty for none."""
    keys = {class_key(name).rstrip("0123456789") for name in domains}
    keys = {{"realworld": "real world", "voc": "pascal"}.get(key, key) for key in keys}
    for name, known in BENCHMARKS.items():
        if keys <= set(known) and len(keys) >= min(2, len(known)):
            return name
    return ""


def _class_folders(
    parent: Path, domain: str, finder: ClassFinder, classes: tuple[str, ...]
) -> list[ClassFolder]:
    labels = {folder: finder.label(folder) for folder in folders_in(parent)}
    taken = set(labels.values())
    near_names = NearNames(name for number, name in enumerate(classes) if number not in taken)
    return [
        ClassFolder(folder, domain, label)
        if label is not None
        else ClassFolder(folder, domain, None, near_names.nearest(folder.name))
        for folder, label in labels.items()
    ]


def read_layout(root: Path, classes: tuple[str, ...]) -> Layout:
    """Find the class folders below a folder; none where nothing names a class of the list."""
    finder = ClassFinder(classes, root)
    domains = _domains(root, finder)
    how = "WordNet ids" if finder.num_ids else "names"
    if not domains:
        finder, how = NumberFinder(classes, root), "numbers, in the order of the list"
        domains = _domains(root, finder)
    folders = tuple(
        folder
        for domain, parents in domains.items()
        for parent in parents
        for folder in _class_folders(parent, domain, finder, classes)
    )
    labels = {folder.label for folder in folders} - {None}
    name = _benchmark(list(domains))
    through = sorted(
        {p.name for d, ps in domains.items() for p in ps if p.name in SPLITS} - {*domains}
    )
    shown = ", ".join(list(domains)[:6]) + (", ..." if len(domains) > 6 else "")
    description = (
        f"{counted(len(domains), 'domain')} ({shown})"
        + (f", as {name} lays them out" if name else "")
        + (f", through {', '.join(through)}" if through else "")
        + f"; {len(labels)} of {len(classes)} classes, folders are {how}"
    )
    return Layout(folders, description)
