"""What an export works with: gathered once, handed from step to step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_source import CalibrationSet, calibration_set
from dfkd_edge.conversion.conversion import Conversion, Graphs
from dfkd_edge.conversion.precision import chosen_precision
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import content_hash
from dfkd_edge.networks.recorded_teacher import is_local, load_recorded_teacher
from dfkd_edge.networks.students import Student, load_student
from dfkd_edge.networks.teacher import Teacher, key_of_teacher
from dfkd_edge.preflight import ExportPlan
from dfkd_edge.prompts.vocabulary import read_style_words
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runs.key import teacher_content
from dfkd_edge.runs.run_dir import read_stages
from dfkd_edge.runtime.engine_session import why_no_tensorrt
from dfkd_edge.runtime.preprocess import min_usual_max
from dfkd_edge.runtime.session import SessionRequest
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from dfkd_edge.validation.evaluation_images import EvaluationSet
from dfkd_edge.validation.ladder import Rung, judge
from dfkd_edge.validation.rungs import Proof, engine_rung, evaluation_set, model_rung


@dataclass(frozen=True, slots=True)
class Material:
    """The run, its networks and the images, for one target."""

    run: FinishedRun
    conversion: Conversion  # Target, settings, and where graphs are made
    teacher: Teacher
    student: Student
    evaluation: EvaluationSet  # What every rung is shown
    calibration: CalibrationSet | None  # What INT8 calibrates on; None for another precision
    context: StageContext
    calibrated: frozenset[str] = frozenset()  # Digests of the images that set activation ranges

    @property
    def target(self) -> TargetProfile:
        """What the bundle is for."""
        return self.conversion.target

    @property
    def config(self) -> ExportConfig:
        """Settings of the export."""
        return self.conversion.config

    @property
    def precision(self) -> Precision:
        """The recommended one of the bundle."""
        return chosen_precision(self.target, self.config)

    def shipped(self, graphs: Graphs) -> tuple[ModelFile, ...]:
        """Graphs that go into the bundle: where typing is weak, FP16 is a flag of the builder."""
        is_flag = self.target.typing != "strong"
        return tuple(m for m in graphs.models if m.precision != "fp16" or not is_flag)

    def last_rungs(self, graphs: Graphs) -> tuple[Rung, ...]:
        """The rung of the final graph, and its engine where TensorRT works on this host."""
        side_px, backend = self.student.image_size_px, self.target.backend
        graph = model_rung(graphs.final, side_px, self.config.num_threads, backend)
        return (graph, *self.engine_rungs(graphs))

    def engine_rungs(self, graphs: Graphs) -> tuple[Rung, ...]:
        """The engine of what ships, as `check` builds it; none where this host cannot build it."""
        if self.target.backend != "tensorrt" or why_no_tensorrt():
            return ()
        request = SessionRequest(
            self.shipped(graphs)[-1].path,
            self.precision,
            "tensorrt",
            batch=min_usual_max(self.config.batch),
            use_dla=self.target.use_dla,
        )
        reporter = self.context.reporter
        try:
            return (engine_rung(request, self.student.image_size_px, reporter),)
        except EnvironmentLackingError as error:  # a DLA, or memory: the device has them
            reporter.note(f"  no engine here ({error}): check.pyz builds it on the device")
            return ()


@dataclass(frozen=True, slots=True)
class Proven:
    """Graphs and what was measured on them."""

    graphs: Graphs
    proof: Proof
    repair: dict[str, Any] | None = None
    """What a repair did, for the manifest; None where there was none."""
    warnings: tuple[str, ...] = ()  # What must be read with the ladder, a sentence each
    fitted_to_drawings: bool = False  # Whether a head was, which no training has seen

    def passes(self, max_drop: float) -> bool:
        """Whether the last rung loses little enough."""
        return judge(self.proof.predictions, max_drop).passed


def teacher_of(run: FinishedRun, device: str = "cpu") -> Teacher:
    """Load the teacher of a run; what is local must be what the run's prompts were made with.

    Raises:
        ArtifactError: it is another one by now, or never was here.
        EnvironmentLackingError: its weights are not here.
    """
    config, names = run.config, run.class_names
    content = None
    if is_local(config.teacher) and "prompts" in (stages := read_stages(run.path)):
        is_mix = config.prompts.method == "mix"
        words = read_style_words(config.prompts.style_words) if is_mix else ()
        made_with = (config.prompts, words, key_of_teacher(config.teacher, names))
        if stages["prompts"]["key"] == content_hash("prompts", config.seed, *made_with):
            content = teacher_content(config.teacher)
    return load_recorded_teacher(config.teacher, names, content, device)


def gather(run: FinishedRun, plan: ExportPlan, work: Path, context: StageContext) -> Material:
    """Load networks and images.

    Raises:
        ConfigError: there are too few pictures, or none of any class.
        EnvironmentLackingError: the teacher's weights are not here.
    """
    target, config = plan.target, plan.config.export
    with context.reporter.stage("loading teacher and student", 1) as progress:
        teacher = teacher_of(run, context.device)
        student = load_student(run.student).to(context.device)
        progress.advance()
    sides_px = (teacher.image_size_px, student.image_size_px)
    is_int8 = chosen_precision(target, config) == "int8"
    evaluation = evaluation_set(plan.data, run.class_names.names, sides_px, run.surrogates, context)
    calibration = calibration_set(run, target, config, context) if is_int8 else None
    return Material(
        run,
        Conversion(target, config, context.reporter, work),
        teacher,
        student,
        evaluation,
        calibration,
        context,
        calibration.digests if calibration else frozenset(),
    )
