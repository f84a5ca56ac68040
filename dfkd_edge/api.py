"""The Python API: `import dfkd_edge`, with the verbs and flags of the command line.

```python
import dfkd_edge

result = dfkd_edge.distill("classes.txt", steps=2000, synthesis={"num_images": 20_000})
bundle = dfkd_edge.export(result.run_dir, target="jetson")
answers = dfkd_edge.predict(bundle.folder, ["photo.jpg"])
```

Every function does what the command of its name does and returns what the command prints; a flag
`--num-styles` is the argument `num_styles`. `report` is called `write_report`, because
`dfkd_edge.report` is a package. Errors are those of `dfkd_edge.errors`.
"""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from dfkd_edge import pipeline
from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.bundles.opening import find_bundle
from dfkd_edge.bundles.opening import open_bundle as _open_bundle
from dfkd_edge.bundles.predict import PredictRequest, classify_pictures
from dfkd_edge.class_lint.lint import lint_classes as _lint_classes
from dfkd_edge.class_names import read_given_list
from dfkd_edge.config.file import settings_of
from dfkd_edge.config.settings import LATEST, TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.deployment.swap_plan import SwapRequest, plan_swap
from dfkd_edge.errors import DfkdEdgeError as DfkdEdgeError
from dfkd_edge.errors import GateFailedError as GateFailedError
from dfkd_edge.machine.process import check_device
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.students import load_student as _load_student
from dfkd_edge.preflight import DistillRequest, ExportRequest, plan_check, plan_distill, plan_export
from dfkd_edge.report import write_report as write_report
from dfkd_edge.report.page import refresh_report
from dfkd_edge.results.codec import to_json
from dfkd_edge.results.kept import require_passed
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.preprocess import read_picture as read_picture
from dfkd_edge.runtime.timing import TimingRequest
from dfkd_edge.target_profiles.lookup import list_targets as list_targets
from dfkd_edge.target_profiles.lookup import load_target as load_target
from dfkd_edge.validation.benchmark import benchmark_bundle

AnyPath = str | PathLike[str]


def distill(
    classes: AnyPath = "",
    *,
    config: AnyPath | None = None,
    output: AnyPath | None = None,
    resume: bool = True,
    exist_ok: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    **settings: object,
) -> pipeline.DistillResult:
    """Turn class names into a student; the same call resumes a stopped run.

    Args:
        classes: the class list, one name a line; may be left out when `config` names one.
        config: TOML file with any of the settings.
        output: the run directory; `runs/LIST-HASH` by default.
        resume: go on with what is done; False starts over.
        exist_ok: redo what differs in another run's directory.
        quiet: show no progress.
        tensorboard: mirror the metrics to `RUN/tensorboard` as they come.
        settings: flags of the command such as `steps=2000`, `data="pictures"`, `preset="clip-b32"`,
            or sections such as `synthesis={"num_images": 300}`.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    request = DistillRequest(
        config_path=_path(config),
        settings=settings_of(flags={"classes": classes or None, **settings}),
        output=_path(output),
        resume=resume,
        exist_ok=exist_ok,
        tensorboard=tensorboard,
    )
    plan = plan_distill(request)
    check_device(plan.config.device)
    reporter = ConsoleReporter(make_console(quiet))
    result = pipeline.distill(plan, reporter)
    refresh_report(plan.output, reporter)
    return result


def export(
    run: AnyPath = LATEST,
    *,
    data: AnyPath = "",
    output: AnyPath | None = None,
    exist_ok: bool = False,
    device: str = "",
    sign: AnyPath | None = None,
    quiet: bool = False,
    **settings: object,
) -> Bundle:
    """Turn the student of a run into a bundle: convert, measure every conversion, gate.

    Args:
        run: the run directory.
        data: labelled pictures to measure on.
        output: the bundle; `RUN/bundles/TARGET` by default.
        exist_ok: replace another bundle there.
        device: torch device of teacher, student and fine-tune; empty takes that of the run where
            it is here, else the CPU.
        sign: private key to sign the bundle with.
        quiet: show no progress.
        settings: flags of the command or fields of `[export]`, such as `target="jetson"`,
            `max_drop=0.02`, `percentile=99.9`.

    Raises:
        GateFailedError: a conversion lost more than `max_drop`; the bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    request = ExportRequest(
        run=Path(run),
        settings=settings_of(flags=settings, section="export."),
        data=str(data),
        output=_path(output),
        exist_ok=exist_ok,
        device=device,
        sign=_path(sign),
    )
    reporter = ConsoleReporter(make_console(quiet))
    bundle = pipeline.export(plan_export(request), reporter)
    refresh_report(bundle.folder, reporter)
    require_passed(bundle)
    return bundle


def swap_classes(
    bundle: AnyPath,
    classes: AnyPath,
    *,
    output: AnyPath | None = None,
    max_drop: float | None = None,
    drawings: bool = True,
    exist_ok: bool = False,
    sign: AnyPath | None = None,
    quiet: bool = False,
) -> Bundle:
    """Give a finished bundle other classes without training; the one that is named stays.

    Args:
        bundle: a bundle, or a run with one.
        classes: the new list.
        output: the new bundle; `RUN/swapped/TARGET-LIST` by default.
        max_drop: largest loss on the worst domain; None takes the bundle's own.
        drawings: fit the head to drawings of new names; False leaves it to the text alone.
        exist_ok: replace another bundle there.
        sign: private key to sign the new bundle with.
        quiet: show no progress.

    Raises:
        GateFailedError: a graph lost more than `max_drop`; the new bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    request = SwapRequest(
        Path(bundle),
        Path(classes),
        output=_path(output),
        max_drop=max_drop,
        exist_ok=exist_ok,
        with_drawings=drawings,
        sign=_path(sign),
    )
    reporter = ConsoleReporter(make_console(quiet))
    made = pipeline.swap(plan_swap(request), reporter)
    refresh_report(made.folder, reporter)
    require_passed(made)
    return made


def check(
    bundle: AnyPath = LATEST,
    *,
    data: AnyPath = "",
    max_drop: float | None = None,
    verify: AnyPath | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> dict[str, Any]:
    """Climb the conversion ladder on a bundle again.

    Args:
        bundle: a bundle, or a run with one.
        data: labelled pictures to measure on.
        max_drop: largest loss on the worst domain; None takes the bundle's own.
        verify: public key of whom the bundle must be signed by.
        device: torch device of teacher and student; graphs are run on the CPU.
        quiet: show no progress.

    Returns:
        The document of `check --json`; `["gate"]["passed"]` is the verdict.

    Raises:
        DfkdEdgeError: any error of the tree but that of the gate.
    """
    opened = plan_check(Path(bundle), str(data), _path(verify))
    reporter = ConsoleReporter(make_console(quiet))
    ladder = pipeline.check(opened, str(data), max_drop, reporter, device)
    return {**ladder.to_json(), "report": refresh_report(opened.folder, reporter)}


def benchmark(
    bundle: AnyPath,
    *,
    precision: str | None = None,
    warmup: float = 200.0,
    duration: float = 3.0,
    threads: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure latency, throughput, memory and size of every model of a bundle on this machine.

    Args:
        bundle: a bundle, or a run with one.
        precision: `fp32`, `fp16` or `int8` alone.
        warmup: milliseconds before timing.
        duration: seconds of timing.
        threads: of the CPU; 0 takes all cores.
        device: `cpu`, or `cuda` with onnxruntime-gpu.

    Returns:
        The document of `benchmark --json`.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    opened = _open_bundle(find_bundle(Path(bundle)))
    request = TimingRequest(warmup, duration)
    reporter = ConsoleReporter(make_console(quiet=True))
    return to_json(benchmark_bundle(opened, precision, request, threads, device, reporter))


def predict(
    bundle: AnyPath,
    images: Sequence[AnyPath],
    *,
    top: int = 3,
    precision: str | None = None,
    threads: int = 0,
    device: str = "cpu",
    reject_threshold: float | None = None,
) -> dict[str, Any]:
    """Classify pictures, folders of them and videos with a bundle.

    Args:
        bundle: a bundle, or a run with one.
        images: pictures, folders of them, or videos.
        top: classes to name for each.
        precision: `fp32`, `fp16` or `int8`; None takes the recommended one.
        threads: of the CPU; 0 takes all cores.
        device: `cpu`, or `cuda` with onnxruntime-gpu.
        reject_threshold: score below which a label is "unknown"; None takes the bundle's own.

    Returns:
        The document of `predict --json`: `["pictures"]` with `file`, `label` and `top`, where a
        label may be "unknown", `["reject_threshold"]`, the score below which it is, and
        `["skipped"]` with what could not be read. The rows of a video have `frame` and `time_s`.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    request = PredictRequest(
        images=[fspath(image) for image in images],
        top=top,
        precision=precision,
        num_threads=threads,
        device=device,
        reject_threshold=reject_threshold,
    )
    return classify_pictures(Path(bundle), request)


def lint_classes(
    classes: AnyPath, *, teacher: str = "mini", pretrained: str = "", quiet: bool = False
) -> dict[str, Any]:
    """Tell what the teacher will mix up or misread in a class list, and suggest prompts.

    Returns:
        The document of `classes lint --json`.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    names, read_as = read_given_list(Path(classes))
    reporter = ConsoleReporter(make_console(quiet))
    config = TeacherConfig(name=teacher, pretrained=pretrained)
    return _lint_classes(names, config, reporter, holds_prompts=not read_as).to_json()


def load_student(run: AnyPath = LATEST) -> Student:
    """Load the student of a run or bundle: a torch module, RGB images [N, 3, H, W] to logits.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return _load_student(StudentArtifact.load(Path(run) / "student"))


def open_bundle(bundle: AnyPath) -> Bundle:
    """Open a bundle, or the only one of a run, and compare every file with its hash.

    Raises:
        UsageError: there is none, or there are several.
        ArtifactError: a file is missing or changed.
    """
    return _open_bundle(find_bundle(Path(bundle)))


def _path(path: AnyPath | None) -> Path | None:
    return Path(path) if path is not None else None
