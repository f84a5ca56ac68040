"""Sections about how the student was made: pictures, prompts, training, calibration, commands."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.drawings.drawn_class import DrawnClass, read_drawn_class
from dfkd_edge.report.blocks import (
    Block,
    Code,
    Facts,
    Figures,
    Missing,
    Section,
    Sheet,
    StyleMap,
    Table,
    text_row,
)
from dfkd_edge.report.figures import curve_figure, prompt_map, ranges_figure
from dfkd_edge.report.ladder_view import (
    calibration_shortage,
    exporting,
    measuring,
    read_ladders,
    run_argument,
)
from dfkd_edge.report.pictures import MAX_CLASSES, MAX_STYLES, contact_sheet
from dfkd_edge.report.sources import BundleSource, Sources
from dfkd_edge.report.svg import number_text, percent
from dfkd_edge.results.kept import stand_ins_text
from dfkd_edge.runs.run_dir import distill_again, distill_like

DISTILL = "dfkd-edge distill --classes classes.txt"
MAX_WIDEST = 8
MAX_DRAWN = 40
"""Classes whose drawings are named."""
STYLE_NOTE = (
    "A style is a made-up word, a vector, in the place of the dots in the prompt “a … style of a "
    "{name}”, the same for every class; its name is the real words nearest to that vector in the "
    "teacher's vocabulary: a hint that need not make sense, or “style 3” where it lists no words."
)
PLAIN_NOTE = "There is one style, the plain prompt; --prompts contrastive makes more."


def _style_note(prompts: PromptSet) -> str:
    """Say what the styles of a run are, by its first class."""
    note = STYLE_NOTE.format(name=prompts.class_names[0])
    return note if len(prompts.style_labels) > 1 else PLAIN_NOTE


def pictures_section(sources: Sources) -> Section:
    """The surrogate images that the student learned from."""
    title, run = "Surrogate images", sources.run
    if run is None or run.surrogates is None or run.prompts is None:
        missing = Missing("The images lie in the run, which is not here", _distill(sources))
        return Section("pictures", title, "", (missing,))
    summary, told = run.surrogates, stand_ins_text(run.surrogates)
    sheet = contact_sheet(
        run.path / "surrogates", run.prompts.class_names, run.prompts.style_labels
    )
    lead = (
        f"{summary.num_images:,} of {summary.num_candidates:,} synthesized images were kept"
        f"{told and f'; {told}'}. "
        f"One of each class and style (at most {MAX_CLASSES} by {MAX_STYLES}); choose one to "
        f"enlarge it. {sheet.legend()}"
    ).rstrip()
    note = f"{_style_note(run.prompts)} Images of drawings follow no style."
    rows = tuple(
        text_row(
            entry.name,
            str(entry.num_images),
            str(entry.num_drawn),
            percent(entry.acceptance, 0),
        )
        for entry in sorted(summary.classes, key=lambda e: e.acceptance)[:12]
    )
    table = Table(
        ("class", "images kept", "of drawings", "candidates recognised"),
        rows,
        "least recognised by the teacher; candidates are counted before the filter",
    )
    blocks: list[Block] = [Sheet(sheet, note), table]
    drawn = [read_drawn_class(entry) for entry in summary.classes]
    if any(each.named for each in drawn):
        blocks.append(_drawings_table(drawn))
    return Section("pictures", title, lead, tuple(blocks))


def _drawings_table(drawn: Sequence[DrawnClass]) -> Table:
    """Name the drawings of each class, first of those whose drawings are of something else."""
    rows = tuple(
        text_row(each.name, str(each.num_drawings), str(each.num_own), each.names() or "none")
        for each in sorted(drawn, key=lambda each: not each.is_of_others)[:MAX_DRAWN]
    )
    headings = ("class", "drawings", "of its name or a synonym", "named in the memory")
    return Table(headings, rows, "what a class's images of drawings show")


def prompts_section(sources: Sources) -> Section:
    """Where the prompts lie in the teacher's text space."""
    title, prompts = "Prompts", sources.run.prompts if sources.run else None
    if prompts is None:
        missing = Missing("The prompts lie in the run, which is not here", _distill(sources))
        return Section("prompts", title, "", (missing,))
    lead = (
        "Every class in every style, in the teacher's text space: a point is one prompt. Choose a "
        "style to pick it out."
    )
    names = {"mean_pairwise_cosine": "mean pairwise cosine", "effective_rank": "effective rank"}
    facts = Facts(
        tuple(
            (names.get(key, key.replace("_", " ")), number_text(value))
            for key, value in dataclasses.asdict(prompts.diversity).items()
        )
    )
    chosen = StyleMap(prompt_map(prompts), prompts.style_labels, _style_note(prompts))
    return Section("prompts", title, lead, (chosen, facts))


def training_section(sources: Sources) -> Section:
    """The curves of metrics.jsonl."""
    metrics = sources.run.metrics if sources.run else []
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in metrics:
        for key, value in row.items():
            if key not in ("stage", "step") and isinstance(value, int | float):
                curves.setdefault((row["stage"], key), []).append((row["step"], value))
    figures = tuple(
        curve_figure(f"{stage}: {key.replace('_', ' ')}", points)
        for (stage, key), points in sorted(curves.items(), key=lambda c: c[0][0] != "student")
        if len(points) > 1 and key != "learning_rate"
    )
    blocks: tuple[Block, ...] = (Figures(figures),)
    if not figures:
        blocks = (Missing("No curve in metrics.jsonl yet", _distill(sources)),)
    return Section("training", "Training", "Every metric of every stage, by step.", blocks)


def calibration_section(sources: Sources) -> Section:
    """What the quantized tensors span."""
    title = "Calibration"
    bundle = next((b for b in sources.bundles if (b.calibration or {}).get("ranges")), None)
    if bundle is None or bundle.calibration is None:
        return Section("calibration", title, "", (_no_calibration(sources),))
    calibration, ranges = bundle.calibration, bundle.calibration["ranges"]
    lead = (
        f"{calibration.get('method', 'unknown method')} on "
        f"{calibration.get('images', 'unknown images')}, for {bundle.manifest.get('target', '')}."
    )
    widest = sorted(ranges.items(), key=lambda item: item[1][0] - item[1][1])[:MAX_WIDEST]
    rows = tuple(text_row(n, f"{low:.3g}", f"{high:.3g}") for n, (low, high) in widest)
    floats = bundle.manifest.get("model_notes", {}).get("int8", {}).get("float_nodes") or ()
    blocks: list[Block] = [
        Figures((ranges_figure(ranges),)),
        Table(("tensor", "from", "to"), rows, "widest ranges: one step of INT8 is largest there"),
    ]
    if floats:
        names = tuple(text_row(str(name)) for name in floats)
        blocks.append(Table(("layer left in float",), names, "put back by the repair"))
    return Section("calibration", title, lead, tuple(blocks))


def _no_calibration(sources: Sources) -> Missing:
    """Name what makes an INT8 bundle: an export beside the others, or a run of more images."""
    run = sources.run
    shortage = calibration_shortage(run) if run else None
    if run and shortage:
        command = f"{distill_like(run.path)} {shortage.more}"
        return Missing(f"No INT8 calibration: {shortage.what}; a run of more", command)
    beside = ""  # another bundle is not to be replaced
    if sources.bundles:
        beside = f" --output {shlex.quote(f'{sources.bundles[0].folder}-int8')}"
    return Missing("No INT8 calibration yet", exporting(sources, f"--precision int8{beside}"))


def environment_section(sources: Sources) -> Section:
    """Machine and versions of the newest measurement."""
    documents = [ladder.document.get("environment") for ladder in read_ladders(sources)]
    facts = next((facts for facts in documents if facts), None)
    if not facts:
        missing = Missing("Not recorded by an older version", measuring(sources, "check"))
        return Section("environment", "Environment", "", (missing,))
    lead = "Where the first ladder of this report was climbed."
    pairs = tuple((str(k).replace("_", " "), str(v)) for k, v in facts.items())
    return Section("environment", "Environment", lead, (Facts(pairs),))


def reproduce_section(sources: Sources) -> Section:
    """The commands that make all this again, and every setting."""
    blocks: list[Block] = []
    run = sources.run
    commands = [distill_again(run.path)] if run else []
    commands += [_export_again(bundle, run_argument(sources)) for bundle in sources.bundles]
    if commands:
        blocks.append(Code("commands", "\n".join(commands)))
    if run and run.config_text:
        blocks.append(Code("config.toml: every setting of distill", run.config_text, True))
    for bundle in sources.bundles:
        settings = bundle.provenance.get("config")
        if settings:
            title = f"settings of export for {bundle.manifest.get('target', '')}"
            blocks.append(Code(title, json.dumps(settings, indent=2, ensure_ascii=False), True))
    if not blocks:
        blocks = [Missing("No settings are recorded here", DISTILL)]
    lead = "Equal settings, seed and versions give an equal student."
    return Section("reproduce", "Reproduce it", lead, tuple(blocks))


def _distill(sources: Sources) -> str:
    return distill_again(sources.run.path) if sources.run else DISTILL


def _export_again(bundle: BundleSource, run: str) -> str:
    settings = bundle.provenance.get("config", {})
    usual = dataclasses.asdict(ExportConfig())
    changed = {k: v for k, v in settings.items() if k in usual and v != _plain(usual[k])}
    target = changed.pop("target", settings.get("target", bundle.manifest.get("target", "")))
    words = ["--target", str(target)]
    for key, value in changed.items():
        words += ["--set", f"export.{key}={json.dumps(value)}"]
    if bundle.provenance.get("data"):
        words += ["--data", str(bundle.provenance["data"])]
    words += ["--output", str(bundle.folder), "--exist-ok"]
    return f"dfkd-edge export {run} {shlex.join(words)}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
