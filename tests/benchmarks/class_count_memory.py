"""Peak memory of synthesis with many classes over that with few, at equal numbers of images.

    python tests/benchmarks/class_count_memory.py --images 2400

Each measurement is a process of its own: a process never gives its peak back.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from measuring import measured

WORDS = ("dog", "house", "horse", "guitar", "person", "elephant", "giraffe", "boat", "tree", "cup")
COLOURS = ("red", "green", "blue", "old", "small", "wooden", "striped", "round", "dark", "shiny")


def measure(num_classes: int, num_images: int) -> None:
    """Synthesize in this process, which is measured from outside."""
    from dfkd_edge.console import ConsoleReporter, make_console
    from dfkd_edge.interfaces import WorkShare
    from dfkd_edge.machine.process import prepare_process

    prepare_process("cpu", 1)
    from dfkd_edge.pipeline import synthesize
    from dfkd_edge.preflight import DistillRequest, plan_synthesize

    names = [f"{colour} {word}" for colour in COLOURS for word in WORDS][:num_classes]
    with tempfile.TemporaryDirectory() as folder:
        classes = Path(folder) / "classes.txt"
        classes.write_text("\n".join(names) + "\n", encoding="utf-8")
        request = DistillRequest(
            settings={"classes": str(classes), "synthesis": {"num_images": num_images}},
            output=Path(folder) / "run",
        )
        reporter = ConsoleReporter(make_console(quiet=True))
        synthesize(plan_synthesize(request), WorkShare(), reporter)


def main() -> None:
    """Compare 7 with 100 classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--classes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.classes:
        measure(options.classes, options.images)
        return
    peaks = {}
    for num_classes in (7, 100):
        command = [sys.executable, __file__, "--images", str(options.images)]
        peaks[num_classes] = measured([*command, "--classes", str(num_classes)]).peak_gib * 1024
        print(f"{num_classes:4d} classes: {peaks[num_classes]:.0f} MiB")
    print(f"ratio {peaks[100] / peaks[7]:.2f}, allowed 1.3")


if __name__ == "__main__":
    main()
