"""What other servers need to run a model, or the pipeline: files of theirs, and the process behind them."""
