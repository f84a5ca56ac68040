"""What the student gains over running a small CLIP as it is: the first table of a page."""

from dfkd_edge.report.blocks import Cell, Notes, Table
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.ladder import STUDENT, Baseline, DomainFigures, Ladder
from dfkd_edge.results.wording import METRICS, Metric, times_text

MIB = 1 << 20
BIASED = (
    "agreement with the teacher is what the student learnt, and no accuracy: it flatters the "
    "student beside any other CLIP; --data DIR tells which of the two is right more often"
)


def gain_blocks(ladder: Ladder) -> list[Table | Notes]:
    """Show accuracy, size and time of baseline and student; nothing without a baseline."""
    if not (found := ladder.baseline):
        return []
    student, metric = ladder.rung(STUDENT), ladder.metric
    rows = [
        _share_row(ladder.label_with_count(name), found.rung.domains[name], figures, metric)
        for name, figures in student.domains.items()
        if name in ladder.shown_domains
    ]
    low, high = (-100 * end for end in reversed(found.loss.interval))
    noise = ", within noise" if found.loss.is_within_noise else ""
    gain = Cell(f"{-100 * found.loss.drop:+.1f} points", f"{low:+.1f} to {high:+.1f}{noise}")
    means = (Cell(percent(ladder.mean(rung))) for rung in (found.rung, student))
    rows += [(Cell("mean"), *means, gain), *_cost_rows(found)]
    caption = (
        f"{METRICS[metric]} of the student beside {found.title}, run as it is: zero-shot, with the "
        "same prompts, on the same images; image towers in FP32, one image in ONNX Runtime here"
    )
    notes = [BIASED] * (metric == "agreement") + list(found.caveats)
    table = Table(("", found.title, "student", "what distilling gains"), rows, caption)
    return [table, Notes("to be read with this comparison", notes)]


def _share_row(
    label: str, before: DomainFigures, after: DomainFigures, metric: Metric
) -> tuple[Cell, ...]:
    gain = 100 * (after.share(metric) - before.share(metric))
    cells = []
    for part in (before, after):
        low, high = part.interval(metric)
        cells.append(Cell(percent(part.share(metric)), f"{percent(low)} to {percent(high)}"))
    return (Cell(label), *cells, Cell(f"{gain:+.1f} points"))


def _cost_rows(found: Baseline) -> list[tuple[Cell, ...]]:
    size, own_size = found.rung.size_bytes or 0, found.student_size_bytes
    time_ms, own_time_ms = found.rung.onnx_latency_ms, found.student_latency_ms
    smaller, faster = times_text(size, own_size, "smaller", "larger"), NOTHING
    if time_ms and own_time_ms:
        faster = times_text(time_ms, own_time_ms, "faster", "slower")
    shown = (f"{ms:.2f}" if ms else NOTHING for ms in (time_ms, own_time_ms))
    return [
        Cell.row("MiB of weights", f"{size / MIB:.1f}", f"{own_size / MIB:.1f}", smaller),
        Cell.row("ms an image", *shown, faster),
    ]
