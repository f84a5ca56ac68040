"""What the README.md of every runtime's folder says in the same way."""

from collections.abc import Sequence

from dfkd_edge.handover.profile import FEEDS
from dfkd_edge.handover.request import Handover
from dfkd_edge.runtime.caveats import GATE_FAILED

BY_BUNDLE = (
    "`classify.py` reads pictures with the code in `../../check.pyz`, as `predict` does: it needs "
    "the bundle around it, Python 3.8 or later, numpy and Pillow."
)
"""A note for READMEs: one reading of pictures, and so one answer."""

SEALED = (
    "Every file here is sealed, and `check.pyz` refuses the bundle once one was edited: edit a "
    "copy of the whole bundle (`cp -r`), and keep this one to prove and to judge with."
)


def readme(job: Handover, commands: str, notes: Sequence[str]) -> str:
    """Write the ten lines: what it is, for which version, the command, what to know."""
    where = f"JetPack {job.target.jetpack}" if job.target.jetpack else job.target.name
    failed = [f"**{GATE_FAILED}.**", ""] if job.has_failed else []
    lines = [
        *failed,
        f"# {job.profile.title}",
        "",
        f"For version {job.version}, which goes with {where}; {job.precision}. In this folder:",
        "",
        *("```sh", *commands.strip().splitlines(), "```"),
        "",
        *(f"- {note}" for note in (*notes, *_golden(job))),
    ]
    return "\n".join(lines) + "\n"


def _golden(job: Handover) -> list[str]:
    threshold = job.confidence.reject_threshold
    unknown = f" Below {threshold:.3g} an answer is unknown." if threshold else ""
    judge = f"`python3 ../../check.pyz --runtime {job.profile.name} --frame DUMP`"
    shape = " x ".join(map(str, job.input_shape))
    dump = (
        f"{judge} names what a pipeline does wrong. DUMP is the input tensor of "
        "`golden/picture.png` or, which shows more, of `../../test_card.png`: "
        f"{job.feed_dtype}, {job.layout}, {shape}, its plain bytes, little-endian, as in "
        "`input.bin`, or what `numpy.save` writes."
    )
    golden = (
        "`golden/`: for `picture.png` the network must be handed `input.bin` and answer "
        f"`answer.json`.{unknown} Written without a device; `check.pyz` proves the model on it."
    )
    variant = (
        f"`{job.model}` is another graph than `../../model.{job.graph}.onnx`, of the same weights: "
        f"{FEEDS[job.profile.feed]}. It gave the answer in `golden/`, that of the bundle's own "
        "graph, when it was written."
    )
    own = [] if job.profile.feed == "bundle" else [variant]
    return [*own, golden, f"{dump} {job.filled(job.profile.dump)}".rstrip(), SEALED]
