"""Label-free precision repair: put back to float the fewest layers that INT8 harms most.

Every layer alone is put back to float and what it spares is read off surrogate images: how much
nearer the class probabilities come to those of the FP32 student. Then the layers that spare most go
back, 1, 2, 4, ... of them, until the judge is content, and by halving the fewest that still content
it. No label is needed.

Shape suffixes: N images, K classes.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dfkd_edge.artifacts import Floats
from dfkd_edge.errors import ConversionError
from dfkd_edge.interfaces import Reporter
from dfkd_edge.results.gate import Gate
from dfkd_edge.results.kept import WHERE_CHOSEN, why_none
from dfkd_edge.validation.statistics import mean_divergence

MAX_RANKED = 64
"""Layers, spread evenly over larger graphs; a count, so that a busy machine makes the same graph.
The default student has 47, each a third of a second of one core (ours)."""
AIM_SHARE = 0.5
"""Of the limit: a graph that just passes on the images it is chosen by often fails on fresh ones,
as the quickstart's did with seed 2 (the share is ours)."""
MAX_FLOAT_SHARE = 1 / 3
"""With more layers in float, INT8 is hardly worth its name: then the student is fine-tuned."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Agreement and divergence of the INT8 graph when this layer alone stays in float."""

    node: str
    agreement: float  # Share of the surrogate images whose class is that of the FP32 student
    divergence: float
    """KL of the class probabilities from the FP32 student's, in nats; less is better."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What the repair did."""

    passed: bool
    float_nodes: tuple[str, ...]  # Put back to float, those that spare most first
    num_quantizable: int
    drop_before: float
    drop_after: float  # In the worst domain
    sensitivities: tuple[Sensitivity, ...]  # Those that spare most first
    num_graphs: int  # Graphs that were judged
    seconds: float  # That the judging took

    def sentence(self) -> str:
        """Summarise the repair in one line, which says that its figures are not the gate's."""
        drops = f"{self.drop_before * 100:.2f} -> {self.drop_after * 100:.2f} points of agreement"
        why = "" if self.float_nodes else f"; {why_none(self.num_graphs)}"
        return (
            f"repair: {len(self.float_nodes)} of {self.num_quantizable} layers back to float, drop "
            f"{drops} {WHERE_CHOSEN}{why}"
        )


def rank_sensitivities(
    nodes: Sequence[str],
    logits_with: Callable[[frozenset[str]], Floats],
    reference_NK: Floats,
    reporter: Reporter,
) -> tuple[Sensitivity, ...]:
    """Put each layer alone back to float and rank them, those that spare most first.

    Layers that the exporter cannot leave in float are left out, and so are some of large graphs.

    Args:
        nodes: every layer that INT8 rounds.
        logits_with: nodes that stay float -> logits [N, K] of the INT8 graph, on surrogate images
            that are neither calibrated on nor measured on.
        reference_NK: logits of the FP32 student.
        reporter: shows the bar.
    """
    found: list[Sensitivity] = []
    spread = np.linspace(0, len(nodes) - 1, min(len(nodes), MAX_RANKED)).astype(int)
    with reporter.stage("ranking layers by what INT8 does to them", len(spread)) as progress:
        for node in (nodes[index] for index in spread):
            progress.advance(1, node)
            try:
                logits_NK = logits_with(frozenset({node}))
            except ConversionError:
                continue
            agreement = float((logits_NK.argmax(1) == reference_NK.argmax(1)).mean())
            divergence = mean_divergence(reference_NK, logits_NK)
            worst = math.inf if divergence is None else divergence
            found.append(Sensitivity(node, agreement, worst))
    return tuple(sorted(found, key=lambda s: (s.divergence, -s.agreement)))


def restore_layers(
    ranked: Sequence[Sensitivity],
    num_quantizable: int,
    judge: Callable[[frozenset[str]], Gate],
    drop_before: float,
    reporter: Reporter,
) -> RepairReport:
    """Find the fewest layers whose return to float leaves a graph well below its judge's limit.

    Args:
        ranked: layers, those that spare most first.
        num_quantizable: layers of the graph that INT8 rounds, ranked or not.
        judge: nodes that stay float -> what the graph loses.
        drop_before: loss with every layer in INT8.
        reporter: shows the bar.

    Returns:
        What was found; `float_nodes` are those of the graph that reached AIM_SHARE of the limit, or
        else of the smallest that passed, or else of the one that lost least, which may have none.
    """
    begun = time.monotonic()
    nodes = [s.node for s in ranked]
    limit = max(1, min(len(nodes), int(num_quantizable * MAX_FLOAT_SHARE)))  # one at least
    tried: dict[int, Gate] = {}
    with reporter.stage("putting layers back to float", limit.bit_length() * 2) as progress:

        def reaches_aim(count: int) -> bool:
            try:
                gate = tried[count] = judge(frozenset(nodes[:count]))
            except ConversionError:
                return False
            drop = f"drop {gate.drop * 100:.2f} points"
            progress.advance(1, f"{count} in float: {drop} {WHERE_CHOSEN}")
            return gate.drop <= AIM_SHARE * gate.max_drop

        count = _fewest(reaches_aim, limit) if nodes else None
    drops = {0: drop_before, **{number: gate.drop for number, gate in tried.items()}}
    within = [number for number, gate in tried.items() if gate.passed]
    best = count or (min(within) if within else min(drops, key=lambda n: (drops[n], n)))
    return RepairReport(
        passed=bool(within),
        float_nodes=tuple(nodes[:best]),
        num_quantizable=num_quantizable,
        drop_before=drop_before,
        drop_after=drops[best],
        sensitivities=tuple(ranked),
        num_graphs=len(tried),
        seconds=time.monotonic() - begun,
    )


def _fewest(passes: Callable[[int], bool], limit: int) -> int | None:
    """Double until it passes, then halve the gap; None when nothing up to `limit` passes."""
    failed, count = 0, 1
    while not passes(count):
        if count == limit:
            return None
        failed, count = count, min(2 * count, limit)
    while count - failed > 1:
        middle = (failed + count) // 2
        if passes(middle):
            count = middle
        else:
            failed = middle
    return count
