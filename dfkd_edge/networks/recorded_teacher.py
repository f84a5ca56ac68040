"""A teacher that a run or bundle names: nobody here asked for it, so its name reaches less.

Names of open_clip's own table are fetched like those of a command. A name of the hub is loaded if
it was fetched before, and a folder or weight file if it holds what the maker's held: whoever sends
a run chooses neither what is downloaded nor what is opened here.
"""

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from huggingface_hub import constants

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, TeacherConfig
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.networks.weights import how_to_fetch, teacher_weights
from dfkd_edge.runs.key import teacher_content

LOCAL = "local-dir:"
MAX_FILES = 1_000  # In a teacher's folder; `/` is none


def load_recorded_teacher(
    config: TeacherConfig, classes: ClassNames, content: str | None, device: str = "cpu"
) -> Teacher:
    """Load a teacher that is named by a run or bundle.

    Args:
        config: as it is recorded there.
        classes: of the run or bundle.
        content: hash of the teacher's local files that is recorded there; see `teacher_content`.
        device: of torch.

    Raises:
        ArtifactError: it names a folder or file whose content is not the recorded one.
        EnvironmentLackingError: it names what was never fetched from the hub here.
    """
    if is_of_hub(config):
        _require_fetched(config)
        with _offline():
            return load_teacher(config, classes, device)
    if is_local(config) and (_is_no_teacher(config) or teacher_content(config) != content):
        raise ArtifactError(
            "the teacher is a folder or file, and what lies there is not what was distilled",
            where=f"teacher {config.name} {config.pretrained}".strip(),
            hint="nothing there was loaded; distill again here with --teacher and that folder",
        )
    return load_teacher(config, classes, device)


def is_local(config: TeacherConfig) -> bool:
    """Whether a teacher is read from a path that its name or weights state."""
    is_folder = config.name.startswith(LOCAL) or Path(config.name).exists()
    return config.name != MINI and (is_folder or Path(config.pretrained).is_file())


def is_of_hub(config: TeacherConfig) -> bool:
    """Whether a teacher's name has a scheme, such as `hf-hub:`, that leads to the network."""
    return ":" in config.name and not config.name.startswith(LOCAL)


def _is_no_teacher(config: TeacherConfig) -> bool:
    folder = Path(config.name.removeprefix(LOCAL))
    if not folder.is_dir():
        return config.name.startswith(LOCAL)  # a name of the table with weights in a file is one
    is_described = (folder / "open_clip_config.json").is_file()
    return not is_described or len(list(islice(folder.rglob("*"), MAX_FILES + 1))) > MAX_FILES


def _require_fetched(config: TeacherConfig) -> None:
    wanted = list(teacher_weights(config))
    lacking = [weights for weights in wanted if weights.path is None]
    if lacking or not wanted:
        raise EnvironmentLackingError(
            f"the teacher {config.name} was never fetched here, and nothing fetches it unasked",
            where="its name is recorded in there",
            hint=how_to_fetch(lacking) if lacking else "distill again with a teacher of your own",
        )


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
