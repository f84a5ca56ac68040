"""What the page says first: what came out, how sure that is, and what fails."""

from dfkd_edge.artifacts import StudentSettings
from dfkd_edge.report.accuracy import NOTES_PLACE
from dfkd_edge.report.blocks import Tile, VerdictView
from dfkd_edge.report.commands import exporting
from dfkd_edge.report.sources import Climb, Sources
from dfkd_edge.report.speed import device_tiles, host_tiles
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.certainty import certainty_of, whole_text
from dfkd_edge.results.class_answers import weak_classes_sentence
from dfkd_edge.results.ladder import TEACHER, Ladder
from dfkd_edge.results.wording import points_text

MIB = 1 << 20


def verdict(sources: Sources) -> VerdictView:
    """Sum up a run or bundle by the ladder that tells most."""
    settings = sources.student
    if settings is None:
        tile = Tile("Classes", str(len(sources.classes)), "no student yet")
        sentence = "The run has no finished student."
        return VerdictView("open", "Not distilled yet", sentence, (tile,))
    num = f"{settings.num_parameters / 1e6:.2f} M parameters"
    student = Tile("Student", settings.timm_name, num)
    if not sources.climbs:
        return VerdictView("open", "Not measured yet", "No ladder was climbed.", (student,))
    climb, ladder = sources.climbs[0], sources.climbs[0].ladder
    decision = ("open", "Distilled, not exported", f"Next: {exporting(sources)}")
    gate_tile = Tile("Gate", NOTHING, "not exported")
    if gate := ladder.gate:
        headline, word = gate.headline(climb.target), "off" if gate.is_off else gate.word.lower()
        decision = (gate.state, headline[:1].upper() + headline[1:], gate.sentence())
        gate_tile = Tile("Gate", word, f"limit {points_text(gate.max_drop)}")
    tiles = [student, _size_tile(ladder, settings), *host_tiles(ladder), *device_tiles(sources)]
    tiles += [_accuracy_tile(ladder), gate_tile]
    return VerdictView(
        *decision,
        tiles,
        certainty=" ".join(map(_measured_sentence, sources.leading)),
        weak_classes=weak_classes_sentence(ladder),
        is_doubtful=certainty_of(ladder).is_too_wide,
    )


def _measured_sentence(climb: Climb) -> str:
    ladder = climb.ladder
    place = "".join(f", {part}" for part in (ladder.data, ladder.time[:10]) if part)
    figure = f"{certainty_of(ladder).sentence()}{whole_text(ladder)}"
    return f"Measured by {climb.command}{place}: {figure}."


def _size_tile(ladder: Ladder, student: StudentSettings) -> Tile:
    """Compare files where both have one, else the weights in FP32."""
    size, teacher_size = ladder.shipped.size_bytes, ladder.rung(TEACHER).size_bytes
    if not (size and teacher_size):
        # four bytes of FP32 each
        size, teacher_size = 4 * student.num_parameters, 4 * student.teacher_num_parameters
    ratio = f"{teacher_size / size:.1f} times smaller"
    note = f"{ratio} than the teacher's {teacher_size / MIB:.1f} MiB"
    return Tile("Size", f"{size / MIB:.2f} MiB", note + f"; {NOTES_PLACE}" * bool(ladder.notes))


def _accuracy_tile(ladder: Ladder) -> Tile:
    share, teacher = ladder.mean(ladder.shipped), ladder.mean(ladder.rung(TEACHER))
    measured = certainty_of(ladder)
    span = f"({100 * measured.low:.1f} to {100 * measured.high:.1f})"
    if ladder.metric == "agreement":
        note = f"{span} same answer as the teacher, {measured.images}{whole_text(ladder)}"
        return Tile("Agreement", percent(share), note)
    note = f"top-1 {percent(share)} {span} against the teacher's {percent(teacher)}, "
    note += f"mean over domains, {measured.images}"
    return Tile("Retention", percent(share / teacher if teacher else None), note)
