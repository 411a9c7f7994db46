"""What a scenario would gain if a stage were faster, seen in runs in which all others are slower."""
