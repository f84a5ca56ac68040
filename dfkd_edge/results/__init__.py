"""What was measured: ladders, intervals, class answers, confidence, devices."""
