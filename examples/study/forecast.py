"""What the study will take: a small run of each way of making images, multiplied by counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from arms import ARMS, Arm
from cells import Cell, StudyRequest

from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.estimates.small_run import SmallRun
from dfkd_edge.interfaces import Reporter
from dfkd_edge.preflight import DistillPlan
from dfkd_edge.runtime.counting import counted, duration_text


@dataclasses.dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of an arm under one seed."""

    making_s: float
    learning_s: float
    evaluation_s: float

    @property
    def total_s(self) -> float:
        """Sum them."""
        return self.making_s + self.learning_s + self.evaluation_s


def forecast(
    cells: Sequence[Cell], request: StudyRequest, reporter: Reporter
) -> dict[str, Forecast]:
    """Tell what each arm takes under one seed; a run of few images stands for all of its kind."""
    small: dict[tuple[object, ...], SmallRun] = {}
    found: dict[str, Forecast] = {}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        config = request.config(ARMS[arm], cells[0].seed)
        prompts = dataclasses.replace(config.prompts, method="contrastive")  # the longest
        config = dataclasses.replace(config, data=str(request.data), prompts=prompts)
        key = _kind(config)
        if key not in small:
            with reporter.stage(f"running a small part of '{arm}'", 1) as progress:
                small[key] = SmallRun(_plan(config, request))
                progress.advance()
        told = _told(ARMS[arm], small[key].asked(config))
        if ARMS[arm].paced_by:  # which comes before it in every plan
            told = dataclasses.replace(told, making_s=found[ARMS[arm].in_seconds_of].making_s)
        found[arm] = told
    return found


def _told(arm: Arm, run: SmallRun) -> Forecast:
    evaluation_s = run.evaluation().seconds or 0
    if arm.kind in ("teacher", "start"):
        return Forecast(0, 0, evaluation_s)
    learning_s = run.training().seconds or 0
    if arm.kind != "surrogates":
        return Forecast(0, learning_s, evaluation_s)
    prompts_s = run.prompts().seconds or 0
    return Forecast(prompts_s + (run.surrogates().seconds or 0), learning_s, evaluation_s)


def _kind(config: PipelineConfig) -> tuple[object, ...]:
    """Arms that make images in one way, for which one small run is enough."""
    synthesis = config.synthesis
    has_drawings, has_network = synthesis.exemplar_share > 0, synthesis.training_passes > 0
    way = (synthesis.method, synthesis.decoder, synthesis.image_size_px)
    return (*way, has_drawings, has_network)


def _plan(config: PipelineConfig, request: StudyRequest) -> DistillPlan:
    return DistillPlan(
        config=config,
        reusable=config,
        class_names=read_class_names(request.classes),
        list_read_as="",
        pictures=None,
        key="",
        output=request.output,
        resume=False,
        exist_ok=True,
        tensorboard=False,
    )


def forecast_text(cells: Sequence[Cell], told: dict[str, Forecast]) -> str:
    """Write a line for each arm, under one seed, and the sum over all cells that are not done."""
    width = max(map(len, told))
    lines = [
        f"{arm:<{width}}  images {duration_text(each.making_s)}, "
        f"student {duration_text(each.learning_s)}, "
        f"evaluation {duration_text(each.evaluation_s)}"
        for arm, each in told.items()
    ]
    total_s = math.fsum(told[cell.arm].total_s for cell in cells)
    return "\n".join([*lines, f"{counted(len(cells), 'cell')}: about {duration_text(total_s)}"])
