"""Whatever a class is called, a runtime reads that name back, or the list is refused for it."""

import dataclasses
import random
from pathlib import Path

import pytest

from dfkd_edge.errors import ConfigError
from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.runtime.bundle_manifest import why_no_name
from tests.handover.conftest import EVERY, MakeJob
from tests.handover.readers import READERS

NUM_LISTS = 1_000
PARTS = (
    *("dog", "n", "n02084071", "neighbour", ";", "a;b", "été", "犬", "ß", "1st", "007", "'", '"'),
    *("#", "=", "[property]", "\\", "%s", ":", ",", "{", "$(id)", "`", "n0208407", "x" * 40),
    "犬" * 45,
)


def generated_list(number: int) -> tuple[str, ...]:
    """Names of odd parts, as a manifest may hold them."""
    rng = random.Random(number)
    num = 1_000 if number % 200 == 0 else rng.randint(2, 12)
    names = {" ".join(rng.choices(PARTS, k=rng.randint(1, 3)))[:90] for _ in range(num)}
    names = {name for name in names if not why_no_name(name)} | {"dog", "cat"}
    names |= {f"class {index}" for index in range(num - len(names))}
    return tuple(sorted(names))


LISTS = [generated_list(number) for number in range(NUM_LISTS)]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("num", [50, pytest.param(NUM_LISTS, marks=pytest.mark.slow)])
def test_of_many_lists_every_name_is_read_back_or_the_list_is_refused(
    num: int, name: str, make_job: MakeJob, tmp_path: Path
) -> None:
    runtime, (file, read) = load_runtime(name), READERS[name]
    job, refused = make_job(name), 0
    path = tmp_path / "labels.txt"
    for classes in LISTS[:num]:
        try:
            runtime.profile.require_names(classes)
        except ConfigError:
            refused += 1
            continue
        path.write_text(
            runtime.write(dataclasses.replace(job, classes=classes))[file], encoding="utf-8"
        )
        assert tuple(read(path)) == classes
    assert refused < num
    assert bool(refused) == bool(runtime.profile.refused_names)


def test_the_lists_are_as_odd_as_they_are_meant_to_be() -> None:
    names = {name for classes in LISTS for name in classes}
    assert len(set(LISTS)) > NUM_LISTS * 0.9
    assert max(map(len, LISTS)) == 1_000
    assert any(";" in name for name in names)
    assert any(not name.isascii() for name in names)
    assert any(name[0].isdigit() for name in names)


@pytest.mark.parametrize(
    ("runtime", "name", "is_refused"),
    [
        ("deepstream", "a;b", True),
        ("deepstream", "a,b", False),
        ("jetson-inference", "neighbour dog", True),
        ("jetson-inference", "neighbours dog", False),
        ("jetson-inference", "n\u00e9ighbou dog", True),  # the ninth byte, not the ninth character
        ("triton", "a;b", False),
        ("deepstream", "犬" * 42, False),
        ("deepstream", "犬" * 43, True),  # 129 bytes
        ("deepstream-triton", "犬" * 43, True),
        ("jetson-inference", "犬" * 82, False),
        ("jetson-inference", "犬" * 83, True),
        ("triton", "犬" * 100, False),
    ],
)
def test_a_name_that_a_runtime_would_misread_is_refused_by_name(
    runtime: str, name: str, is_refused: bool
) -> None:
    profile = load_runtime(runtime).profile
    if is_refused:
        with pytest.raises(ConfigError, match=f"{runtime} cannot have the class '{name}': "):
            profile.require_names(("dog", name))
    else:
        profile.require_names(("dog", name))


def test_the_readers_find_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("a;b;c\n", encoding="utf-8")
    assert READERS["deepstream"][1](path) == ["a", "b", "c"]
    path.write_text("n02084071 dog\nneighbour dog\ncat\n", encoding="utf-8")
    assert READERS["jetson-inference"][1](path) == ["dog", "dog", "cat"]
