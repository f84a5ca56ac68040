"""What the lint finds in a class list: typed, with the document of `classes lint --json`."""

from dataclasses import dataclass
from typing import Literal

from dfkd_edge.class_lint.scale import Scale
from dfkd_edge.class_names import ClassNames
from dfkd_edge.drawings.drawn_class import DrawnClass

Rule = Literal[
    "typo",
    "unknown-word",
    "prompt-in-name",
    "wide-gap",
    "many-in-one",
    "odd-characters",
    "too-long",
    "near-duplicate",
    "confusable",
    "ambiguous",
    "drawn-as-other",
    "drawn-as-kind",
    "few-drawings",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at in a class list."""

    rule: Rule
    names: tuple[str, ...]  # The class, or the two of a pair
    text: str  # What is the matter and what to do, to be read after the names
    is_fine: bool = False  # Good to know, nothing to change: `--strict` does not count it
    better_line: tuple[str, str] | None = None  # Name and prompt to write, where meant plainly

    def to_json(self) -> dict[str, object]:
        """Return its entry in the document."""
        names = list(self.names)
        return {"rule": self.rule, "names": names, "text": self.text, "is_fine": self.is_fine}


@dataclass(frozen=True, slots=True)
class ClassListReport:
    """What a teacher makes of a class list."""

    classes: ClassNames
    scale: Scale
    findings: tuple[Finding, ...]
    pairs: tuple[tuple[str, str, float], ...]  # Two classes and their cosine, most similar first
    drawn: tuple[DrawnClass, ...] = ()  # What synthesis would start from; empty without a memory

    def better_lines(self) -> dict[str, tuple[str, str]]:
        """Return the suggestions: class name -> name and prompt."""
        return {f.names[0]: f.better_line for f in self.findings if f.better_line}

    def to_json(self) -> dict[str, object]:
        """Return the document of `classes lint --json`."""
        lines, levels = self.better_lines(), ("synonyms", "confusing", "siblings", "unrelated")
        drawings = {
            one.name: {"found": one.num_drawings, "named": one.named, "of_its_name": one.num_own}
            for one in self.drawn
        }
        rows = zip(self.classes.names, self.classes.prompts, self.classes.slugs(), strict=True)
        classes = []
        for index, (name, prompt, slug) in enumerate(rows):
            better_name, better_prompt = lines.get(name, (None, None))
            classes.append(
                {
                    "index": index,
                    "name": name,
                    "prompt": prompt,
                    "folder": slug,
                    "suggested_name": better_name if better_name != name else None,
                    "suggested_prompt": better_prompt,
                    "drawings": drawings.get(name),
                }
            )
        return {
            "classes": classes,
            "findings": [finding.to_json() for finding in self.findings],
            "pairs": [{"names": [a, b], "similarity": round(c, 4)} for a, b, c in self.pairs],
            "scale": {level: round(getattr(self.scale, level), 4) for level in levels},
        }
