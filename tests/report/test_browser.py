"""The report in headless Chromium: no complaint on the console, working script, fits a phone."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dfkd_edge.report import write_report
from tests.report.pages import EVIL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]
PHONE_PX = 360
"""Narrower than the narrowest window that Chromium opens, so the page's body takes the width."""
PROBE = """<script>
addEventListener("load", () => {
  document.body.style.width = "360px";
  document.querySelector(".picture").click();
  document.querySelector(".chip").click();
  document.title = [
    document.getElementById("viewer").open,
    document.querySelectorAll("circle.picked").length,
    document.body.scrollWidth,
  ].join(" ");
});
</script>"""


def _open(path: Path) -> tuple[str, list[str]]:
    """Load a page; returns the document as it stands afterwards and the console's lines."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command = [CHROMIUM, *flags, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_chromium_shows_the_report_without_a_complaint(run: Path) -> None:
    path = write_report(run)
    document, console = _open(path)
    assert console == []
    assert "4.0 times smaller" in document
    assert html.escape(EVIL, quote=False) in document
    guarded = path.with_name("guarded.html")
    guarded.write_text(path.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    _, console = _open(guarded)
    assert "Content Security Policy" in console[0]  # errors are seen; foreign script never runs


def test_pictures_enlarge_styles_light_up_and_a_phone_scrolls_tables_only(run: Path) -> None:
    path = write_report(run)
    text = re.sub(r"<meta http-equiv=.*?>", "", path.read_text(encoding="utf-8"))
    path.write_text(text + PROBE, encoding="utf-8")
    document, console = _open(path)
    assert console == []
    assert f"<title>true 3 {PHONE_PX}</title>" in document
