"""What a run costs in energy: counters of CPU and GPU where they may be read, or the log of a meter at the wall."""
