"""The system under test itself: batching, lanes, stages, and the ledger of when each thing happened."""
