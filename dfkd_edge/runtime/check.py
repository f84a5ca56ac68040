"""check.pyz: prove a bundle on the device, without torch and without an installation of ours.

Verify every hash, reproduce the golden logits, try the preprocessing, measure latency, score a
folder of pictures if asked, and write result.json. A fault is one line; the rest goes on. A folder
that holds nothing to score stops it before any work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from dfkd_edge.runtime import bundle_files, device, golden, preprocess
from dfkd_edge.runtime.caveats import graph_notes, time_caveats, why_no_target, why_not_target
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device_result import MARKER, score_lines, verdict, why_kept, write_result
from dfkd_edge.runtime.faults import Fault, LackingFault, ProofFault, UsageFault
from dfkd_edge.runtime.labelled_folders import LabelledFolder, find_pictures, score_folder
from dfkd_edge.runtime.printer import Printer
from dfkd_edge.runtime.session import Session, SessionRequest
from dfkd_edge.runtime.sessions import BACKENDS, model_input, open_session
from dfkd_edge.runtime.timing import TimingRequest, measure, parse_percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FRAME_BYTES = 256 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code: 0 ok, 1 damaged, 2 usage, 3 not proven, 4 lacking."""
    try:
        options = _parser().parse_args(arguments)
    except UsageFault as fault:
        Printer(quiet=True, to_stderr=True).fault(fault)
        return fault.exit_code
    printer = Printer(options.quiet, options.json)
    try:
        result, faults = check_bundle(options, printer)
        _keep_result(result, options, printer)
    except Fault as fault:
        printer.fault(fault)
        return fault.exit_code
    except KeyboardInterrupt:
        printer.warn("stopped")
        return 130
    if options.json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    return faults[0].exit_code if faults else 0


class OneLineParser(argparse.ArgumentParser):
    """Refuses in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            UsageFault: always.
        """
        raise UsageFault(message, self.prog, "--help lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="check.pyz", description="Prove a dfkd-edge bundle on this machine."
    )
    here = Path(sys.argv[0]).resolve().parent
    add = parser.add_argument
    add("--bundle", type=Path, default=here, help="folder of the bundle [its own]")
    add("--precision", default="", help="fp32, fp16, int8 or all [the recommended one]")
    add("--backend", default="auto", choices=BACKENDS, help="what runs the model")
    add("--data", type=Path, help="labelled pictures: DIR/[DOMAIN/]CLASS/*.jpg")
    add("--frame", type=Path, help=".npy of what your own pipeline makes of test_card.png")
    add("--threads", type=int, default=0, help="CPU threads of onnxruntime [all]")
    add(
        "--warmup", type=float, default=200.0, metavar="MS", help="milliseconds before timing [200]"
    )
    add("--duration", type=float, default=3.0, metavar="S", help="seconds of timing; 0: none [3]")
    add("--percentile", type=_percentiles, default=(50.0, 90.0, 99.0), help="[50,90,99]")
    add("--cache", type=Path, help="folder of built engines [~/.cache/dfkd-edge/engines]")
    add("--output", type=Path, help="where the result goes [result.json in the bundle]")
    add("--json", action="store_true", help="print the result; the rest goes to standard error")
    add("--quiet", "-q", action="store_true", help="print faults only")
    return parser


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return parse_percentiles(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("numbers from 0 to 100, such as 50,90,99") from error


def check_bundle(
    options: argparse.Namespace, printer: Printer
) -> tuple[dict[str, Any], list[Fault]]:
    """Do all checks; faults are told at once and returned.

    Raises:
        Fault: the bundle is damaged or cannot be loaded, so that nothing else can be done.
        UsageFault: --data holds no picture of any class.
    """
    bundle = _open(options.bundle, printer)
    folder = find_pictures(options.data, bundle.classes) if options.data else None
    if folder:
        printer.say(f"{counted(len(folder.pictures), 'picture')} to score: {folder.description}")
    faults: list[Fault] = []
    result: dict[str, Any] = {
        "marker": MARKER,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bundle": {
            "target": bundle.manifest.target,
            "version": bundle.manifest.version,
            "precision": bundle.precision,
            "status": bundle.manifest.status,
            "manifest_sha256": bundle.sha256,
        },
        "device": device.describe(),
        "models": {},
    }
    if bundle.manifest.status != "passed":
        _keep(
            ProofFault("the host marked this bundle failed", bundle_files.VALIDATION),
            faults,
            printer,
        )
    result["preprocess"] = _check_preprocess(bundle, options.frame, faults, printer)
    precisions = bundle.precisions if options.precision == "all" else (options.precision,)
    for precision in precisions:
        name = precision or bundle.precision
        try:
            result["models"][name] = _check_model(bundle, name, folder, options, faults, printer)
        except Fault as fault:
            _keep(fault, faults, printer)
    result["faults"] = [str(fault) for fault in faults]
    result["passed"] = not faults
    reasons = [model["not_target"] for model in result["models"].values()]
    beside = reasons or [why_no_target(bundle.manifest.machine)]
    result["not_target"] = beside[0] if all(beside) else ""
    return result, faults


def _keep_result(result: dict[str, Any], options: argparse.Namespace, printer: Printer) -> None:
    path: Path = options.output or options.bundle / bundle_files.DEVICE_RESULT
    kept = "" if options.output else why_kept(result, path)
    if kept:
        printer.say(verdict(result))
        printer.warn(kept)  # with --quiet too: what lies there is not of this run
    else:
        write_result(result, path)
        printer.say(f"{verdict(result)}, written to {path}")


def _open(folder: Path, printer: Printer) -> bundle_files.Bundle:
    bundle = bundle_files.read_bundle(folder)
    damage = bundle_files.damaged_files(folder, bundle.manifest)
    for fault in damage[:-1]:
        printer.fault(fault)
    if damage:
        raise damage[-1]
    printer.say(
        f"bundle for {bundle.manifest.target}, {bundle.precision}, "
        f"{len(bundle.classes)} classes: {len(bundle.manifest.files)} files verified"
    )
    return bundle


def _keep(fault: Fault, faults: list[Fault], printer: Printer) -> None:
    faults.append(fault)
    printer.fault(fault)


def _check_preprocess(
    bundle: bundle_files.Bundle, frame: Path | None, faults: list[Fault], printer: Printer
) -> dict[str, Any]:
    """Make the model's input of the test card with this machine's Pillow, or take the user's."""
    expected_SSC = bundle.golden().get("test_card")
    if expected_SSC is None:
        return {"checked": False, "reason": "golden.npz holds no test card"}
    card_HWC = preprocess.test_card(bundle.side_px)
    found = {"checked": True, "by": str(frame) if frame else "Pillow"}
    try:
        if frame:
            seen: Any = _load_frame(frame)
        else:
            seen = preprocess.read_picture(bundle.folder / "test_card.png", bundle.side_px)
    except LackingFault as fault:
        printer.say(f"preprocessing not checked: {fault}")
        return {"checked": False, "reason": str(fault)}
    except Fault as fault:
        _keep(fault, faults, printer)
        return {"checked": False, "reason": str(fault)}
    cause = preprocess.name_fault(seen, card_HWC, expected_SSC)
    if cause:
        where = str(frame or "test_card.png")
        hint = "preprocess.json is the contract"
        _keep(
            ProofFault(f"preprocessing differs from training: {cause}", where, hint),
            faults,
            printer,
        )
    else:
        printer.say(f"preprocessing as in training (test card, {found['by']})")
    return {**found, "cause": cause}


def _load_frame(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FRAME_BYTES:
            raise UsageFault("file is too large for one frame", f"--frame {path}")
        frame = np.load(str(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageFault("no .npy file", f"--frame {path}", "write it with numpy.save") from error
    if not isinstance(frame, np.ndarray) or frame.dtype.kind not in "uif":
        raise UsageFault("no array of numbers", f"--frame {path}")
    return frame


def _check_model(
    bundle: bundle_files.Bundle,
    precision: str,
    folder: LabelledFolder | None,
    options: argparse.Namespace,
    faults: list[Fault],
    printer: Printer,
) -> dict[str, Any]:
    request = SessionRequest(
        bundle.model_path(precision),
        precision,
        options.backend,
        options.threads,
        bundle.batch,
        options.cache,
        bundle.manifest.int8_full_range,
        bundle.manifest.use_dla,
    )
    memory_before_mib = device.peak_memory_mib()
    session = open_session(request, printer.say)
    notes = []
    if session.backend == "onnxruntime":
        notes += graph_notes(bundle.precision, bundle.manifest.models)
    not_target = why_not_target(bundle.manifest, session.backend)
    for note in (*notes, not_target):
        if note:
            printer.say(f"note: {note}")
    found: dict[str, Any] = {
        "memory_before_mib": memory_before_mib,
        "backend": session.backend,
        "version": session.version,
        "settings": session.settings,
        "notes": notes,
        "not_target": not_target,
        "size_bytes": session.size_bytes,
        "golden": _check_golden(session, bundle, precision, faults, printer),
    }
    if options.duration > 0:
        found["latency"] = _measure(session, bundle, precision, options, printer)
    if folder:
        try:
            found["data"] = score_folder(session, folder, bundle, printer.tick).as_dict()
            for line in score_lines(found["data"]):
                printer.say(line)
        except Fault as fault:
            _keep(fault, faults, printer)
    session.close()
    return found


def _check_golden(
    session: Session,
    bundle: bundle_files.Bundle,
    precision: str,
    faults: list[Fault],
    printer: Printer,
) -> dict[str, Any]:
    stated = bundle.manifest.tolerance.get(precision, golden.TOLERANCE["int8"])
    result = golden.check_golden(session, bundle.golden(), precision, stated)
    figures = (
        f"{result.num_images} golden images, logits off by {result.relative:.4f} of their "
        f"deviation ({stated['relative']:g} allowed), same class {result.agreement:.3f}"
    )
    if result.passed:
        printer.say(f"{precision} on {session.backend} {session.version}: {figures}")
    else:
        fault = ProofFault(
            f"{precision} does not give the golden logits: {figures}", session.backend, result.cause
        )
        _keep(fault, faults, printer)
    return result.as_dict()


def _measure(
    session: Session,
    bundle: bundle_files.Bundle,
    precision: str,
    options: argparse.Namespace,
    printer: Printer,
) -> dict[str, Any]:
    images = model_input(bundle.side_px, bundle.batch[0])
    before = device.state()
    request = TimingRequest(options.warmup, options.duration, options.percentile)
    total_s = request.warmup_ms / 1e3 + request.duration_s
    warmup = f"{request.warmup_ms:g} ms of warm-up"
    printer.say(f"timing {precision} for {request.duration_s:g} s after {warmup}")
    latency = measure(
        lambda: session.run(images),
        len(images),
        request,
        lambda seconds: printer.tick(f"timing {precision}: {seconds:.0f} of {total_s:.0f} s"),
    )
    after = device.state()
    caveats = [*device.caveats(before, after), *latency.caveats]
    if precision in bundle.manifest.models:
        in_float = bool(session.settings.get("int8_in_float"))
        graph_for = bundle.manifest.backend
        caveats[:0] = time_caveats(precision, session.backend, graph_for, in_float)
    shown = ", ".join(f"{name} {value:.3f} ms" for name, value in latency.percentile_ms.items())
    mode = f", power mode {after['power_mode']}" if after.get("power_mode") else ""
    printer.say(f"latency {shown}, {latency.throughput_per_s:.1f} images/s{mode}")
    for caveat in caveats:
        printer.say(f"note: {caveat}")
    return {
        **latency.as_dict(),
        "state": after,
        "doubts": caveats,
        "peak_memory_mib": device.peak_memory_mib(),
    }
