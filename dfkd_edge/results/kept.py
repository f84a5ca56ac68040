"""Results that are kept in a run or bundle: written, read again, and what they say in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.class_names import slug
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import atomic_write, content_hash, file_hash, read_json
from dfkd_edge.interfaces import Reporter
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runtime import bundle_files
from dfkd_edge.runtime.bundle_files import CHECK_RESULT, LABELLED_CHECK, Bundle
from dfkd_edge.runtime.counting import counted, first_few

if TYPE_CHECKING:
    from dfkd_edge.artifacts import SurrogateSummary

EVALUATION = "evaluation.json"  # The ladder of `distill`, in the run
CHECKS = "checks"  # Folder of a bundle: a file for each folder of labelled pictures; not hashed
WHERE_CHOSEN = "on views to choose by, not the gate's"  # Figures of the repair, beside the gate's


def unrecognised_text(summary: SurrogateSummary) -> str:
    """Say how many kept images the teacher gives another class than asked; empty for none.

    A class that the teacher hardly recognises keeps its likeliest images all the same.
    """
    num = summary.num_unrecognised
    text = f"{num:,} of them unrecognised: the teacher takes them for another class"
    return text if num else ""


def unmade_text(summary: SurrogateSummary) -> str:
    """Name the classes that no candidate shows to the teacher, and what to do; empty for none."""
    unmade = [entry.name for entry in summary.classes if not entry.acceptance]
    text = (
        f"in no image made for it does the teacher see {first_few(unmade)}: give a more common "
        "English name, a description after a tab, or real pictures (--images DIR)"
    )
    return text if unmade else ""


def keep_result(path: Path, document: dict[str, Any], reporter: Reporter) -> None:
    """Keep what was measured in a bundle, for its report; a read-only bundle is no fault."""
    try:
        atomic_write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except EnvironmentLackingError as error:
        reporter.note(f"  not kept: {error}")


def keep_check(folder: Path, ladder: Ladder, reporter: Reporter) -> None:
    """Keep a check in its bundle: the last one on each labelled data set, and the last without.

    One tells of accuracy, the other of every view that `export` showed: neither replaces the other.
    """
    name = f"{CHECKS}/{_data_set(ladder.data)}.json" if ladder.metric == "top1" else CHECK_RESULT
    keep_result(folder / name, ladder.to_json(), reporter)


def _data_set(data: str) -> str:
    """Name a folder of pictures, apart from others of its name."""
    return f"{slug(Path(data).name)}-{content_hash(data)[:8]}"


def read_ladder(path: Path) -> Ladder | None:
    """Read a ladder that lies in a run or bundle; None where there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    hint = "delete it and run the command that wrote it again"
    return Ladder.from_json(read_json(path, hint), path) if path.is_file() else None


def proof_of(bundle: Bundle) -> Ladder:
    """Read the ladder that `export` climbed for a bundle.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    path = bundle.folder / bundle_files.VALIDATION
    return Ladder.from_json(read_json(path), path)


def require_passed(bundle: Bundle) -> None:
    """Stop with exit code 3 when the gate of an export has failed; the bundle is kept.

    Raises:
        GateFailedError: it has.
    """
    gate = proof_of(bundle).gate
    assert gate  # an export is always judged
    gate.require_passed(bundle.folder)


def kept_checks(folder: Path) -> tuple[Ladder, ...]:
    """Read the checks of a bundle as it is now: the labelled ones, newest first, then the other.

    One that names another manifest was of an earlier bundle in the same folder.

    Raises:
        ArtifactError: one is damaged.
    """
    sha256 = file_hash(folder / bundle_files.MANIFEST)
    # earlier versions kept the last one on labelled pictures alone
    paths = [folder / LABELLED_CHECK, *sorted((folder / CHECKS).glob("*.json"))]
    labelled = [ladder for ladder in map(read_ladder, paths) if ladder]
    newest_first = sorted(labelled, key=lambda ladder: ladder.time, reverse=True)
    by_data = {ladder.data: ladder for ladder in reversed(newest_first)}  # the newest stays
    kept = [ladder for ladder in newest_first if by_data[ladder.data] is ladder]
    unlabelled = read_ladder(folder / CHECK_RESULT)
    found = (*kept, *filter(None, [unlabelled]))
    return tuple(one for one in found if one.bundle_sha256 in (None, sha256))


@dataclass(frozen=True, slots=True)
class _Repair:
    num_quantizable: int
    num_graphs: int
    float_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Finetune:
    num_steps: int


@dataclass(frozen=True, slots=True)
class Rescue:
    """What a manifest says of the repair after INT8 missed the gate."""

    repair: _Repair
    finetune: _Finetune | None


@dataclass(frozen=True, slots=True)
class Int8Notes:
    """What a manifest says of the INT8 graph that ships."""

    float_nodes: tuple[str, ...] | None = None  # Layers that the repair put back to float
    finetuned: bool = False


def repair_text(rescue: Rescue | None, notes: Int8Notes) -> str:
    """Say how many layers of the shipped INT8 graph are in float, and why; empty without repair."""
    if not rescue:
        return ""
    repair, num_float = rescue.repair, len(notes.float_nodes or ())
    text = f"{num_float} of {repair.num_quantizable} layers put back to float"
    if not num_float and repair.float_nodes:
        text += ": the fine-tuned student needs none"
    elif not num_float:
        text += f": {why_none(repair.num_graphs)}"
    if not rescue.finetune:
        return text
    steps = counted(rescue.finetune.num_steps, "step")
    if notes.finetuned:
        return f"{text}; fine-tuned for {steps}"
    return f"{text}; a fine-tune of {steps} lost no less {WHERE_CHOSEN}"


def why_none(num_graphs: int) -> str:
    """Say why a repair leaves all layers in INT8."""
    if not num_graphs:
        return "no graph could be made with layers in float"
    if num_graphs == 1:
        return "the one graph tried with layers in float does not lose less"
    return f"none of the {num_graphs} graphs tried with layers in float loses less"
