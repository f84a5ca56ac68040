"""What is refused before a heavy library is imported: the requests of the verbs, checked."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.bundles.opening import find_bundle, open_bundle
from dfkd_edge.bundles.signature import load_signer, load_verifier, verify_bundle
from dfkd_edge.class_names import ClassNames, read_class_names, read_given_list, slug
from dfkd_edge.config.file import Settings, load_config, to_toml
from dfkd_edge.config.settings import RUNS, PipelineConfig
from dfkd_edge.config.sizes import sized
from dfkd_edge.conversion.calibration_need import shortage_of
from dfkd_edge.conversion.precision import chosen_precision, refuse_impossible
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash, require_writable
from dfkd_edge.handover.lookup import require_runtimes
from dfkd_edge.networks.names import name_and_tag, require_student, require_teacher
from dfkd_edge.pictures.labelled import require_folder, require_pictures
from dfkd_edge.pictures.real import find_real_pictures, pictures_below
from dfkd_edge.runs.key import content_of, student_content, teacher_content, words_content
from dfkd_edge.runs.lock import WAIT_OR_STOP, refuse_run_in_use
from dfkd_edge.runs.log import require_tensorboard
from dfkd_edge.runs.run_dir import find_run, refuse_other_run, require_stages
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.version import __version__

if TYPE_CHECKING:
    from dfkd_edge.machine.ranks import Ranks
    from dfkd_edge.networks.weights import HubWeights
    from dfkd_edge.pictures.real import RealPictures
    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.target_profiles.profile import TargetProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillRequest:
    """What a user asks of `distill` or `synthesize`."""

    config_path: Path | None = None
    settings: Settings = field(default_factory=dict)  # What replaces those of the file
    output: Path | None = None  # The run directory; None names it after list and settings
    resume: bool = True
    exist_ok: bool = False
    tensorboard: bool = False
    dry_run: bool = False
    is_first: bool = True  # Of several ranks the first one holds the lock, the rest follow


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillPlan:
    """A request that can be met."""

    config: PipelineConfig
    reusable: PipelineConfig  # The same for any list: what this one's length takes is left open
    class_names: ClassNames
    list_read_as: str  # What another tool wrote; empty where the list is as ours
    pictures: RealPictures | None  # Of `--images`
    key: str
    output: Path  # The run directory
    resume: bool
    exist_ok: bool
    tensorboard: bool


def plan_distill(request: DistillRequest) -> DistillPlan:
    """Settle configuration and run directory, and look at all that the run will need.

    Raises:
        UsageError: the request cannot be met.
        EnvironmentLackingError: the run directory cannot be written.
    """
    plan = plan_synthesize(request)
    config, names = plan.config, plan.class_names.names
    require_teacher(config.teacher.name)
    require_student(config.distillation.student)
    if config.baseline:
        require_teacher(name_and_tag(config.baseline)[0], "baseline")
    chosen_precision(load_target(config.export.target), config.export)
    if config.data:
        require_pictures(Path(config.data), names)
    pictures = find_real_pictures(config.few_shot, config.data, names)
    if request.tensorboard:
        require_tensorboard()
    require_writable(plan.output)
    if request.is_first and not request.dry_run:
        refuse_run_in_use(plan.output)
    return replace(plan, pictures=pictures)


def plan_synthesize(request: DistillRequest) -> DistillPlan:
    """Settle configuration and run directory; several processes may work in it at once.

    Raises:
        UsageError: the request cannot be met.
    """
    reusable = load_config(request.config_path, request.settings)
    if not reusable.classes:
        hint = "name a text file, one class a line"
        raise ConfigError("no class list", where="--classes", hint=hint)
    class_names, list_read_as = read_given_list(Path(reusable.classes))
    config = sized(reusable, len(class_names))
    key = run_key(config, class_names)
    output = request.output or RUNS / run_name(config, class_names)
    if not request.exist_ok:
        refuse_other_run(output, key)
    return DistillPlan(
        config=config,
        reusable=reusable,
        class_names=class_names,
        list_read_as=list_read_as,
        pictures=None,
        key=key,
        output=output,
        resume=request.resume,
        exist_ok=request.exist_ok,
        tensorboard=request.tensorboard,
    )


def require_agreement(plan: DistillPlan, ranks: Ranks) -> None:
    """Check that all ranks were asked for the same, before work; the device's number may differ.

    Raises:
        ConfigError: they were not; it names the first setting that differs.
    """
    config = replace(plan.config, device=plan.config.device.partition(":")[0])
    asked = {
        "output": plan.output,
        "resume": plan.resume,
        "exist-ok": plan.exist_ok,
        "tensorboard": plan.tensorboard,
        "version": __version__,
        "classes, weights or pictures behind the settings": plan.key,
    }
    lines = to_toml(config).splitlines() + [f"{name} = {value}" for name, value in asked.items()]
    texts = ranks.gather("\n".join(lines))
    for index, text in enumerate(texts):
        if text != texts[0]:
            pairs = itertools.zip_longest(text.splitlines(), texts[0].splitlines(), fillvalue="")
            theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
            raise ConfigError(
                f"ranks disagree: rank {index} was given '{theirs}', rank 0 '{ours}'",
                where="settings",
                hint="start all ranks with one command line and the same files",
            )


def run_key(config: PipelineConfig, class_names: ClassNames) -> str:
    """Hash every setting, the local files behind them, and the classes rather than their file.

    Where the evaluation pictures lie is left out and what the student is compared with, for neither
    changes the student, and the device: what one GPU began another one, or a CPU, may go on with.
    """
    synthesis = config.synthesis
    return content_hash(
        config.seed,
        (config.teacher, teacher_content(config.teacher)),
        (config.prompts, words_content(config.prompts)),
        (synthesis, SYNTHESIZERS[synthesis.method].content(synthesis)),
        (config.few_shot, content_of(config.few_shot.images)),
        (config.distillation, student_content(config.distillation)),
        class_names,
    )


def needed_weights(config: PipelineConfig) -> list[HubWeights]:
    """List the weights that a run takes from the hub, fetched or not."""
    from dfkd_edge.networks.baseline import baseline_weights
    from dfkd_edge.networks.weights import start_weights, teacher_weights

    synthesis = config.synthesis
    return [
        *teacher_weights(config.teacher),
        *SYNTHESIZERS[synthesis.method].weights(synthesis),
        *start_weights(config.distillation),
        *baseline_weights(config),
    ]


def run_name(config: PipelineConfig, class_names: ClassNames) -> str:
    """Name the folder of a run: its list, and the start of the hash of its settings."""
    return f"{slug(Path(config.classes).stem)}-{run_key(config, class_names)[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """What a user asks of `export`."""

    run: Path
    settings: Settings = field(default_factory=dict)  # Below `export`; others stay the run's
    data: str = ""  # Labelled pictures for the ladder; empty takes the built-in suite
    output: Path | None = None  # The bundle; None puts it into the run
    exist_ok: bool = False
    dry_run: bool = False
    device: str = ""  # Torch device; empty takes the run's where it is here, else the CPU
    sign: Path | None = None  # Private key that signs the bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportPlan:
    """A request that can be met."""

    run: Path
    config: PipelineConfig
    target: TargetProfile
    folder: Path  # The bundle itself
    data: str  # Labelled pictures for the ladder; empty takes the built-in suite
    exist_ok: bool  # Whether another bundle there may be replaced
    device: str = ""  # Torch device; empty takes the run's where it is here, else the CPU
    sign: Path | None = None  # Private key that signs the bundle


def plan_export(request: ExportRequest) -> ExportPlan:
    """Settle configuration, target and folder.

    What is wrong with every run is refused before this one is looked for.

    Raises:
        UsageError: the request cannot be met.
        RunDirError: another bundle is there, or another process works in the run.
        EnvironmentLackingError: the bundle cannot be written.
    """
    _settled(None, request.settings)  # a wrong flag is told of before a wrong run
    if request.sign:
        load_signer(request.sign)  # a key that cannot sign is told of before the work
    if request.data:
        require_folder(Path(request.data))
    if request.output:
        _require_free(request.output)
    run = find_run(request.run)  # a real path: runs/latest may point elsewhere in an hour
    if not request.dry_run:
        refuse_run_in_use(run, WAIT_OR_STOP)
    require_stages(run, {"surrogates", "student"})
    config, target = _settled(run / "config.toml", request.settings)
    refuse_impossible(target, config.export)
    shortage = shortage_of(run, config.export)
    if shortage:
        raise shortage.error()
    names = read_class_names(run / "classes.txt").names
    require_runtimes(config.export.runtimes, target, batch=config.export.batch, classes=names)
    if request.data:
        require_pictures(Path(request.data), names)
    # numpy, which the refusals above do not wait for
    from dfkd_edge.bundles.replacement import refuse_other_bundle, refuse_place_in_other_run

    folder = request.output or run / "bundles" / target.name
    refuse_place_in_other_run(folder, run)
    if not request.output:
        _require_free(folder)
    if not request.exist_ok:
        refuse_other_bundle(folder, run, config, request.data)
    return ExportPlan(
        run=run,
        config=config,
        target=target,
        folder=folder,
        data=request.data,
        exist_ok=request.exist_ok,
        device=request.device,
        sign=request.sign,
    )


def _require_free(folder: Path) -> None:
    from dfkd_edge.bundles.bundle import refuse_foreign

    refuse_foreign(folder)
    require_writable(folder)


def plan_check(path: Path, data: str, public_key: Path | None = None) -> Bundle:
    """Find and verify the bundle that is to be measured.

    Args:
        path: a bundle, or a run with one.
        data: labelled pictures to measure on; may be empty.
        public_key: of whom the bundle must be; None asks for no signature.

    Raises:
        UsageError: no bundle, no picture of its classes, or no key.
        ArtifactError: the bundle is damaged, or not signed with that key.
    """
    verifier = load_verifier(public_key) if public_key else None
    bundle = open_bundle(find_bundle(path))
    if verifier:
        verify_bundle(bundle, verifier)
    if data:
        require_pictures(Path(data), bundle.classes)
    return bundle


def _settled(path: Path | None, settings: Settings) -> tuple[PipelineConfig, TargetProfile]:
    """Lay the settings of this export over the run's; what made the student cannot be changed.

    Without the config.toml of a run, what this export names is judged by itself.
    """
    foreign = settings.keys() - {"export"}
    if foreign:
        raise ConfigError(
            f"'{min(foreign)}' is no setting of export",
            where="--set",
            hint="settings of export start with export., such as export.percentile=99.9",
        )
    config = load_config(path, settings)
    target = load_target(config.export.target)
    chosen_precision(target, config.export)
    require_runtimes(config.export.runtimes, target, batch=config.export.batch)
    if config.export.calibration_data:
        pictures_below(Path(config.export.calibration_data))
    return config, target
