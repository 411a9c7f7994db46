"""Processes and what they live in: children, signals, streams, control groups, clocks."""
