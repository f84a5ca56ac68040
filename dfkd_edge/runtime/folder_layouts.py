"""How a folder of labelled pictures is read: which folder is a domain, a class, or only a wrapper.

A domain is the folder above the class folders. `train`, `val` or `images` between the two is looked
through, and so is a wrapper above the domains, such as `kfold` of PACS. This reads PACS, VLCS,
OfficeHome, DomainNet, VisDA, Office-Caltech and ImageNet as they are unpacked.
"""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import UsageFault

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
SPLITS = ("full", "test", "val", "validation", "crossval", "train", "images")  # Of one domain
# lines of a WordNet id and its names: `n02084071 dog, domestic dog`
MAPPING_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
NEAR = 0.75  # Likeness of names that may mean the same: `dogs` and `dog`, but not `cat` and `car`
MAX_COMPARED = 100  # Folders: to compare one with 1,000 class names takes 4 ms (ours)
MAX_NEAR = 3  # Suggestions in one message
EXPECTED = "expected DIR/<domain>/<class>/*.jpg or DIR/<class>/*.jpg with the classes of the list"


@dataclass(frozen=True)
class ClassFolder:
    """A folder of pictures where class folders are expected."""

    path: Path
    domain: str
    label: int | None  # Index into the class list; None when the folder names no class of it
    near: str
    """Class that the name of an unlabelled folder may mean, if that has no folder beside it."""
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Domain:
    """The labelled pictures of one domain."""

    name: str
    files: tuple[Path, ...]
    labels: tuple[int, ...]  # Index into the class list, one a file


@dataclass(frozen=True)
class LabelledFolder:
    """A folder whose labelled pictures have been found; none of them has been opened."""

    root: Path
    folders: tuple[ClassFolder, ...]
    description: str  # How the folder was read, in one line

    @property
    def domains(self) -> list[Domain]:
        """The domains that hold a labelled picture."""
        found: dict[str, list[tuple[Path, int]]] = {}
        for folder in self.folders:
            if folder.label is not None and folder.pictures:
                pairs = found.setdefault(folder.domain, [])
                pairs += [(file, folder.label) for file in folder.pictures]
        return [
            Domain(name, tuple(file for file, _ in pairs), tuple(label for _, label in pairs))
            for name, pairs in found.items()
        ]

    @property
    def num_pictures(self) -> int:
        """How many labelled pictures there are."""
        return sum(len(domain.files) for domain in self.domains)

    @property
    def skipped(self) -> list[str]:
        """Folders that add no picture, one line each."""
        lines = []
        for folder in self.folders:
            if folder.label is None:
                num = counted(len(folder.pictures), "picture")
                near = f"; did you mean {folder.near}?" if folder.near else ""
                lines.append(f"{folder.path}: names no class, {num} passed over{near}")
            elif not folder.pictures:
                lines.append(f"{folder.path}: holds no picture")
        return lines


def class_key(name: str) -> str:
    """Return the form under which a folder and a class name are the same."""
    plain = name.replace("_", " ").replace("-", " ")
    return " ".join(unicodedata.normalize("NFKC", plain).casefold().split())  # macOS may decompose


def nearest(name: str, classes: Sequence[str]) -> str:
    """Return the class that a folder's name may mean, as `dogs` means `dog`; empty for none."""
    by_key = {class_key(known): known for known in classes}
    found = difflib.get_close_matches(class_key(name), by_key, n=1, cutoff=NEAR)
    return by_key[found[0]] if found else ""


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures of one folder, sorted."""
    return [file for file in _content(folder) if file.suffix.lower() in PICTURE_SUFFIXES]


def folders_in(folder: Path) -> list[Path]:
    """List the folders of one folder, sorted."""
    return [child for child in _content(folder) if child.is_dir()]


def _content(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        what = f"folder cannot be read: {error.strerror}"
        raise UsageFault(what, str(folder), "make it readable") from error


@dataclass(frozen=True)
class ClassFinder:
    """Finds the class that a folder's name means."""

    labels: Mapping[str, int]  # `class_key` of what a folder may be named -> index of the class

    def label(self, folder: Path) -> int | None:
        """Return the index of the class that the folder names, or None."""
        key = class_key(folder.name)
        return self.labels.get(key, self.labels.get(key.replace(" ", "")))

    def parents(self, domain: Path) -> list[Path]:
        """List the folders that hold the class folders of a domain: itself, or its splits."""
        if self.holds_classes(domain):
            return [domain]
        splits = [domain / name for name in SPLITS if (domain / name).is_dir()]
        splits = [split for split in splits if self.holds_classes(split)]
        # VLCS: `full` holds the pictures of the other splits once more
        return splits[:1] if splits and splits[0].name == "full" else splits

    def holds_classes(self, folder: Path) -> bool:
        """Whether a folder directly below names a class."""
        return any(self.label(child) is not None for child in folders_in(folder))

    def domains(self, root: Path) -> dict[str, list[Path]]:
        """Map the name of each domain to the folders that hold its class folders."""
        if self.holds_classes(root):
            return {root.resolve().name: [root]}
        for folder in (root, *folders_in(root)):  # itself, or a wrapper such as PACS's kfold
            found = {child.name: self.parents(child) for child in folders_in(folder)}
            found = {name: parents for name, parents in found.items() if parents}
            if set(found) == {"train", "val"}:  # ImageNet: the pictures of `train` are for training
                return {"val": found["val"]}
            if found:
                return found
        return {}


def _finders(classes: Sequence[str], root: Path) -> dict[str, ClassFinder]:
    """Map how folders may be named to what finds their class, the likelier first."""
    labels = {class_key(name): number for number, name in enumerate(classes)}
    for key, number in list(labels.items()):
        labels.setdefault(key.replace(" ", ""), number)  # as in `AlarmClock`
    ids = {}
    for wnid, names in _wordnet_names(root).items():
        known = [labels[key] for key in map(class_key, names) if key in labels]
        if known:
            ids[wnid] = known[0]
    numbers = {str(number): number for number in range(len(classes))}  # VLCS has 0, 1, 2, ...
    return {
        "WordNet ids" if ids else "names": ClassFinder({**ids, **labels}),
        "numbers, in the order of the list": ClassFinder(numbers),
    }


def _wordnet_names(root: Path) -> dict[str, list[str]]:
    """Read the names of each WordNet id from the mapping file that ImageNet comes with."""
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
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            what = "is no list of WordNet ids and names"
            raise UsageFault(what, str(index), "repair or remove it") from error
    return names


def _class_folders(
    parent: Path, domain: str, finder: ClassFinder, classes: Sequence[str]
) -> list[ClassFolder]:
    labels = {folder: finder.label(folder) for folder in folders_in(parent)}
    free = [name for number, name in enumerate(classes) if number not in labels.values()]
    strangers = [folder for folder, label in labels.items() if label is None]
    near = {folder: nearest(folder.name, free) for folder in strangers[:MAX_COMPARED]}
    return [
        ClassFolder(folder, domain, label, near.get(folder, ""), tuple(pictures_in(folder)))
        for folder, label in labels.items()
    ]


def read_layout(root: Path, classes: Sequence[str]) -> LabelledFolder:
    """Walk a folder of labelled pictures; no class folder is found where none names a class.

    Raises:
        UsageFault: a folder or a mapping file cannot be read.
    """
    for how, finder in _finders(classes, root).items():
        named_by, domains = how, finder.domains(root)
        if domains:
            break
    folders = tuple(
        folder
        for domain, parents in domains.items()
        for parent in parents
        for folder in _class_folders(parent, domain, finder, classes)
    )
    labels = {folder.label for folder in folders} - {None}
    above = {parent.name for parents in domains.values() for parent in parents}
    through = sorted(above & set(SPLITS) - set(domains))
    shown = ", ".join(list(domains)[:6]) + (", ..." if len(domains) > 6 else "")
    description = (
        f"{counted(len(domains), 'domain')} ({shown})"
        + (f", through {', '.join(through)}" if through else "")
        + f"; {len(labels)} of {len(classes)} classes, folders are {named_by}"
    )
    return LabelledFolder(root, folders, description)


def find_pictures(root: Path, classes: Sequence[str]) -> LabelledFolder:
    """Find the labelled pictures of `--data`.

    Raises:
        UsageFault: the folder is missing or holds no picture of any class.
    """
    if not root.is_dir():
        raise UsageFault("no such folder", f"--data {root}")
    found = read_layout(root, classes)
    if not found.domains:
        raise UsageFault("no picture of any class", f"--data {root}", _expected(root, classes))
    return found


def _expected(root: Path, classes: Sequence[str]) -> str:
    """Say how a folder that names no class should look, and which names in it are near to one."""
    children = folders_in(root)
    folders = [*children, *(below for child in children for below in folders_in(child))]
    names = dict.fromkeys(folder.name for folder in folders)
    near = ((name, nearest(name, classes)) for name in islice(names, MAX_COMPARED))
    lines = (f"folder {name}: did you mean {known}?" for name, known in near if known)
    return " ".join([*islice(lines, MAX_NEAR), EXPECTED])
