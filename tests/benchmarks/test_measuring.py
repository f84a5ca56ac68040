import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from measuring import measured
for mib in (256, 1):
    print(measured([sys.executable, "-c", f"bytearray({mib} * 2**20)"]).peak_gib)
"""
"""In a process of its own: Linux counts the parent's memory at the fork into the child's peak."""


def test_the_peak_memory_of_a_run_is_not_that_of_an_earlier_one() -> None:
    command, here = [sys.executable, "-c", PROGRAM], Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    large_gib, small_gib = map(float, result.stdout.split())
    assert large_gib > 0.25
    assert small_gib < 0.125
