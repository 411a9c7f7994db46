"""From finished runs and what only a person knows to a submission of MLPerf's, or to a rehearsal of one."""
