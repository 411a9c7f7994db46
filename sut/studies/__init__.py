"""Questions that take many runs: comparisons, searches, simulations."""
