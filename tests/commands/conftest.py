"""Fixtures of the commands."""

from pathlib import Path

import pytest

from tests.fixtures.videos import write_video


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")
