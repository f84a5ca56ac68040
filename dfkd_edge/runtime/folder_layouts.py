"""How a folder of labelled pictures is read: which folder is a domain, a class, or only a wrapper.

A domain is the folder above the class folders. `train`, `val` or `images` between the two is looked
through, and so is a wrapper above the domains, such as `kfold` of PACS. This reads PACS, VLCS,
OfficeHome, DomainNet, VisDA, Office-Caltech and ImageNet as they are unpacked. What could be read
in two ways is refused, and every picture that is left out is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.folder_names import (
    NUMBER,
    RENAME,
    NamedFolders,
    NumberedFolders,
    class_key,
    first_number,
    folded,
    nearest,
)
from dfkd_edge.runtime.picture_walk import Folder, walk
from dfkd_edge.runtime.plain_text import one_line
from dfkd_edge.runtime.wordnet_ids import MAPPING_FILES, WORDNET_ID, wordnet_names

SPLITS = (
    *("full", "test", "val", "validation", "crossval", "train", "images"),
    *("valid", "eval", "dev", "testing", "training"),
)
"""Folders of one domain, in small letters."""
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
    pictures: tuple[Path, ...]  # In it and below


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
    left_out: tuple[str, ...] = ()  # Pictures that lie elsewhere, one line each place

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
        return [one_line(line) for line in (*lines, *self.left_out)]


@dataclass(frozen=True)
class Reader:
    """Finds domains and classes in a folder by what its folders are called."""

    names: NamedFolders | NumberedFolders
    root: Path

    def labels(self, parent: Folder) -> list[tuple[Folder, int | None]]:
        """Pair the folders of one folder with the classes that they name."""
        return [(child, self.names.label(child.path.name)) for child in parent.folders]

    def named(self, parent: Folder) -> set[int]:
        """Collect the classes that the folders of one folder name."""
        return {label for _, label in self.labels(parent) if label is not None}

    def holds_classes(self, parent: Folder) -> bool:
        """Whether the folders of one folder are classes, not domains or splits named like some.

        Raises:
            UsageFault: they may be both.
        """
        pairs = self.labels(parent)
        classes = [(child, label) for child, label in pairs if label is not None]
        if not classes:
            return False
        others = {child: self.named(child) - {label} for child, label in classes}
        are_closed = not any(child.names for child, _ in classes)
        strangers = [child for child, label in pairs if label is None and self.named(child)]
        if not any(others.values()):
            twins = all(label in self.named(child) for child, label in classes)
            return not (are_closed and strangers and twins)
        outer = {label for _, label in classes}
        inner = set().union(*map(self.named, parent.folders))
        inside = [c.path.name for child in others for c in child.folders if self._is_class(c)]
        if len(outer) > len(inner) and all(name.casefold() in SPLITS for name in inside):
            return True
        if len(inner) > len(outer) and are_closed and isinstance(self.names, NamedFolders):
            return False
        child = next(child for child, inside_it in others.items() if inside_it)
        below = next(c for c in child.folders if self._is_class(c))
        name = child.path.name
        what = f"folder '{name}' may be a class that holds '{below.path.name}', or a domain"
        hint = "name it like no class, or move what lies in it"
        raise UsageFault(what, str(child.path), hint)

    def _is_class(self, folder: Folder) -> bool:
        return self.names.label(folder.path.name) is not None

    def parents(self, domain: Folder) -> list[Folder]:
        """List the folders that hold the class folders of a domain: itself, or its splits."""
        if self.holds_classes(domain):
            return [domain]
        splits = {child.path.name.casefold(): child for child in domain.folders}
        found = [splits[name] for name in SPLITS if name in splits]
        found = [split for split in found if self.holds_classes(split)]
        # VLCS: `full` holds the pictures of the other splits once more
        return found[:1] if found and found[0].path.name.casefold() == "full" else found

    def domains(self, tree: Folder) -> dict[str, list[Folder]]:
        """Map the name of each domain to the folders that hold its class folders."""
        if self.holds_classes(tree):
            return {self.root.resolve().name: [tree]}
        for folder in (tree, *tree.folders):  # itself, or a wrapper such as PACS's kfold
            found = {child.path.name: self.parents(child) for child in folder.folders}
            found = {name: parents for name, parents in found.items() if parents}
            measured = [name for name in found if name.casefold() in ("val", "valid")]
            splits = {name.casefold() for name in found}
            if measured and "train" in splits <= {"train", "val", "valid", "test"}:
                # what `train` holds is for training
                return {name: held for name, held in found.items() if name.casefold() != "train"}
            if found:
                return found
        is_wrapper = len(tree.folders) == 1 and not tree.names  # archives have one more
        return self.domains(tree.folders[0]) if is_wrapper else {}


def _readers(classes: Sequence[str], root: Path) -> list[NamedFolders | NumberedFolders]:
    """List how folders may be named, the likelier first."""
    plain, ids = NamedFolders(classes, {}), {}
    names_of = wordnet_names(root)
    for wnid, names in names_of.items():
        ids[wnid] = plain.label(names[0])
    firsts = set(ids.values())  # what an id is called first is no other's synonym
    for wnid, names in names_of.items():
        labels = [plain.label(name) for name in names if ids[wnid] is None]
        ids[wnid] = next((label for label in labels if label not in firsts), ids[wnid])
    readers: list[NamedFolders | NumberedFolders] = [
        NamedFolders(classes, {wnid: label for wnid, label in ids.items() if label is not None})
    ]
    readers.append(NamedFolders(classes, {}, is_bare=True))
    if not any(NUMBER.fullmatch(class_key(name)) for name in classes):
        readers.append(NumberedFolders(len(classes)))  # VLCS has 0, 1, 2, ...
    return readers


def _class_folders(
    parent: Folder, domain: str, reader: Reader, classes: Sequence[str]
) -> list[ClassFolder]:
    pairs = reader.labels(parent)
    owners: dict[int, Folder] = {}
    for folder, label in pairs:
        owner = folder if label is None else owners.setdefault(label, folder)
        if folded(owner.path.name) != folded(folder.path.name):
            both = f"'{owner.path.name}' and '{folder.path.name}'"
            what = f"folders {both} may both be class {_title(classes, label)}"
            raise UsageFault(what, str(parent.path), f"put them together, or {RENAME}")
    _refuse_shared(pairs, parent)
    free = [name for number, name in enumerate(classes) if number not in owners]
    strangers = [folder for folder, label in pairs if label is None]
    near = {folder: nearest(folder.path.name, free) for folder in strangers[:MAX_COMPARED]}
    return [
        ClassFolder(folder.path, domain, label, near.get(folder, ""), folder.pictures())
        for folder, label in pairs
    ]


def _refuse_shared(pairs: Sequence[tuple[Folder, int | None]], parent: Folder) -> None:
    """Refuse pictures that links lay below two classes: one of the labels is wrong."""
    owners: dict[tuple[int, int], tuple[Folder, int]] = {}
    for folder, label in pairs:
        if label is None:
            continue
        for below in folder.all_below():
            owner, other = owners.setdefault(below.identity, (folder, label))
            if below.names and other != label:
                both = f"'{owner.path.name}' and '{folder.path.name}'"
                what = f"folders {both} lead to the same pictures over a link"
                raise UsageFault(what, str(parent.path), "remove the link")


def _title(classes: Sequence[str], label: int | None) -> str:
    return (
        f"'{classes[label]}'" if label is not None and label < len(classes) else f"number {label}"
    )


def read_layout(root: Path, classes: Sequence[str]) -> LabelledFolder:
    """Walk a folder of labelled pictures; no class folder is found where none names a class.

    Raises:
        UsageFault: a folder or a mapping file cannot be read, or may be read in two ways.
    """
    tree = walk(root)
    for names in _readers(classes, root):
        reader = Reader(names, root)
        domains = reader.domains(tree)
        if domains:
            break
    folders = [
        folder
        for domain, parents in domains.items()
        for parent in parents
        for folder in _class_folders(parent, domain, reader, classes)
    ]
    named_by = f"folders are {names.how}"
    if isinstance(names, NumberedFolders) and folders:
        first = _settle_numbers(folders, classes, root)
        folders = [_renumbered(folder, first) for folder in folders]
        named_by += f" from {first}, in the order of the list"
    read = frozenset(f for parents in domains.values() for p in parents for f in p.folders)
    description = _description(domains, folders, len(classes), named_by)
    return LabelledFolder(root, tuple(folders), description, _left_out(tree, read))


def _settle_numbers(folders: Sequence[ClassFolder], classes: Sequence[str], root: Path) -> int:
    beyond = [f.path.name for f in folders if f.label is None and NUMBER.fullmatch(f.path.name)]
    if beyond:
        what = f"folder {beyond[0]} is a number beyond the {len(classes)} classes of the list"
        raise UsageFault(what, str(root), RENAME)
    return first_number([f.label for f in folders if f.label is not None], classes, root)


def _renumbered(folder: ClassFolder, first: int) -> ClassFolder:
    label = None if folder.label is None else folder.label - first
    return ClassFolder(folder.path, folder.domain, label, folder.near, folder.pictures)


def _description(
    domains: dict[str, list[Folder]],
    folders: Sequence[ClassFolder],
    num_classes: int,
    named_by: str,
) -> str:
    labels = {folder.label for folder in folders} - {None}
    above = {parent.path.name for parents in domains.values() for parent in parents}
    through = sorted(name for name in above - set(domains) if name.casefold() in SPLITS)
    shown = ", ".join(list(domains)[:6]) + (", ..." if len(domains) > 6 else "")
    return (
        f"{counted(len(domains), 'domain')} ({shown})"
        + (f", through {', '.join(through)}" if through else "")
        + f"; {len(labels)} of {num_classes} classes, {named_by}"
    )


def _left_out(tree: Folder, read: frozenset[Folder]) -> tuple[str, ...]:
    """Count the pictures outside of the class folders, and those in formats that are not read."""
    if not read:
        return tuple(tree.why_unread())
    lines = []
    if tree.names:
        num = counted(len(tree.names), "picture")
        lines.append(f"{tree.path}: {num} beside the class folders left out")
    for folder in tree.folders:
        left = folder.count(but=read)
        if left:
            lines.append(f"{folder.path}: {counted(left, 'picture')} outside of what is read here")
    return (*lines, *tree.why_unread())


def find_pictures(root: Path, classes: Sequence[str]) -> LabelledFolder:
    """Find the labelled pictures of `--data`.

    Raises:
        UsageFault: the folder is missing or holds no picture of any class.
    """
    if not root.is_dir():
        raise UsageFault("no such folder", f"--data {root}")
    found = read_layout(root, classes)
    if not found.domains:
        raise UsageFault("no picture of any class", f"--data {root}", _expected(found, classes))
    return found


def _expected(found: LabelledFolder, classes: Sequence[str]) -> str:
    """Say how a folder that names no class should look, and which names in it are near to one."""
    tree = walk(found.root)
    folders = [*tree.folders, *(below for child in tree.folders for below in child.folders)]
    names = dict.fromkeys(folder.path.name for folder in folders)
    near = ((name, nearest(name, classes)) for name in islice(names, MAX_COMPARED))
    lines = [f"folder {name}: did you mean {known}?" for name, known in near if known]
    empty = [folder.path.name for folder in found.folders if folder.label is not None]
    if empty:
        lines = [f"folder {name} holds no picture;" for name in empty]
    if any(WORDNET_ID.fullmatch(name) for name in names):
        lines.append(f"folders are WordNet ids: lay {MAPPING_FILES[1]} beside them;")
    if tree.names:
        lines.append(f"{counted(len(tree.names), 'picture')} in no folder of a class;")
    return " ".join([*lines[:MAX_NEAR], *(f"{line};" for line in found.left_out), EXPECTED])
