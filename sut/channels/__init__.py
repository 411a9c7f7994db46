"""What carries messages between two stages of a pipeline: in a process, between processes, through a broker."""
