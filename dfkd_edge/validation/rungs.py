"""The proof of a bundle: its rungs, run on the same images, and what the gate says of them.

`export` proves what it has just converted, `check` proves what lies in a bundle: one code. Where a
bundle holds the FP32 graph alone, since its TensorRT takes FP16 as a flag, what FP16 costs is
measured on the host all the same, on that graph, cast: its rung is no file of the bundle.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfkd_edge.artifacts import ModelFile, SurrogateSet
from dfkd_edge.conversion.teacher_graph import write_quickly, write_teacher
from dfkd_edge.errors import EnvironmentLackingError, faults_as_errors
from dfkd_edge.files import scratch_folder
from dfkd_edge.interfaces import GraphRunner, Reporter, Runner
from dfkd_edge.networks.runners import SessionRunner, TorchRunner
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.pictures.labelled import note_strangers, note_unreadable
from dfkd_edge.plugins import load_exporter
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.results.ladder import STUDENT, TEACHER, Ladder
from dfkd_edge.results.wording import UNITS, shown_text
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import graph_notes, time_caveats
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.engine_session import open_engine, why_no_tensorrt
from dfkd_edge.runtime.session import SessionRequest
from dfkd_edge.runtime.timing import Latency, TimingRequest, measure
from dfkd_edge.validation.evaluation_images import EvaluationSet, labelled_pictures, surrogate_suite
from dfkd_edge.validation.ladder import Rung, climb, judge, summarise
from dfkd_edge.validation.predictions import Predictions

LATENCY = TimingRequest(warmup_ms=50, duration_s=0.4, percentiles=(50.0,))
"""Short: the ladder compares rungs, `benchmark` measures."""
BYTES_PER_FLOAT = 4  # Of weights in FP32, as torch holds them
ENGINE = "engine"
FP16_MEASURED = (
    "the bundle holds the FP32 graph, and the engine that TensorRT builds from it on the device "
    "computes in FP16; onnx-fp16 is that graph, cast here to measure what FP16 costs: its size is "
    "that of the file in the bundle, and its time comes from the device"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """A ladder that was climbed."""

    rungs: tuple[Rung, ...]
    predictions: Predictions
    evaluation: EvaluationSet

    @property
    def measured_again(self) -> list[str]:
        """Domains that were shown more images."""
        shown = Counter(source.name for source in self.evaluation.sources)
        return [name for name, times in shown.items() if times > 1]

    @property
    def images(self) -> str:
        """What was shown, and the domains that were shown more of it, in words."""
        text, unit = self.evaluation.description, UNITS[self.evaluation.metric]
        for name in self.measured_again:
            picture_N = self.predictions.domains[name].pictures
            again = shown_text(len(picture_N), len(np.unique(picture_N)), unit)
            text += f"; {name}, measured again: {again}"
        return text

    def ladder(
        self,
        class_names: Sequence[str],
        max_drop: float,
        confidence: FittedConfidence | None = None,
        notes: Sequence[str] = (),
    ) -> Ladder:
        """Sum up ladder and gate; what `check --json` prints."""
        temperature = confidence.temperature if confidence else None
        return replace(
            summarise(class_names, self.rungs, self.predictions, temperature),
            notes=tuple(notes),
            images=self.images,
            measured_again=tuple(self.measured_again),
            gate=judge(self.predictions, max_drop),
            confidence=confidence,
        )


def open_runner(model: ModelFile, num_threads: int, for_answers: bool = True) -> GraphRunner:
    """Open a converted model on this host, for its answers or to be timed."""
    return load_exporter("runner")(model, num_threads, for_answers)


def one_image_latency(runner: Runner, side_px: int) -> Latency:
    """Time one image on this host."""
    image_NHWC = np.full((1, side_px, side_px, 3), 127, np.uint8)  # its pixels cost no time
    return measure(lambda: runner(image_NHWC), 1, LATENCY)


def timed_rung(name: str, runner: Runner, side_px: int, size_bytes: int) -> Rung:
    """Make a rung with its median latency here."""
    latency = one_image_latency(runner, side_px)
    p50_ms = latency.percentile_ms["p50"]
    return Rung(name, runner, side_px, size_bytes, p50_ms, tuple(latency.unsteadiness))


def model_rung(model: ModelFile, side_px: int, num_threads: int, backend: str) -> Rung:
    """Open one converted model as a rung, with its size and its latency; 0 threads are all cores.

    INT8 that this CPU can only compute in float has no latency: it would say nothing of INT8.
    """
    timed = runner = open_runner(model, num_threads)
    if runner.computes_in_float:
        timed = open_runner(model, num_threads, for_answers=False)  # the kernels of this CPU
    in_float = timed.computes_in_float
    caveats = tuple(time_caveats(model.precision, "onnxruntime", backend, in_float))
    name = f"onnx-{model.precision}"
    if in_float:
        return Rung(name, runner, side_px, model.size_bytes, latency_caveats=caveats)
    rung = timed_rung(name, timed, side_px, model.size_bytes)
    return replace(rung, runner=runner, latency_caveats=(*caveats, *rung.latency_caveats))


def engine_rungs(bundle: Bundle, reporter: Reporter) -> tuple[Rung, ...]:
    """The last rung where TensorRT works; none elsewhere, and that is said.

    Raises:
        ArtifactError: TensorRT cannot build the graph.
    """
    if bundle.manifest.backend != "tensorrt":
        return ()
    if lacking := why_no_tensorrt():
        told = f"no engine here ({lacking.what}): check.pyz builds and proves it on the device"
        reporter.note(f"  {told}")
        return ()
    path, use_dla = bundle.model_path(bundle.precision), bundle.manifest.use_dla
    request = SessionRequest(path, bundle.precision, batch=bundle.batch, use_dla=use_dla)
    return (engine_rung(request, bundle.side_px, reporter),)


def engine_rung(request: SessionRequest, side_px: int, reporter: Reporter) -> Rung:
    """Build the engine on this machine, which has TensorRT, or take it from the cache.

    Raises:
        ArtifactError: TensorRT refuses the graph.
        EnvironmentLackingError: there is too little memory, or no DLA.
    """
    with faults_as_errors(), reporter.stage("opening the engine", 1) as progress:
        session = open_engine(request, reporter.note)
        runner = SessionRunner(ENGINE, session)
        rung = timed_rung(ENGINE, runner, side_px, session.size_bytes)
        progress.advance()
    return rung


def graph_latency(network: Teacher | Student, num_threads: int) -> Latency | None:
    """Time a network as a student is run; None where it cannot be traced, opened or run so.

    The time is for the report alone: no graph may stop a proof.

    Raises:
        EnvironmentLackingError: there is no place for the graph.
    """
    try:
        with scratch_folder() as folder:
            if isinstance(network, Teacher):
                graph = write_teacher(network, folder)
            else:
                graph = write_quickly(network, folder)
            runner = open_runner(graph, num_threads, for_answers=False)
            return one_image_latency(runner, network.image_size_px)
    except (EnvironmentLackingError, OSError):
        raise  # a full disk is told: on a second call the time would still be missing
    except Exception:  # errors of torch's tracer and of onnxruntime share no base class
        return None


def build_rungs(
    teacher: Teacher,
    student: Student,
    models: Sequence[ModelFile],
    num_threads: int,
    backend: str,
) -> tuple[Rung, ...]:
    """Teacher, student, then every converted model in the order of conversion.

    `num_threads` is that of the graphs, 0 takes all cores; `backend` that of their target.
    """
    runner, side_px = TorchRunner(TEACHER, teacher), student.image_size_px
    num_bytes = BYTES_PER_FLOAT * teacher.num_image_parameters  # its text tower is not needed
    first = timed_rung(TEACHER, runner, teacher.image_size_px, num_bytes)
    num_bytes = BYTES_PER_FLOAT * student.num_parameters
    second = timed_rung(STUDENT, TorchRunner(STUDENT, student), side_px, num_bytes)
    if latency := graph_latency(teacher, num_threads):
        p50_ms, caveats = latency.percentile_ms["p50"], tuple(latency.unsteadiness)
        first = replace(first, onnx_latency_ms=p50_ms, onnx_latency_caveats=caveats)
    graphs = (model_rung(model, side_px, num_threads, backend) for model in models)
    return (first, second, *graphs)


def as_in_bundle(rungs: tuple[Rung, ...], held: Collection[str]) -> tuple[Rung, ...]:
    """Give the rung of a cast the size of the FP32 file, and no time: no such file is run."""
    fp32 = next(rung for rung in rungs if rung.name == "onnx-fp32")
    return tuple(
        replace(rung, size_bytes=fp32.size_bytes, latency_ms=None, latency_caveats=())
        if rung.name == "onnx-fp16" and "fp16" not in held
        else rung
        for rung in rungs
    )


def ladder_notes_of(precision: str, held: Collection[str]) -> list[str]:
    """Say at a ladder that its FP16 rung is no file of the bundle, where that is so."""
    return [FP16_MEASURED] if graph_notes(precision, held) else []


def evaluation_set(
    data: str,
    class_names: tuple[str, ...],
    sides_px: tuple[int, ...],
    surrogates: SurrogateSet | None,
    context: StageContext,
) -> EvaluationSet:
    """Labelled pictures where there are some, else the built-in suite on the surrogates.

    Raises:
        ConfigError: `data` holds no picture of any class, or nothing was held out.
    """
    if not data:
        assert surrogates is not None
        with context.reporter.stage("making the corruption suite", 1) as progress:
            suite = surrogate_suite(surrogates, context.seed)
            progress.advance()
        return suite
    pictures = labelled_pictures(Path(data), class_names, sides_px)
    note_strangers(Path(data), class_names, context.reporter)
    return pictures


def prove(
    rungs: tuple[Rung, ...],
    evaluation: EvaluationSet,
    calibrated: frozenset[str],
    max_drop: float,
    reporter: Reporter,
) -> Proof:
    """Climb the ladder; domains over the limit but within noise are shown more images, once.

    Their number is fixed beforehand and the gate judges all images together: looking again and
    again until a graph passes would let every graph pass.

    Raises:
        ConfigError: calibration and evaluation share pictures, or a domain cannot be read.
    """
    if max_drop >= 1:
        reporter.note("  the gate is off: no loss exceeds a --max-drop of 1, which is 100 points")
    with reporter.stage("climbing the conversion ladder", evaluation.num_images) as progress:
        predictions = climb(rungs, evaluation, calibrated, progress)
    note_unreadable(predictions.unreadable, reporter)
    with reporter.stage("comparing the rungs", 1) as progress:
        more = _more_if_unclear(predictions, rungs[-1].name, evaluation, max_drop)
        progress.advance()
    if more is None:
        return Proof(rungs, predictions, evaluation)
    names, views = ", ".join(s.name for s in more.sources), counted(more.num_images, "more view")
    reporter.note(f"  over the limit, but within noise: {names}; the gate takes {views}")
    with reporter.stage("climbing again", more.num_images) as progress:
        predictions = predictions.extended(climb(rungs, more, calibrated, progress))
    return Proof(rungs, predictions, evaluation.joined(more))


def _more_if_unclear(
    predictions: Predictions, last: str, evaluation: EvaluationSet, max_drop: float
) -> EvaluationSet | None:
    """More images of the domains whose loss is over the limit but may be chance, if there are."""
    lost = {d: predictions.drop(STUDENT, last, d) for d in predictions.judged}
    unclear = [d for d, loss in lost.items() if loss.drop.mean > max_drop and loss.is_within_noise]
    return evaluation.more().only(unclear) if unclear and evaluation.more else None
