"""What LoadGen and MLPerf's rules say: settings, logs, seeds, accuracy files, verdicts."""
