"""What harvester costs, beside the loop one would write instead: `python -m benchmarks`."""
