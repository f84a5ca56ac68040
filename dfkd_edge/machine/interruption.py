"""What an interrupted command says: the step that was in progress, what is kept, how to go on.

Whoever knows one of these adds it to the KeyboardInterrupt as a note (PEP 678) on its way up.
SIGTERM, which batch systems send, interrupts as Ctrl-C does.
"""

import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM: all that cleans up after Ctrl-C cleans up after it."""


def interrupt_on_sigterm() -> None:
    """Let SIGTERM unwind the program; a second one ends it at once.

    Where a parent has it ignored (nohup and the like), it stays ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)


def note_step(error: BaseException, step: str) -> None:
    """Note the step that an interrupt cut off; the innermost one that is noted counts."""
    if isinstance(error, KeyboardInterrupt) and not getattr(error, "__notes__", []):
        error.add_note(f"while {step}")


def interrupted_line(stop: KeyboardInterrupt, arguments: list[str]) -> str:
    """Say what was stopped, what is kept and how to go on."""
    notes = getattr(stop, "__notes__", [])
    stopped = " ".join(["stopped", *(note for note in notes if note.startswith("while "))])
    if arguments[:1] not in (["distill"], ["run"], ["synthesize"]):
        return f"{stopped}; nothing half was left behind, run the command again"
    kept = [note for note in notes if not note.startswith("while ")] or ["what is done is kept"]
    command = "the same command"
    if "--no-resume" in arguments:
        command += " without --no-resume"
    return "; ".join([stopped, *kept, f"{command} goes on"])
