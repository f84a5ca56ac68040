"""What a look at a class list found (`class_lint.py`), and the JSON document of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dfkd_edge.class_lint.scale import Scale
from dfkd_edge.class_names import ClassNames
from dfkd_edge.drawings.drawn_class import DrawnClass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at in a class list."""

    rule: str
    """`typo`, `near-duplicate`, `confusable`, `ambiguous`, `unclear`, `unknown-word`, `too-long`,
    `odd-characters`, `costs-drawings`, `drawn-as-other`, `drawn-as-kind`, `few-drawings`, or a rule
    of `class_slips.py`."""
    names: tuple[str, ...]
    text: str
    """What is the matter, after the names."""
    is_fine: bool = False
    """Good to know, and nothing that another list would mend: `--strict` does not count it."""


@dataclass(frozen=True, slots=True)
class ClassListReport:
    """What the teacher makes of a class list."""

    scale: Scale
    findings: tuple[Finding, ...]
    pairs: tuple[tuple[str, str, float], ...]
    """The most similar pairs with their cosine, most similar first."""
    suggested_prompts: dict[str, str]
    """Name -> a prompt that would help."""
    kind_prompts: frozenset[str] = frozenset()
    """Names whose suggestion only names their kind, to set two classes apart."""
    drawn: tuple[DrawnClass, ...] = ()
    """Drawings of the memory that synthesis would start from; empty for other teachers."""
    given_up: dict[str, int] = field(default_factory=dict)
    """Drawings that a class takes by its name and not by its own or its suggested prompt."""
    mended: dict[str, tuple[str, str]] = field(default_factory=dict)
    """A name that holds a prompt -> name and prompt, apart."""

    def suggested_lines(self) -> dict[str, tuple[str, str]]:
        """Return for each name that needs one its better line: name and prompt."""
        prompts = {name: (name, prompt) for name, prompt in self.suggested_prompts.items()}
        return prompts | self.mended


def as_document(classes: ClassNames, report: ClassListReport) -> dict[str, Any]:
    """Return everything as one JSON document."""
    drawings = {
        each.name: {
            "found": each.num_drawings,
            "named": each.named,
            "of_its_name": each.num_own,
            "given_up_by_prompt": report.given_up.get(each.name, 0),
        }
        for each in report.drawn
    }
    lines = report.suggested_lines()
    return {
        "classes": [
            {
                "index": index,
                "name": name,
                "prompt": prompt,
                "folder": slug,
                "suggested_name": lines[name][0] if name in report.mended else None,
                "suggested_prompt": lines[name][1] if name in lines else None,
                "drawings": drawings.get(name),
            }
            for index, (name, prompt, slug) in enumerate(
                zip(classes.names, classes.prompts, classes.slugs(), strict=True)
            )
        ],
        "findings": [
            {"rule": f.rule, "names": list(f.names), "text": f.text, "is_fine": f.is_fine}
            for f in report.findings
        ],
        "pairs": [{"names": [a, b], "similarity": round(c, 4)} for a, b, c in report.pairs],
        "scale": {
            "synonyms": round(report.scale.synonyms, 4),
            "confusing": round(report.scale.confusing, 4),
            "siblings": round(report.scale.siblings, 4),
            "unrelated": round(report.scale.unrelated, 4),
        },
    }
