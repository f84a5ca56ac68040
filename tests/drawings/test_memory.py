import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dfkd_edge import assets
from dfkd_edge.artifacts import read_metadata
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.drawings.memory import (
    EMBEDDINGS,
    MAX_ALIKE,
    MAX_DRAWINGS,
    NAME_TEXT,
    DrawingMemory,
    Sheet,
    all_places,
    near_names,
    read_embeddings,
    read_sheets,
    retrieve_drawings,
)
from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.key import content_of

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


def test_each_class_gets_the_names_nearest_to_it(teacher: Teacher) -> None:
    names = ["house", "dog", "dog face", "volcano", "person"]
    name_VD = teacher.embed_texts([NAME_TEXT.format(name) for name in names])
    class_KD = F.normalize(teacher.head_KD, dim=1)
    assert near_names(name_VD, class_KD, [False] * 3) == [[1, 2], [0], [4]]
    assert near_names(name_VD, class_KD, [True, False, True]) == [[1], [0], [4]]


def test_the_memory_knows_what_the_shipped_teacher_sees_in_it(teacher: Teacher) -> None:
    metadata = read_metadata(assets.EXEMPLARS / EMBEDDINGS)
    assert metadata == {"teacher": content_of(assets.TEACHER)}
    memory = DrawingMemory(teacher)
    places = all_places(memory.sheets)
    assert (len(memory.name_VD), len(memory.shown_MD)) == (len(memory.names), len(places))
    some = slice(1_000, 1_016)
    text_ND = teacher.embed_texts([NAME_TEXT.format(name) for name in memory.names[some]])
    ((_, rgba_NCPP),) = memory.cut(places[some])
    rgba = rgba_NCPP / 255
    with torch.no_grad():
        shown_ND = teacher.embed_images(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
    assert float((text_ND * memory.name_VD[some]).sum(1).min()) > 0.999
    assert float((shown_ND * memory.shown_MD[some]).sum(1).min()) > 0.999


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_a_memory_without_its_embeddings_is_one_error(
    tmp_path: Path, content: bytes | None
) -> None:
    if content:
        (tmp_path / EMBEDDINGS).write_bytes(content)
    with pytest.raises(ConfigError, match=f"incomplete .*{EMBEDDINGS}"):
        read_embeddings(tmp_path)


def shown_classes(lines: str) -> tuple[Teacher, tuple[torch.Tensor, ...]]:
    teacher = load_teacher(TeacherConfig(), parse_class_names(lines, "classes"))
    return teacher, retrieve_drawings(DrawingMemory(teacher))


def test_the_teacher_sees_its_class_in_every_drawing() -> None:
    teacher, found = shown_classes("guitar\noctopus\npenguin\nhouse")
    assert [len(drawings) > MAX_DRAWINGS for drawings in found] == [False, True, False, False]
    for label, drawings in enumerate(found):
        assert 8 <= len(drawings) <= MAX_ALIKE
        rgba, size = drawings.float() / 255, (teacher.image_size_px,) * 2
        image = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
        with torch.no_grad():
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
            seen = teacher.logits(teacher.embed_images(image)).argmax(1)
        assert float((seen == label).float().mean()) > 0.95  # embeddings are kept as int8


def test_a_class_that_nothing_is_named_after_takes_what_looks_like_it() -> None:
    names = parse_class_names("rhinoceros\nhorse\nhouse", "classes")
    memory = DrawingMemory(load_teacher(TeacherConfig(), names))
    rhinoceros, horse, _ = memory.search(memory.teacher.head_KD, names)
    assert not rhinoceros.named
    assert len(horse.named) > 8
    assert not horse.alike
    assert {"elephant", "mammoth"} & set(memory.named(rhinoceros.alike[:20]))
    places = all_places(memory.sheets)
    shown_ND = memory.shown_MD[[places.index(place) for place in rhinoceros.alike]]
    similarity_NK = shown_ND @ memory.teacher.head_KD.T
    assert bool((similarity_NK.argmax(1) == 0).all())
    assert bool((similarity_NK[:, 0].diff() <= 0).all())
    assert set(rhinoceros.alike).isdisjoint(horse.named)


def test_a_prompt_of_its_own_brings_what_it_names_and_not_what_the_name_alone_means() -> None:
    lines = "bat\ta photo of a baseball bat\nmouse\ta photo of a computer mouse\nhouse"
    named = []
    for text in (lines, "bat\nmouse\nhouse"):
        names = parse_class_names(text, "classes")
        memory = DrawingMemory(load_teacher(TeacherConfig(), names))
        named.append([len(each.named) for each in memory.search(memory.teacher.head_KD, names)])
    (club, computer_mouse, house), (animals, mice, same_house) = named
    assert club == 0 < animals
    assert 0 < computer_mouse < mice
    assert house == same_house > 0
