"""Whatever is read from elsewhere, as targets of damaged inputs: how each is made and read."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from dfkd_edge.artifacts import PromptSet, StudentSettings, SurrogateSummary, load_tensors
from dfkd_edge.class_lists.formats import translate
from dfkd_edge.class_names import folded, parse_class_names, read_given_list, translated_text
from dfkd_edge.config.file import load_config, to_toml
from dfkd_edge.files import read_json
from dfkd_edge.prompts.vocabulary import read_style_words
from dfkd_edge.report.reading import _read_curves
from dfkd_edge.report.sources import Calibration
from dfkd_edge.results.benchmark import Benchmark
from dfkd_edge.results.codec import from_json, to_json
from dfkd_edge.results.device import keep_results, kept_results, read_result
from dfkd_edge.results.kept import read_ladder
from dfkd_edge.runs.manifest import damaged_files, read_manifest
from dfkd_edge.runs.row_stores import stored_tensors
from dfkd_edge.runtime.folder_layouts import find_pictures
from dfkd_edge.runtime.picture_walk import walk
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.target_profiles.lookup import load_target
from tests.damaged import mutations
from tests.damaged.watch import Read
from tests.fixtures.picture_corpus import write_corpus

ROOT = Path(__file__).parents[2]
CLASSES = ("dog", "great dane", "house")


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    name: str
    read: Read
    seeds: Callable[[Path], Iterator[bytes]]  # Whole inputs, made in an empty folder
    damage: mutations.Damage  # Keeps the form


def read_class_list(content: bytes, folder: Path) -> None:
    """Read a class list; what a run keeps of it reads as the same."""
    path = folder / "classes.txt"
    path.write_bytes(content)
    found, how = read_given_list(path)
    assert len({folded(name) for name in found.names}) == len(found) > 1
    assert len(set(found.slugs())) == len(found)
    translated_text(found, how)
    pairs = zip(found.names, found.prompts, strict=True)
    kept = "".join(f"{name}\t{prompt}\n" if prompt else f"{name}\n" for name, prompt in pairs)
    assert parse_class_names(kept, "kept") == found
    if not any(found.prompts):
        assert parse_class_names(translate(kept, "kept")[0], "kept").names


def class_lists(folder: Path) -> Iterator[bytes]:
    """Lists of ours and of other tools."""
    yield from (
        b"dog\nhouse\n",
        b"dog\ta photo of a dog\nhouse\n# note\n\n",
        b"\xef\xbb\xbfdog\r\nh",
    )
    yield from (b"0 cat\n1 dog\n", b"cat 0\ndog 1\n", b"[0] cat\n[1] dog\n", b"'cat',\n'dog',\n")
    yield b'{"names": {"0": "cat", "1": "dog"}, "nc": 2}'
    yield b'{"id2label": {"0": "cat", "1": "dog"}}'
    yield b'{"categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]}'
    yield b'["cat", "dog"]'
    yield b"nc: 2\nnames: ['cat', 'dog']\n"
    yield b"path: x\nnames:\n  0: cat\n  1: dog\n"
    yield b"names:\n- cat\n- dog\n"
    yield b"id,name,supercategory\n1,cat,animal\n2,dog,animal\n"
    yield b"/m/01,Cat\n/m/02,Dog\n"
    yield b'item {\n id: 1\n name: "cat"\n}\nitem {\n id: 2\n display_name: "dog"\n}\n'
    yield b'const char* ei_classifier_inferencing_categories[] = { "cat", "dog" };\n'
    yield b"<?xml version='1.0'?><labels><label><name>cat</name></label><name>dog</name></labels>"
    yield b'<View><Choices><Choice value="cat"/><Choice value="dog"/></Choices></View>'
    yield b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n"
    yield b"classes = 2\nnames = data/coco.names\n"
    yield b"Label\ncat\ndog\nhouse\n"


def read_settings(content: bytes, folder: Path) -> None:
    """Read settings, every number of them finite; written, they read as the same."""
    kind, content = content[:1], content[1:]
    path = folder / "config.toml"
    path.write_bytes(content)
    if kind == b"t":
        load_target(str(path))
        return
    if kind == b"w":
        assert len(read_style_words(str(path))) > 1
        return
    config = load_config(path)
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config  # NaN equals nothing
    assert not any(word in to_toml(config).split() for word in ("inf", "-inf", "nan"))


def settings(folder: Path) -> Iterator[bytes]:
    """Settings, targets and lists of words."""
    yield b"c" + to_toml(load_config(None)).encode()
    yield b'cpreset = "literature"\nseed = 3\n[distillation]\nnum_steps = 5\n'
    yield b'tbase = "x86-cpu"\nmin_calibration_images = 8\n'
    for path in sorted(ROOT.glob("targets/*/*.toml"))[::6]:
        yield b"t" + path.read_bytes()
    yield b"wbronze\nvelvet\n"


def read_one_picture(content: bytes, folder: Path) -> None:
    """Read a picture."""
    path = folder / "picture.jpg"
    path.write_bytes(content)
    image = read_picture(path, 16)
    assert image.shape == (16, 16, 3)
    assert image.dtype.kind == "u"


def pictures(folder: Path) -> Iterator[bytes]:
    """Pictures of every format, depth and colour model that is read."""
    write_corpus(folder)
    yield from (path.read_bytes() for path in sorted(folder.iterdir()))


def read_folder(content: bytes, folder: Path) -> None:
    """Make a folder of what each line names, and read it as labelled pictures."""
    root = folder / "root"
    root.mkdir()
    for line in content.split(b"\n")[:60]:
        name, arrow, aim = line.partition(b"->")
        path = Path(os.fsdecode(bytes(root) + b"/" + name[:120]))
        if b"\0" in line or b".." in name.split(b"/"):
            continue
        to = "/dev/zero" if aim[:1] == b"=" else os.fsdecode(bytes(root) + b"/" + aim)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                path.symlink_to(to)
            elif name.endswith(b"/"):
                path.mkdir()
            else:
                path.write_bytes(b"n02084071 dog, domestic dog\n")
        except (OSError, ValueError):  # a name that no file system takes
            continue
    tree = walk(root)
    found = find_pictures(root, CLASSES)
    assert found.num_pictures > 0
    assert all(0 <= label < len(CLASSES) for domain in found.domains for label in domain.labels)
    assert tree.count() >= len({file for domain in found.domains for file in domain.files})


def folders(folder: Path) -> Iterator[bytes]:
    """Folders as people have them."""
    yield b"dog/a.jpg\nhouse/b.png\ngreat dane/c.jpg"
    yield b"photo/dog/a.jpg\nsketch/dog/b.jpg\nphoto/house/c.jpg\n.hidden/x.jpg"
    yield b"train/dog/a.jpg\nval/dog/b.jpg\nval/house/b.jpg"
    yield b"0/a.jpg\n1/b.jpg\n2/c.jpg"
    yield b"001.dog/a.jpg\n002.great_dane/b.jpg\n003.house/c.heic"
    yield b"words.txt\nn02084071/a.jpg\nhouse/b.jpg"
    yield b"dog/a.jpg\nloop->.\ndog/up->..\nhouse->dog\nother->nowhere\nzero.jpg->=\nhouse/"
    yield b"caf\xe9/dog/a.jpg\n\xe7\x8a\xac/b.jpg\n@eaDir/x.jpg\nDOG/a.JPG\ndog/a.jpg"


def read_tensors(content: bytes, folder: Path) -> None:
    """Read a safetensors file at once, and by rows."""
    path = folder / "a.safetensors"
    path.write_bytes(content)
    stored = stored_tensors(path)
    for store in stored.values():
        assert store.whole().shape == store.shape
        store.rows(np.arange(min(len(store), 2)))
    whole = load_tensors(path)
    assert {name: tensor.shape for name, tensor in whole.items()} == {
        name: store.shape for name, store in stored.items()
    }


def tensors(folder: Path) -> Iterator[bytes]:
    """Files of the types that ours have."""
    arrays: dict[str, Any] = {"a": np.eye(3, dtype=np.float32), "b": np.arange(4)}
    yield safetensors.numpy.save(arrays, {"key": "k", "step": "3"})
    yield safetensors.numpy.save({"x": np.zeros((2, 3), np.uint8), "n": np.zeros(2, np.bool_)})
    yield safetensors.numpy.save({"h": np.zeros((0, 3), np.float16), "s": np.ones(1, np.float32)})
    yield safetensors.numpy.save({}, {"key": "k"})


def _result(path: Path) -> None:
    result = read_result(path)
    result.summary(())
    keep_results(path.parent, [result])
    assert [again.text for again in kept_results(path.parent)[0]] == [result.text]


def _typed(kind: type[Any], path: Path) -> None:
    found = from_json(kind, read_json(path), path)
    assert to_json(from_json(kind, to_json(found), path)) == to_json(found)


def _manifest(path: Path) -> None:
    found = read_manifest(path.parent)
    assert found is not None
    damaged_files(path.parent, {**found.stages, **found.earlier})


def _prompts(path: Path) -> None:
    arrays: dict[str, Any] = {"embeddings": np.ones((1, 2), np.float32)}
    arrays |= dict.fromkeys(("class_index", "style_index"), np.zeros(1, np.int64))
    path.with_name("prompts.safetensors").write_bytes(safetensors.numpy.save(arrays))
    PromptSet.load(path.parent)


DOCUMENTS: Mapping[str, Callable[[Path], object]] = {
    "result.json": _result,
    "evaluation.json": read_ladder,
    "benchmark.json": partial(_typed, Benchmark),
    "calibration.json": partial(_typed, Calibration),
    "surrogates.json": lambda path: SurrogateSummary.load(path.parent).to_json(),
    "prompts.json": _prompts,
    "student.json": lambda path: StudentSettings.load(path.parent),
    "manifest.json": _manifest,
    "metrics.jsonl": lambda path: _read_curves(path.parent),
}


def read_document(content: bytes, folder: Path) -> None:
    """Read a document of a run or bundle; the first byte says which."""
    name = list(DOCUMENTS)[(content[:1] or b"\0")[0] % len(DOCUMENTS)]
    path = folder / name
    path.write_bytes(content[1:])
    DOCUMENTS[name](path)


damage_document = mutations.in_part(mutations.damage_json)
TARGETS = (
    Target("class-lists", read_class_list, class_lists, mutations.flip),
    Target("settings", read_settings, settings, mutations.in_part(mutations.damage_toml)),
    Target("pictures", read_one_picture, pictures, mutations.damage_png),
    Target("folders", read_folder, folders, mutations.flip),
    Target("safetensors", read_tensors, tensors, mutations.damage_tensors),
    Target("documents", read_document, lambda folder: iter(()), damage_document),
)
