"""What `distill` left in a run, read without torch: enough to show a finished run again."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.artifacts import Diversity, PromptSet, StudentArtifact, SurrogateSummary
from dfkd_edge.files import content_hash, folder_stamp
from dfkd_edge.results.kept import EVALUATION, read_ladder
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.key import content_of
from dfkd_edge.runs.manifest import damaged_files
from dfkd_edge.runs.run_dir import read_stages


@dataclass(frozen=True, slots=True)
class Distilled:
    """A student, what it was made of and what it reached."""

    run_dir: Path
    student: StudentArtifact
    diversity: Diversity  # Of the prompts
    surrogates: SurrogateSummary
    evaluation: Ladder

    def to_json(self, report: str) -> dict[str, Any]:
        """Make the document of `distill --json`."""
        return {
            "run": str(self.run_dir),
            "report": report,
            "student": {"weights": str(self.student.weights), **asdict(self.student.settings)},
            "prompts": asdict(self.diversity),
            "surrogates": self.surrogates.to_json(),
            **self.evaluation.to_json(),
        }


def evaluation_key(run: Path, data: str, baseline: str) -> str:
    """Hash what an evaluation depends on: student, baseline, and the pictures as they are now.

    The key of the student holds that of its images, held-out ones included.
    """
    student = read_stages(run).get("student")
    beside = (baseline, content_of(baseline)) if baseline else ()
    made = student["key"] if student else ""
    return content_hash("evaluation", made, data, folder_stamp(data), *beside)


def read_distilled(run: Path, data: str, baseline: str) -> Distilled | None:
    """Read a run that is finished, whole, and measured on these very pictures, beside this very
    baseline; None otherwise.
    """
    stages = read_stages(run)
    if not {"prompts", "surrogates", "student"} <= stages.keys() or damaged_files(run, stages):
        return None
    evaluation = read_ladder(run / EVALUATION)
    if evaluation is None or evaluation.key != evaluation_key(run, data, baseline):
        return None
    return Distilled(
        run,
        StudentArtifact.load(run / "student"),
        PromptSet.load(run / "prompts").diversity,
        SurrogateSummary.load(run / "surrogates"),
        evaluation,
    )
