"""The evidence: plans, measurements, comparisons, verdicts."""
