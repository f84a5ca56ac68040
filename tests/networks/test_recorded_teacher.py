import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dfkd_edge.artifacts import StudentArtifact, save_tensors
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.errors import ArtifactError, DfkdEdgeError, EnvironmentLackingError
from dfkd_edge.networks import recorded_teacher
from dfkd_edge.networks.recorded_teacher import load_recorded_teacher
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.key import teacher_content
from tests.fixtures.typed import student_settings


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "http://nowhere/x", "s3:x", "timm:x/y"])
def test_a_recorded_name_that_leads_to_the_network_is_loaded_from_here_or_not_at_all(
    name: str, classes: ClassNames
) -> None:
    with pytest.raises(EnvironmentLackingError, match="was never fetched here"):
        load_recorded_teacher(TeacherConfig(name=name), classes, "")


@pytest.mark.parametrize("scheme", ["", "local-dir:"])
def test_a_recorded_folder_is_loaded_if_it_holds_what_its_maker_had(
    small_tower: Callable[[str], Path], classes: ClassNames, scheme: str
) -> None:
    config = TeacherConfig(name=f"{scheme}{small_tower('clip')}")
    content = teacher_content(config)
    assert isinstance(load_recorded_teacher(config, classes, content), Teacher)
    for wrong in (None, "", "0" * 16):
        with pytest.raises(ArtifactError, match="what lies there is not what was distilled"):
            load_recorded_teacher(config, classes, wrong)


def test_a_folder_that_is_no_teacher_is_not_read_through(
    tmp_path: Path, classes: ClassNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_config: TeacherConfig) -> str:
        raise AssertionError("its files were read")

    monkeypatch.setattr(recorded_teacher, "teacher_content", read)
    for name in ("/", str(tmp_path), "local-dir:/nowhere"):
        with pytest.raises(DfkdEdgeError):
            load_recorded_teacher(TeacherConfig(name=name), classes, "")


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "local-dir:/nowhere", "/etc", "../x"])
def test_a_recorded_student_is_a_network_of_timm_and_nothing_else(
    name: str, tmp_path: Path
) -> None:
    artifact = StudentArtifact(tmp_path, student_settings(timm_name=name))
    save_tensors(artifact.weights, {})
    with pytest.raises(ArtifactError, match=r"no network of timm .*student\.json"):
        load_student(artifact)
