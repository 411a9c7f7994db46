"""One run from its plan to its result: prepare, try settings, supervise a child process, judge what it did."""
