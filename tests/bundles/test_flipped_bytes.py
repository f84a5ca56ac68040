"""A byte of a bundle that is not as it was exported is refused by the name of its file."""

import random
import subprocess
import sys

import pytest

from dfkd_edge.runtime.bundle_files import CHECK, MANIFEST, Bundle
from tests.damaged.flips import Flipped, drawn_flips, unnoticed


def test_every_flipped_byte_is_refused_by_the_name_of_its_file(tiny_bundle: Bundle) -> None:
    folder, rng = tiny_bundle.folder, random.Random(0)
    missed = [
        (flip, who) for flip in drawn_flips(folder, 120, rng) for who in unnoticed(folder, *flip)
    ]
    assert not missed


def test_no_byte_of_the_manifest_may_change(tiny_bundle: Bundle) -> None:
    folder = tiny_bundle.folder
    size = (folder / MANIFEST).stat().st_size
    places = (*range(40), *range(40, size, size // 80), size - 1)  # its marker, and the rest
    assert not [place for place in places if unnoticed(folder, MANIFEST, place, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_the_commands_refuse_what_was_flipped(tiny_bundle: Bundle, number: int) -> None:
    folder = tiny_bundle.folder
    flip = list(drawn_flips(folder, 6, random.Random(1)))[number]
    words = (("-m", "dfkd_edge", "check", folder), (folder / CHECK, "--duration", "0"))
    with Flipped(folder, *flip):
        for command in words:
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
            assert done.returncode
            assert str(folder / flip[0]) in done.stderr
