"""The small CLIP that a student is compared with: run as it is, it needs no training at all."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import open_clip

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, PipelineConfig, TeacherConfig
from dfkd_edge.errors import ConfigError, DfkdEdgeError
from dfkd_edge.networks.names import name_and_tag, require_teacher
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.networks.weights import HubWeights, teacher_weights


def baseline_config(text: str, templates: tuple[str, ...]) -> TeacherConfig:
    """Read `--baseline`; its zero-shot head has the teacher's templates.

    Raises:
        ConfigError: unknown name or tag, or a name with several weights and no tag.
    """
    name, tag = name_and_tag(text)
    if name == MINI or ":" in name or Path(name).is_dir():
        return TeacherConfig(name=name, templates=templates)
    require_teacher(name, "baseline")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tag and len(tags) == 1:
        return TeacherConfig(name=name, pretrained=tags[0], templates=templates)
    if tag not in tags:
        fault = f"no weights '{tag}' for {name}" if tag else f"{name} has several weights"
        hint = f"name one as {name}:TAG, of: {', '.join(tags)}" if tags else "name a local folder"
        raise ConfigError(
            fault if tags else f"{name} has no weights", where="--baseline", hint=hint
        )
    return TeacherConfig(name=name, pretrained=tag, templates=templates)


def baseline_weights(config: PipelineConfig) -> Iterator[HubWeights]:
    """Yield what a run's baseline takes from the hub."""
    if config.baseline:
        for weights in teacher_weights(baseline_config(config.baseline, config.teacher.templates)):
            yield replace(weights, what=weights.what.replace("teacher", "baseline", 1))


def load_baseline(
    text: str, templates: tuple[str, ...], classes: ClassNames, device: str = "cpu"
) -> Teacher:
    """Load a baseline with the zero-shot head of a class list.

    Raises:
        ConfigError: unknown name or tag.
        EnvironmentLackingError: the weights, or a library they need, are not here.
    """
    config = baseline_config(text, templates)
    try:
        return load_teacher(config, classes, device)
    except DfkdEdgeError as error:
        what = error.what.replace("teacher", "baseline", 1)
        hint = error.hint.rpartition(";")[0] or error.hint  # a teacher's way out is none here
        raise type(error)(what, where=f"--baseline {text}", hint=hint) from error
