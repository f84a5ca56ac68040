import subprocess
import sys
from pathlib import Path

PROGRAM = """
import runpy, sys
measured = runpy.run_path(sys.argv[1])["measured"]
for mib in (256, 1):
    print(measured([sys.executable, "-c", f"bytearray({mib} * 2**20)"])[2])
"""
"""In a process of its own: Linux counts the parent's memory at the fork into the child's peak."""


def test_the_peak_memory_of_a_run_is_not_that_of_an_earlier_one() -> None:
    script = Path(__file__).with_name("distill_seeds.py")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(script)], capture_output=True, text=True, check=True
    )
    large_gib, small_gib = map(float, result.stdout.split())
    assert large_gib > 0.25
    assert small_gib < 0.125
