"""The section about confidences: whether they keep their word, and what was fitted for them."""

from markupsafe import Markup

from dfkd_edge.report.blocks import Block, Facts, Figures, Missing, Section
from dfkd_edge.report.commands import exporting, measuring
from dfkd_edge.report.figures import reliability_figure
from dfkd_edge.report.sources import Sources
from dfkd_edge.results.class_answers import REFERENCES
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.results.ladder import Ladder

KEY, TITLE = "confidence", "Confidence"


def confidence_section(sources: Sources) -> Section:
    """Reliability, by which reference it counts, and what temperature and threshold do."""
    ladders = [climb.ladder for climb in sources.leading]
    figures = tuple(figure for ladder in ladders for figure in _figures(ladder))
    if not figures:
        missing = Missing("Confidences are not measured yet", measuring(sources, "check"))
        return Section(KEY, TITLE, "", [missing])
    ladder, references = ladders[0], " and by ".join(REFERENCES[one.metric] for one in ladders)
    lead = (
        f"How often {ladder.shipped.name} is right when it is this sure, by {references}. On the "
        "diagonal a confidence keeps its word; a larger point stands for more images."
    )
    fitted: Block = Missing("No temperature is fitted for these logits yet", exporting(sources))
    if ladder.confidence:
        fitted = _facts(ladder, ladder.confidence)
        if ladder.metric == "agreement":
            lead += (
                " The temperature was fitted by another reference, the class that was asked for: "
                "only labelled pictures tell what it does."
            )
    return Section(KEY, TITLE, lead, [Figures(figures), fitted])


def _figures(ladder: Ladder) -> tuple[Markup, ...]:
    """Draw the confidences as they are; on labelled pictures after temperature too.

    The temperature was fitted to the class asked for: on the teacher's answers its effect would
    contradict what the fit says of it.
    """
    before = ladder.reliability(ladder.shipped)
    if before is None:
        return ()
    figures = [reliability_figure(f"by {REFERENCES[ladder.metric]}", before)]
    after = ladder.reliability(ladder.shipped, scaled=True)
    if after and ladder.metric == "top1" and after.temperature != 1:
        title = f"the same, temperature {after.temperature:.2f}"
        figures.append(reliability_figure(title, after))
    return tuple(figures)


def _facts(ladder: Ladder, fitted: FittedConfidence) -> Facts:
    """What temperature does, when the student answers "unknown", how that tells strangers apart."""
    return Facts(
        [
            ("fitted on", f"{fitted.fitted_on}, to the class asked for"),
            ("temperature", fitted.sentence()),
            ("its effect above", ladder.temperature_effect()),
            ("unknown", fitted.unknown_sentence()),
        ]
    )
