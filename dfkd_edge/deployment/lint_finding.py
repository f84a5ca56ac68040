"""What a lint rule has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MODEL = "(model)"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One place where a graph breaks a rule of its target."""

    rule: str
    """A name of `lint.RULES`."""
    severity: Literal["error", "warning"]
    """An error will not run on the target, or runs wrongly; a warning costs speed."""
    node: str
    """The node, or `(model)`."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.severity} {self.rule}: {self.node}: {self.message}"
