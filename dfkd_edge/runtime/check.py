"""check.pyz: prove a bundle on the device, without torch and without an installation of ours.

Verify every hash, reproduce the golden logits, try the preprocessing, measure latency, score a
folder of pictures if asked, and write result.json. A fault is one line; the rest goes on. A folder
that holds nothing to score stops it before any work.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dfkd_edge.runtime import bundle_files, device, golden, preprocess
from dfkd_edge.runtime.caveats import graph_name, graph_notes, time_caveats, why_not_target
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device_result import (
    CheckResult,
    ModelResult,
    PreprocessResult,
    write_document,
)
from dfkd_edge.runtime.engine_session import BACKENDS, open_session
from dfkd_edge.runtime.faults import Fault, LackingFault, ProofFault, UsageFault
from dfkd_edge.runtime.folder_layouts import LabelledFolder, find_pictures
from dfkd_edge.runtime.frame_check import (
    CARD,
    FrameRequest,
    FrameResult,
    card_of,
    judge_frame,
    name_mistakes,
)
from dfkd_edge.runtime.frame_dump import FORMATS, Size, parse_size
from dfkd_edge.runtime.plain_text import escape_in_streams, printable, unexpected
from dfkd_edge.runtime.printer import Printer
from dfkd_edge.runtime.scoring import FolderScore, score_folder
from dfkd_edge.runtime.session import Session, SessionRequest, model_input
from dfkd_edge.runtime.timing import DeviceLatency, TimingRequest, measure, parse_percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code: 0 ok, 1 damaged, 2 usage, 3 not proven, 4 lacking."""
    escape_in_streams()
    try:
        options = _parser().parse_args(arguments)
        _refuse_mixed(options)
    except UsageFault as fault:
        Printer(quiet=True, to_stderr=True).fault(fault)
        return fault.exit_code
    printer = Printer(options.quiet, options.json)
    result: FrameResult | CheckResult
    try:
        if options.frame:
            result = _check_frame(options, printer)
        else:
            result = BundleCheck(options, printer).run()
            _keep_result(result, options, printer)
    except Fault as fault:
        printer.fault(fault)
        return fault.exit_code
    except Exception as error:  # of a library, on files that others made: no traceback
        printer.warn(f"error: {unexpected(error)}")
        return 1
    except KeyboardInterrupt:
        printer.warn("stopped")
        return 130  # 128 + SIGINT, as shells report it
    if options.json:
        text = json.dumps(result.to_json(), ensure_ascii=False)
        sys.stdout.write(printable(text) + "\n")
    return result.faults[0].exit_code if result.faults else 0  # the first one found decides


class OneLineParser(argparse.ArgumentParser):
    """Refuses in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageFault, which `main` prints."""
        raise UsageFault(message, self.prog, "--help lists the options")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="check.pyz",
        description="Prove a dfkd-edge bundle on this machine: python3 check.pyz. It needs Python "
        "3.8 or later, numpy, and TensorRT (JetPack has it) or onnxruntime.",
        epilog="A DUMP is an array as numpy.save writes it (.npy), or the plain bytes of a frame "
        "without a header, as a pipeline holds them in memory: float32 or uint8, NCHW or NHWC, "
        "RGBA or NV12. Their number tells format and size; --frame-format and --frame-size name "
        "them where it does not.",
    )
    here = Path(sys.argv[0]).resolve().parent
    add = parser.add_argument
    add("--bundle", type=Path, default=here, help="folder of the bundle [its own]")
    add("--precision", default="", help="fp32, fp16, int8 or all [the recommended one]")
    add("--backend", default="auto", choices=BACKENDS, help="what runs the model")
    add("--data", type=Path, help="labelled pictures: DIR/[DOMAIN/]CLASS/*.jpg")
    add("--frame", type=Path, metavar="DUMP", help="judge what a pipeline hands to the network")
    add("--runtime", default="", metavar="NAME", help="whose pipeline: a folder of runtimes/")
    add("--frame-format", default="", choices=FORMATS, help="of plain bytes [told by their number]")
    add("--frame-size", type=_size, metavar="WxH", help="of plain bytes [told by their number]")
    add("--threads", type=int, default=0, help="CPU threads of onnxruntime [all]")
    add("--device", default="cpu", help="cpu, or cuda with onnxruntime-gpu [cpu]")
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


def _size(text: str) -> Size:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("width and height, such as 1280x720") from error


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return parse_percentiles(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("numbers from 0 to 100, such as 50,90,99") from error


def _refuse_mixed(options: argparse.Namespace) -> None:
    TimingRequest(options.warmup, options.duration)  # else told after minutes, or taken for none
    about_frame = (options.runtime, options.frame_format, options.frame_size)
    if options.frame and options.data:
        raise UsageFault("--frame judges one frame and nothing else", "check.pyz", "call it twice")
    if not options.frame and any(about_frame):
        raise UsageFault("nothing says which frame", "check.pyz", "add --frame FILE")


def open_verified(folder: Path, printer: Printer) -> bundle_files.Bundle:
    """Open a bundle and compare every file with its hash.

    Raises:
        Fault: it is damaged; further damages have been printed.
        UsageFault: there is no bundle.
    """
    bundle = bundle_files.read_bundle(folder)
    manifest = bundle.manifest
    damage = bundle_files.damaged_files(bundle.folder, manifest)
    for fault in damage[:-1]:
        printer.fault(fault)
    if damage:
        raise damage[-1]  # main prints it
    printer.say(
        f"bundle for {manifest.target}, {manifest.precision}, "
        f"{len(manifest.classes)} classes: {len(manifest.files)} files verified"
    )
    return bundle


def _check_frame(options: argparse.Namespace, printer: Printer) -> FrameResult:
    """Judge one frame; no model is run, since it would take minutes to build."""
    bundle = open_verified(options.bundle, printer)
    asked = FrameRequest(options.frame, options.runtime, options.frame_format, options.frame_size)
    result = judge_frame(bundle, asked)
    for line in result.lines():
        printer.say(line)
    for fault in result.faults:
        printer.fault(fault)
    if options.output:
        write_document(options.output, result.to_json())
    return result


class BundleCheck:
    """One check of a bundle: what it finds wrong is printed at once, collected, and goes on."""

    def __init__(self, options: argparse.Namespace, printer: Printer) -> None:
        """Verify the bundle and find the pictures.

        Raises:
            Fault: the bundle is damaged, so that nothing else can be done.
            UsageFault: there is no bundle, or --data holds no picture of any class.
        """
        self.options, self.printer = options, printer
        self.bundle = open_verified(options.bundle, printer)
        self.folder = find_pictures(options.data, self.bundle.classes) if options.data else None
        self.result = CheckResult(self.bundle)
        if self.folder:
            num = counted(self.folder.num_pictures, "picture")
            printer.say(f"{num} to score: {self.folder.description}")

    def run(self) -> CheckResult:
        """Check the preprocessing and every model that was asked for."""
        if self.bundle.manifest.status != "passed":
            self._keep(ProofFault("the host marked this bundle failed", bundle_files.VALIDATION))
        self.result.preprocess = self._check_preprocess()
        asked = self.options.precision or self.bundle.precision
        for precision in self.bundle.precisions if asked == "all" else (asked,):
            try:
                self.result.models[precision] = self._check_model(precision)
            except Fault as fault:
                self._keep(fault)
        return self.result

    def _keep(self, fault: Fault) -> None:
        self.result.faults.append(fault)
        self.printer.fault(fault)

    def _check_preprocess(self) -> PreprocessResult:
        """Judge what Pillow makes of the test card here."""
        cards = card_of(self.bundle)
        if not cards:
            return PreprocessResult(reason="golden.npz holds no test card")
        try:
            seen = preprocess.read_picture(self.bundle.folder / CARD, self.bundle.side_px)
        except LackingFault as fault:
            self.printer.say(f"preprocessing not checked: {fault}")
            return PreprocessResult(reason=str(fault))
        except Fault as fault:
            self._keep(fault)
            return PreprocessResult(reason=str(fault))
        cause = name_mistakes(seen, cards[0])
        if cause:
            what = f"preprocessing differs from training: {cause}"
            self._keep(ProofFault(what, CARD, "preprocess.json is the contract"))
        else:
            self.printer.say("preprocessing as in training (test card, Pillow)")
        return PreprocessResult("Pillow", cause)

    def _check_model(self, precision: str) -> ModelResult:
        bundle, options, manifest = self.bundle, self.options, self.bundle.manifest
        request = SessionRequest(
            bundle.model_path(precision),
            precision,
            options.backend,
            options.threads,
            bundle.batch,
            options.cache,
            manifest.int8_full_range,
            manifest.use_dla,
            device=options.device,
        )
        memory_before_mib = device.peak_memory_mib()  # a peak never falls: what follows adds to it
        session = open_session(request, self.printer.say)
        is_onnx = session.backend == "onnxruntime"
        notes = graph_notes(bundle.precision, manifest.models) if is_onnx else []
        not_target = why_not_target(manifest, session.backend)
        for note in filter(None, (*notes, not_target)):
            self.printer.say(f"note: {note}")
        result = ModelResult(
            memory_before_mib=memory_before_mib,
            backend=session.backend,
            version=session.version,
            settings=session.settings,
            notes=notes,
            not_target=not_target,
            size_bytes=session.size_bytes,
            golden=self._check_golden(session, precision),
            latency=self._measure(session, precision) if options.duration > 0 else None,
            data=self._score(session, self.folder) if self.folder else None,
        )
        session.close()
        return result

    def _shown(self, session: Session, precision: str) -> str:
        if session.backend != "onnxruntime":
            return precision  # an engine computes in what it was built for
        return graph_name(precision, self.bundle.precision, self.bundle.manifest.models)

    def _check_golden(self, session: Session, precision: str) -> golden.GoldenResult:
        limits = self.bundle.manifest.tolerance.get(precision, golden.TOLERANCE["int8"])
        result = golden.check_golden(session, self.bundle.golden(), precision, limits)
        figures = (
            f"{result.num_images} golden images, logits off by {result.relative:.4f} of their "
            f"deviation ({limits['relative']:g} allowed), same class {result.agreement:.3f}"
        )
        if result.passed:
            shown = self._shown(session, precision)
            self.printer.say(f"{shown} on {session.backend} {session.version}: {figures}")
        else:
            what = f"{self._shown(session, precision)} does not give the golden logits: {figures}"
            self._keep(ProofFault(what, session.backend, result.cause))
        return result

    def _measure(self, session: Session, precision: str) -> DeviceLatency:
        options, manifest, printer = self.options, self.bundle.manifest, self.printer
        images = model_input(self.bundle.side_px, self.bundle.batch[0])
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
        caveats = [*device.caveats(before, after), *latency.unsteadiness]
        if precision in manifest.models:
            in_float = bool(session.settings.get("int8_in_float"))
            caveats[:0] = time_caveats(precision, session.backend, manifest.backend, in_float)
        shown = ", ".join(f"{name} {value:.3f} ms" for name, value in latency.percentile_ms.items())
        mode = f", power mode {after.power_mode}" if after.power_mode else ""
        printer.say(f"latency {shown}, {latency.throughput_per_s:.1f} images/s{mode}")
        for caveat in caveats:
            printer.say(f"note: {caveat}")
        return DeviceLatency(
            **vars(latency),
            state=after.to_json(),
            doubts=caveats,
            peak_memory_mib=device.peak_memory_mib(),
        )

    def _score(self, session: Session, folder: LabelledFolder) -> FolderScore | None:
        try:
            score = score_folder(session, folder, self.bundle, self.printer.tick)
        except Fault as fault:
            self._keep(fault)
            return None
        for line in score.lines():
            self.printer.say(line)
        return score


def _keep_result(result: CheckResult, options: argparse.Namespace, printer: Printer) -> None:
    path: Path = options.output or options.bundle / bundle_files.DEVICE_RESULT
    kept = "" if options.output else result.why_kept(path)
    if kept:
        printer.say(result.verdict)
        printer.warn(kept)  # with --quiet too: what lies there is not of this run
        return
    result.write(path)
    printer.say(f"{result.verdict}, written to {path}")
