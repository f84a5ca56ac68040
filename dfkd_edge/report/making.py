"""Sections about how the student was made: pictures, prompts, training, conversion, commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dfkd_edge.artifacts import ClassCount, PromptSet, student_weights
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.networks.licences import licences_of
from dfkd_edge.report.blocks import (
    Block,
    Cell,
    Code,
    Facts,
    Figures,
    Missing,
    Notes,
    Section,
    Sheet,
    StyleMap,
    Table,
)
from dfkd_edge.report.commands import (
    calibration_shortage,
    distilling,
    exporting,
    exporting_again,
    run_argument,
)
from dfkd_edge.report.figures import curve_figure, prompt_map, ranges_figure
from dfkd_edge.report.pictures import MAX_CLASSES, MAX_STYLES, contact_sheet, legend
from dfkd_edge.report.sources import BundleSource, RunSource, Sources
from dfkd_edge.report.svg import Point, number_text, percent
from dfkd_edge.results.certainty import certainty_of, gain_text
from dfkd_edge.results.kept import unrecognised_text
from dfkd_edge.runs.run_dir import distill_again, distill_like
from dfkd_edge.runtime.counting import counted, duration_text, first_few

if TYPE_CHECKING:
    from dfkd_edge.drawings.drawn_class import DrawnClass

MAX_WIDEST = 8
MAX_LISTED = 40  # Classes of a table
STYLE_NOTE = (
    "A style is a made-up word, a vector, in the place of the dots in the prompt “a … style of a "
    "{name}”, the same for every class; its name is the nearest entry of a list of media, light "
    "and surfaces, by the teacher's text space: a hint, and what a text-to-image pipeline reads."
)
PLAIN_NOTE = "There is one style, the plain prompt; --prompts contrastive makes more."


def _style_note(prompts: PromptSet) -> str:
    """Say what the styles of a run are, by its first class."""
    note = STYLE_NOTE.format(name=prompts.class_names[0])
    return note if len(prompts.style_labels) > 1 else PLAIN_NOTE


def pictures_section(sources: Sources) -> Section:
    """The surrogate images that the student learned from."""
    run = sources.run
    if run is None or run.surrogates is None or run.prompts is None:
        return Section(
            [Missing("The images lie in the run, which is not here", distilling(sources))]
        )
    from dfkd_edge.drawings.drawn_class import read_drawn_class  # loads torch: only for images

    summary = run.surrogates
    drawn = [read_drawn_class(entry) for entry in summary.classes]
    names, styles = run.prompts.class_names[:MAX_CLASSES], run.prompts.style_labels[:MAX_STYLES]
    rows = contact_sheet(run.path / "surrogates", names, styles)
    num_drawn = sum(entry.num_drawn for entry in summary.classes)
    kept = f"{summary.num_images:,} of {summary.num_candidates:,} synthesized images were kept"
    parts = (kept, f"{num_drawn:,} of them of drawings", unrecognised_text(summary))
    lead = (
        f"{'; '.join(filter(None, parts))}. Images of a class differ by "
        f"{summary.mean_distance_within_class:.3f}, the mean of 1 - cosine between their "
        f"embeddings. One of each class and style (at most {MAX_CLASSES} by {MAX_STYLES}); choose "
        f"one to enlarge it. {legend(rows)}"
    ).rstrip()
    blocks = (
        Sheet(rows, styles, f"{_style_note(run.prompts)} Images of drawings follow no style."),
        Notes("expect less of these classes", class_warnings(summary.classes, drawn)),
        _class_table(summary.classes, drawn),
    )
    return Section(blocks, lead)


def class_warnings(classes: Sequence[ClassCount], drawn: Sequence[DrawnClass]) -> list[str]:
    """Name the classes whose images may not show them."""
    undrawn = [entry.name for entry in classes if not entry.num_drawn]
    others = [f"{each.name} ({each.names()})" for each in drawn if each.is_of_others]
    alike = [f"{each.name} ({each.names()})" for each in drawn if each.num_alike]
    unsure = [entry.name for entry in classes if entry.acceptance < 0.5]
    lines = []
    if undrawn and len(undrawn) < len(classes):
        lines.append(f"no drawing fits {first_few(undrawn)}")
    if others:
        lines.append(f"most drawings are named after something else: {first_few(others)}")
    if alike:
        lines.append(f"for want of drawings, what looks alike stands for: {first_few(alike)}")
    if unsure:
        lines.append(
            "the teacher recognises fewer than half of the candidates of "
            f"{first_few(unsure)}: try a more common English name, a prompt where there is none, "
            "fewer look-alike classes, or --images DIR"
        )
    return lines


def _class_table(classes: Sequence[ClassCount], drawn: Sequence[DrawnClass]) -> Table:
    """Count the images of each class; first come those whose drawings are of something else."""
    pairs = sorted(
        zip(classes, drawn, strict=True), key=lambda p: (not p[1].is_of_others, p[0].acceptance)
    )
    headings = ["class", "images kept", "of drawings", "candidates recognised"]
    has_memory = any(each.named for each in drawn)
    if has_memory:
        headings += ["drawings", "of its name or a synonym", "named in the memory"]
    rows = []
    for entry, each in pairs[:MAX_LISTED]:
        counts = str(entry.num_images), str(entry.num_drawn), percent(entry.acceptance, 0)
        memory = (str(each.num_drawings), str(each.num_own), each.names() or "none")
        rows.append(Cell.row(entry.name, *counts, *(memory if has_memory else ())))
    caption = "least recognised by the teacher first; candidates are counted before the filter"
    return Table(headings, rows, caption)


def prompts_section(sources: Sources) -> Section:
    """Where the prompts lie in the teacher's text space."""
    prompts = sources.run.prompts if sources.run else None
    if prompts is None:
        return Section(
            [Missing("The prompts lie in the run, which is not here", distilling(sources))]
        )
    lead = (
        "Every class in every style, in the teacher's text space: a point is one prompt. Choose a "
        "style to pick it out."
    )
    figures = asdict(prompts.diversity).items()
    facts = Facts([(key.replace("_", " "), number_text(value)) for key, value in figures])
    chosen = StyleMap(prompt_map(prompts), prompts.style_labels, _style_note(prompts))
    return Section([chosen, facts], lead)


def training_section(sources: Sources) -> Section:
    """What the student was trained with, and the curves of metrics.jsonl."""
    run, blocks = sources.run, list[Block]()
    curves = run.curves if run else {}
    figures = [
        curve_figure(f"{stage}: {key.replace('_', ' ')}", points)
        for (stage, key), points in sorted(curves.items(), key=lambda c: c[0][0] != "student")
        if len(points) > 1 and key != "learning_rate"
    ]
    if run and run.config:
        blocks.append(_training_facts(run, run.config))
    missing = Missing("No curve in metrics.jsonl yet", distilling(sources))
    blocks.append(Figures(figures) if figures else missing)
    lead = "What the student learned with, and every metric of every stage by step."
    return Section(blocks, lead)


def _training_facts(run: RunSource, config: PipelineConfig) -> Facts:
    real, weights = run.real, student_weights(run.path / "student")
    joined = "%d pictures of %d classes joined, %d times each"
    counts = (real.num_pictures, real.num_classes, real.num_copies) if real else ()
    return Facts(
        [
            *((each.role, f"{each.model}: {each.terms}") for each in licences_of(config)),
            ("start weights", config.distillation.student_init),
            ("optimiser steps", f"{config.distillation.num_steps:,}"),
            ("weights", str(weights) if weights.is_file() else ""),
            ("real pictures", joined % counts if real else ""),
            ("what they gave", few_shot_gain(run) if real else ""),
        ]
    )


def few_shot_gain(run: RunSource) -> str:
    """Compare the student with that of the same run without real pictures, where it lies here."""
    ours, theirs = run.evaluation, run.zero_shot
    if ours and theirs and gain_text(ours, theirs):
        return f"{gain_text(ours, theirs)}, {certainty_of(ours).images}"
    config = shlex.quote(str(run.path / "config.toml"))
    command = f"dfkd-edge distill --config {config} --set few_shot.images="
    return f"not known: {command} makes the zero-shot student to compare with"


def conversion_section(sources: Sources) -> Section:
    """How each bundle was made, and what the quantized tensors span."""
    blocks = [block for bundle in sources.bundles for block in _bundle_blocks(bundle)]
    ranges = [(each, each.calibration.ranges) for each in sources.bundles if each.calibration]
    blocks += _calibration_blocks(*ranges[0]) if ranges else _no_calibration(sources)
    return Section(blocks, "What export did to the student, and what INT8 was calibrated on.")


def _bundle_blocks(source: BundleSource) -> tuple[Block, ...]:
    record, calibration = source.record, source.calibration
    pairs = (
        ("bundle", str(source.folder)),
        ("precision", f"{source.bundle.precision} for {source.target}"),
        ("calibrated by", f"{calibration.method} on {calibration.images}" if calibration else ""),
        ("repair", source.repair),
        ("export took", duration_text(record.seconds) if record.seconds is not None else ""),
    )
    lines = [f"{found.rule}: {found.node}: {found.message}" for found in record.lint_warnings]
    title = f"{counted(len(lines), 'lint warning')} for {source.target}: these cost speed"
    return Facts(pairs), Notes(title, lines)


def _calibration_blocks(source: BundleSource, ranges: Mapping[str, Point]) -> list[Block]:
    # INT8 has 255 steps for the whole span, whatever it is
    widest = sorted(ranges.items(), key=lambda item: item[1][0] - item[1][1])[:MAX_WIDEST]
    rows = [Cell.row(name, f"{low:.3g}", f"{high:.3g}") for name, (low, high) in widest]
    caption = f"widest ranges for {source.target}: one step of INT8 is largest there"
    table = Table(("tensor", "from", "to"), rows, caption)
    blocks: list[Block] = [Figures([ranges_figure(ranges)]), table]
    if source.float_layers:
        names = [Cell.row(name) for name in source.float_layers]
        blocks.append(Table(("layer left in float",), names, "put back by the repair"))
    return blocks


def _no_calibration(sources: Sources) -> list[Block]:
    """Name what makes an INT8 bundle: an export beside the others, or a run of more images."""
    run, shortage = sources.run, calibration_shortage(sources.run)
    if run and shortage:
        command = f"{distill_like(run.path)} {shortage.more}"
        more = Missing(f"No INT8 calibration: {shortage.what}; a run of more", command)
        return [more, Notes("what helps", (shortage.ways,))]
    beside = ""  # another bundle is not to be replaced
    if sources.bundles:
        beside = f" --output {shlex.quote(f'{sources.bundles[0].folder}-int8')}"
    command = exporting(sources, f"--precision int8{beside}")
    return [Missing("No INT8 calibration yet", command)]


def environment_section(sources: Sources) -> Section:
    """Machine and versions of the measurement that the verdict rests on."""
    if not sources.climbs:
        return Section([Missing("Nothing was measured yet", distilling(sources))])
    facts = sources.climbs[0].ladder.environment.items()
    pairs = [(name.replace("_", " "), value) for name, value in facts]
    return Section([Facts(pairs)], "Where the first ladder of this report was climbed.")


def reproduce_section(sources: Sources) -> Section:
    """The commands that make all this again, and every setting."""
    run = sources.run
    commands = [distill_again(run.path)] if run else []
    commands += [exporting_again(bundle, run_argument(sources)) for bundle in sources.bundles]
    blocks = [Code("commands", "\n".join(commands))]
    if run and run.config:
        blocks.append(Code("config.toml: every setting of distill", to_toml(run.config), True))
    for bundle in sources.bundles:
        text = json.dumps(bundle.record.config, indent=2, ensure_ascii=False)
        blocks.append(Code(f"settings of export for {bundle.target}", text, True))
    return Section(blocks, "Equal settings, seed and versions give an equal student.")
