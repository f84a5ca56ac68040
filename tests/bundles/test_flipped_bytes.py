"""A byte of a bundle that is not as it was exported is refused by the name of its file."""

import random

import pytest

from dfkd_edge.runtime.bundle_files import CHECK, MANIFEST, Bundle
from tests.damaged.flips import Commands, drawn_flips, run_fresh, unnoticed


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
def test_the_commands_refuse_what_was_flipped(tiny_bundle: Bundle) -> None:
    folder, rng = tiny_bundle.folder, random.Random(1)
    flips = list(drawn_flips(folder, 100, rng))
    own = [flip for flip in drawn_flips(folder, 400, rng) if flip[0] == CHECK]
    assert own  # what runs is what was flipped
    with Commands(folder) as commands:
        assert not [(flip, how) for flip in flips + own for how in commands.missed(*flip)]
    assert not [(flip, how) for flip in flips[:2] for how in run_fresh(folder, *flip)]
