"""What the README.md of every runtime's folder says in the same way."""

from collections.abc import Sequence

from dfkd_edge.handover.request import Handover


def readme(job: Handover, commands: str, notes: Sequence[str]) -> str:
    """Write the ten lines: what it is, for which version, the command, what to know."""
    where = f"JetPack {job.target.jetpack}" if job.target.jetpack else job.target.name
    lines = [
        f"# {job.profile.title}",
        "",
        f"For version {job.version}, which goes with {where}; {job.precision}. In this folder:",
        "",
        *("```sh", *commands.strip().splitlines(), "```"),
        "",
        *(f"- {note}" for note in (*notes, _golden(job))),
    ]
    return "\n".join(lines) + "\n"


def _golden(job: Handover) -> str:
    threshold = job.confidence.reject_threshold
    unknown = f" Below {threshold:.3g} an answer is unknown." if threshold else ""
    judge = f"`python3 ../../check.pyz --runtime {job.profile.name} --frame DUMP`"
    return (
        "`golden/`: for `picture.png` the network must be handed `input.bin` and answer "
        f"`answer.json`.{unknown} {judge} names what a pipeline does wrong. "
        "Written without a device; `check.pyz` proves the model on it."
    )
