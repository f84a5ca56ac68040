"""Readers of label files, written after the rules of each runtime's own parser."""

from collections.abc import Callable, Mapping
from pathlib import Path


def nvinfer(path: Path) -> list[str]:
    """One line an output; std::getline with ';' as the end, so an empty last name is lost."""
    lines = path.read_bytes().split(b"\n")
    assert lines[1:] == [b""]  # a second line would be a second output
    names = lines[0].split(b";")
    return [name.decode() for name in (names[:-1] if names[-1] == b"" else names)]


def lines_of(path: Path) -> list[str]:
    """Triton and our own scripts: one name a line, ended by a line feed."""
    raw = path.read_bytes()
    return [line.decode() for line in raw.removesuffix(b"\n").split(b"\n")]


def imagenet(path: Path) -> list[str]:
    """LoadClassInfo of imageNet.cpp: fgets of 511 bytes, and nine bytes of a WordNet number."""
    names = []
    for line in path.read_bytes().splitlines(keepends=True):
        for start in range(0, len(line), 511):
            text = line[start : start + 511]
            if len(text) > 9 and text[:1] == b"n" and text[9:10] == b" ":
                names.append(text[10:-1].decode())
            else:
                names.append(text.removesuffix(b"\n").decode())
    return names


READERS: Mapping[str, tuple[str, Callable[[Path], list[str]]]] = {
    "deepstream": ("labels.txt", nvinfer),
    "jetson-inference": ("labels.txt", imagenet),
    "onnxruntime": ("labels.txt", lines_of),
    "triton": ("student/labels.txt", lines_of),
    "trtexec": ("labels.txt", lines_of),
}
