"""Make the pictures of the front page from a run and its bundle: panel, report, contact sheet.

    python examples/measurements/pictures.py runs/latest

The report is photographed by a Chromium that is on the PATH. `line.svg` is drawn by hand.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from dfkd_edge.bundles.opening import bundles_of, open_bundle
from dfkd_edge.commands.ladder_view import bundle_panel
from dfkd_edge.results.kept import proof_of

PICTURES = Path(__file__).parents[2] / ".github" / "pictures"
MAX_BYTES = 200_000
WIDTH_PX, HEIGHT_PX = 1_100, 1_500
"""What is shown of the report: its first screens."""
CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def save_webp(picture: Image.Image, path: Path) -> None:
    """Write a picture as well as it fits into MAX_BYTES."""
    for quality in range(90, 20, -5):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MAX_BYTES:
            print(f"{path}: {path.stat().st_size:,} bytes, quality {quality}")
            return
    raise SystemExit(f"{path} does not fit into {MAX_BYTES:,} bytes")


def save_panel(bundle: Path, report: str) -> None:
    """Write the panel that closed the export, as the terminal shows it."""
    opened = open_bundle(bundle)
    console = Console(record=True, width=112, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(bundle_panel(opened, proof_of(opened), report))
    console.save_svg(str(PICTURES / "panel.svg"), title="dfkd-edge export --target jetson")


def save_report(report: Path) -> None:
    """Photograph the head of the page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        size = f"--window-size={WIDTH_PX},{HEIGHT_PX}"
        command = [chromium, *CHROMIUM, f"--user-data-dir={folder}", size]
        page = report.resolve().as_uri()
        subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True)
        save_webp(Image.open(shot).convert("RGB"), PICTURES / "report.webp")


def main() -> None:
    """Make all three of the newest bundle of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    PICTURES.mkdir(parents=True, exist_ok=True)
    save_panel(bundles_of(run)[0], "runs/latest/report.html")
    save_report(run / "report.html")
    sheet = Image.open(run / "surrogates" / "contact_sheet.png").convert("RGB")
    save_webp(sheet, PICTURES / "contact_sheet.webp")


if __name__ == "__main__":
    main()
