"""Readers of label files, written after the rules of each runtime's own parser."""

from collections.abc import Callable, Mapping
from pathlib import Path


def nvinfer(path: Path) -> list[str]:
    """One line an output; std::getline with ';' as the end, so an empty last name is lost."""
    lines = path.read_bytes().split(b"\n")
    assert lines[1:] == [b""]  # a second line would be a second output
    names = lines[0].split(b";")
    return [_in_metadata(name) for name in (names[:-1] if names[-1] == b"" else names)]


def nvinferserver(path: Path) -> list[str]:
    """As nvinfer, but a name follows the last ';', empty or not, and lines of one output join."""
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    return [_in_metadata(name) for line in lines for name in line.split(b";")]


def _in_metadata(name: bytes) -> str:
    """Copy a name as both elements do: g_strlcpy into the 128 bytes of MAX_LABEL_SIZE."""
    return name[:127].decode(errors="replace")


def lines_of(path: Path) -> list[str]:
    """Triton: one name a line, ended by a line feed."""
    raw = path.read_bytes()
    return [line.decode() for line in raw.removesuffix(b"\n").split(b"\n")]


def split_lines(path: Path) -> list[str]:
    """Programs of ours: str.splitlines, which ends a line at more than a line feed."""
    return path.read_text(encoding="utf-8").splitlines()


def imagenet(path: Path) -> list[str]:
    """LoadClassLabels of tensorNet.cpp: fgets of 511 bytes, and nine of a WordNet number."""
    names = []
    for line in path.read_bytes().splitlines(keepends=True):
        for start in range(0, len(line), 511):
            text = line[start : start + 511]
            if len(text) > 9 and text[:1] == b"n" and text[9:10] == b" ":
                names.append(text[10:-1].decode())
            else:
                names.append(text.removesuffix(b"\n").decode())
    assert all(len(f"100.00% {name}".encode()) < 256 for name in names)  # sprintf of imagenet.cpp
    return names


READERS: Mapping[str, tuple[str, Callable[[Path], list[str]]]] = {
    "deepstream": ("labels.txt", nvinfer),
    "deepstream-triton": ("labels.txt", nvinferserver),
    "holoscan": ("labels.txt", split_lines),
    "isaac-ros": ("labels.txt", split_lines),
    "jetson-inference": ("labels.txt", imagenet),
    "onnxruntime": ("labels.txt", split_lines),
    "ros2": ("labels.txt", split_lines),
    "triton": ("student/labels.txt", lines_of),
    "trtexec": ("labels.txt", lines_of),
}
