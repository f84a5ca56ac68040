import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.drawings import embedding_cache
from dfkd_edge.drawings import memory as drawing_memory
from dfkd_edge.drawings.embedding_cache import Place, cache_path, read_cache, write_cache
from dfkd_edge.drawings.memory import DrawingMemory, Sheet, read_sheets, retrieve_drawings
from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.context import StageContext

HELD_OUT_WORDS = {
    *("rhinoceros", "rhino", "octopus", "dolphin", "sunflower", "cactus", "helicopter", "trophy"),
    *("scissors", "snowman", "skateboard", "crown", "unicorn", "dragon", "ghost", "robot"),
    *("kite", "grapes", "grape", "cherries", "cherry", "squid"),
}
"""Words of the categories that measure what neither training nor the memory holds."""


def make_memory(folder: Path, names: list[str], side_px: int = 4) -> tuple[Sheet, ...]:
    """Write a memory of opaque tiles, two columns, whose red channel is their number."""
    numbers = np.arange(len(names) + len(names) % 2, dtype=np.uint8).reshape(-1, 2)
    pixels = np.full((*numbers.shape, 4), (0, 50, 100, 255), np.uint8)
    pixels[..., 0] = numbers
    pixels = pixels.repeat(side_px, axis=0).repeat(side_px, axis=1)
    Image.fromarray(pixels).save(folder / "drawn.webp", lossless=True)
    index = {"side_px": side_px, "num_columns": 2, "names": {"drawn": names}}
    (folder / "exemplars.json").write_text(json.dumps(index))
    return read_sheets(folder)


def test_a_sheet_gives_the_drawings_that_are_asked_for(tmp_path: Path) -> None:
    (sheet,) = make_memory(tmp_path, ["dog", "cat", "owl"])
    cut = sheet.drawings([2, 0])
    assert cut.shape == (2, 4, 4, 4)
    assert [tile[0].unique().tolist() for tile in cut] == [[2], [0]]


@pytest.mark.parametrize("lost", ["exemplars.json", "drawn.webp"])
def test_a_missing_or_damaged_part_of_the_memory_is_one_error(tmp_path: Path, lost: str) -> None:
    (sheet,) = make_memory(tmp_path, ["dog"])
    (tmp_path / lost).unlink()
    with pytest.raises(ConfigError, match=f"incomplete .*{lost}"):
        read_sheets(tmp_path)
    sheet.path.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"drawn\.webp"):
        sheet.drawings([0])


def test_the_shipped_memory_is_whole_and_names_nothing_that_is_held_out() -> None:
    sheets = read_sheets()
    for sheet in sheets:
        with Image.open(sheet.path) as picture:
            width, height = picture.size
        assert width == sheet.num_columns * sheet.side_px
        assert height == -(-len(sheet.names) // sheet.num_columns) * sheet.side_px
    styles = {sheet.path.stem for sheet in sheets}
    assert styles.isdisjoint({"openmoji", "streamline-emojis", "emojione-monotone"})
    names = {name for sheet in sheets for name in sheet.names}
    assert not [name for name in names if HELD_OUT_WORDS & set(name.split())]
    assert {"google", "firebase", "ipod", "iphone"}.isdisjoint(names)


def test_each_class_gets_the_names_nearest_to_it(teacher: Teacher, context: StageContext) -> None:
    names = ["house", "dog", "dog face", "volcano", "person"]
    name_VD = drawing_memory.embed_names(names, teacher, context.reporter)
    torch.testing.assert_close(name_VD.norm(dim=1), torch.ones(5))
    class_KD = F.normalize(teacher.head_KD, dim=1)
    assert drawing_memory.near_names(name_VD, class_KD, [False] * 3) == [[1, 2], [0], [4]]
    assert drawing_memory.near_names(name_VD, class_KD, [True, False, True]) == [[1], [0], [4]]


def test_what_was_seen_once_is_read_from_the_cache(
    teacher: Teacher, context: StageContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reporter: Any = context.reporter

    def search() -> tuple[list[list[Place]], list[str]]:
        reporter.stages = []
        memory = DrawingMemory(teacher, reporter)
        return memory.search(teacher.head_KD, teacher.classes), reporter.stages

    found, stages = search()
    assert stages == ["searching the memory", "looking at the drawings"]
    assert search() == (found, [])


def test_a_cache_that_is_damaged_or_cannot_be_written_is_as_an_empty_one(tmp_path: Path) -> None:
    path, name_VD, shown = tmp_path / "cache" / "a", torch.ones(2, 3), {(0, 5): torch.zeros(3)}
    write_cache(path, name_VD, shown)
    names, drawings = read_cache(path)
    assert names is not None
    assert (names.tolist(), list(drawings)) == (name_VD.tolist(), [(0, 5)])
    path.parent.chmod(0o777)  # others may have laid it there
    assert read_cache(path) == (None, {})
    write_cache(path, name_VD, shown)  # what lay there goes, and the folder is closed
    assert (path.parent.stat().st_mode & 0o777, [*path.parent.iterdir()]) == (0o700, [path])
    written = path.read_bytes()
    for number in range(len(written)):
        changed = bytearray(written)
        changed[number] ^= 0xFF
        path.write_bytes(changed)
        assert read_cache(path) == (None, {})
    path.write_bytes(written[:-1])
    assert read_cache(path) == (None, {})
    write_cache(path / "below a file", name_VD, shown)
    assert read_cache(path / "below a file") == (None, {})


def test_each_teacher_has_a_cache_of_its_own_and_so_has_each_version(
    teacher: Teacher, tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache_path(teacher, "{}")
    assert len({path, cache_path(tiny_teacher, "{}"), cache_path(teacher, "a {}")}) == 3
    assert cache_path(teacher, "{}") == path
    for module in (embedding_cache, open_clip, torch):
        with monkeypatch.context() as patched:
            patched.setattr(module, "__version__", "0")
            assert cache_path(teacher, "{}") != path


def shown_classes(lines: str, context: StageContext) -> tuple[Teacher, tuple[torch.Tensor, ...]]:
    teacher = load_teacher(TeacherConfig(), parse_class_names(lines, "classes"))
    return teacher, retrieve_drawings(DrawingMemory(teacher, context.reporter))


def test_the_teacher_sees_its_class_in_every_drawing(context: StageContext) -> None:
    teacher, found = shown_classes("guitar\noctopus\npenguin\nhouse", context)
    assert [len(drawings) >= 8 for drawings in found] == [True, False, True, True]
    assert len(found[1]) == 0
    for label, drawings in enumerate(found):
        assert len(drawings) <= drawing_memory.MAX_DRAWINGS
        if len(drawings):
            rgba, size = drawings.float() / 255, (teacher.image_size_px,) * 2
            image = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
            with torch.no_grad():
                image = F.interpolate(image, size, mode="bilinear", antialias=True)
                seen = teacher.logits(teacher.embed_images(image)).argmax(1)
            assert bool((seen == label).all())


def test_a_prompt_of_its_own_brings_what_it_names_and_not_what_the_name_alone_means(
    context: StageContext,
) -> None:
    lines = "bat\ta photo of a baseball bat\nmouse\ta photo of a computer mouse\nhouse"
    _, (club, computer_mouse, house) = shown_classes(lines, context)
    _, (animals, mice, same_house) = shown_classes("bat\nmouse\nhouse", context)
    assert len(club) == 0 < len(animals)
    assert 0 < len(computer_mouse) < len(mice)
    assert len(house) == len(same_house) > 0
