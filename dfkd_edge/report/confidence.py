"""The section about confidences: whether they keep their word, and what was fitted for them."""

from __future__ import annotations

from markupsafe import Markup

from dfkd_edge.report.blocks import Block, Facts, Figures, Missing, Section
from dfkd_edge.report.figures import reliability_figure
from dfkd_edge.report.ladder_view import LadderView, exporting, leading_ladders, measuring
from dfkd_edge.report.sources import Document, Sources
from dfkd_edge.report.svg import percent
from dfkd_edge.results.class_answers import is_truth_stated, truth_of
from dfkd_edge.results.confidence import effect_sentence, fit_sentence, fitted_on

TITLE = "Confidence"


def confidence_section(sources: Sources) -> Section:
    """Reliability, by which truth it counts, and what temperature and threshold do."""
    ladders = [ladder for ladder in leading_ladders(sources) if _figures(ladder)]
    if not ladders:
        command = measuring(sources, "check")
        missing = Missing("Confidences are not in these files yet", command)
        return Section("confidence", TITLE, "", (missing,))
    ladder = ladders[0]
    truths = " and by ".join(truth_of(one.document) for one in ladders)
    figures = tuple(figure for one in ladders for figure in _figures(one))
    lead = (
        f"How often {ladder.last['name']} is right when it is this sure, by "
        f"{truths}. On the diagonal a confidence keeps its word; "
        "a larger point stands for more images."
    )
    fitted: Block = Missing("No temperature is fitted for these logits yet", exporting(sources))
    if ladder.document.get("confidence"):
        fitted = confidence_facts(ladder.document)
        if ladder.measure == "agreement":
            lead += (
                " The temperature was fitted by another truth, the class that was asked for: only "
                "labelled pictures tell what it does."
            )
    return Section("confidence", TITLE, lead, (Figures(figures), fitted))


def _figures(ladder: LadderView) -> tuple[Markup, ...]:
    """Draw the confidences as they are; after temperature too, where that was not fitted on them.

    Answers of the teacher are no truth that the temperature was fitted by: its effect on them would
    contradict what the fit says of it.
    """
    before = ladder.reliability(ladder.last, "reliability")
    if before is None:
        return ()
    is_stated = is_truth_stated(ladder.document)
    title = f"by {truth_of(ladder.document)}" if is_stated else "as it is"
    figures = [reliability_figure(title, before["ece"], before["bins"])]
    after = ladder.reliability(ladder.last, "reliability_scaled")
    if after and ladder.measure == "top1" and after["temperature"] != 1:
        title = f"the same, temperature {after['temperature']:.2f}"
        figures.append(reliability_figure(title, after["ece"], after["bins"]))
    return tuple(figures)


def confidence_facts(document: Document) -> Facts:
    """What temperature does, when the student answers "unknown", how that tells strangers apart."""
    fitted = document["confidence"]
    auroc, effect = fitted["unknown_auroc"], effect_sentence(document)
    return Facts(
        (
            ("fitted on", f"{fitted_on(fitted)}, to the class asked for"),
            ("temperature", fit_sentence(fitted)),
            *([("its effect above", effect)] if effect else []),
            ("answers unknown below", percent(fitted["reject_threshold"])),
            (
                "pictures of other classes",
                f"{auroc:.2f} AUROC on surrogate images, each class's output removed in turn; "
                "0.5 is chance"
                if auroc is not None
                else "needs three classes",
            ),
        )
    )
