"""What can be wrong with a submission's tree."""

from __future__ import annotations

from sut.mlperf.finding import Rule, Severity

_INVALID = Severity.INVALID
_DOUBT = Severity.DOUBT


class TreeRule(Rule):
    """What a finding about a tree is about. Those about one log by itself are of ``judge_log``'s rules."""

    LINK = "a link, which MLCommons' tools refuse", _INVALID
    KIND = "neither a file nor a folder", _INVALID
    NAME = "a name that MLCommons' tools refuse", _INVALID
    UNREADABLE = "it cannot be read", _INVALID
    LARGE = "larger than MLCommons' tools take", _INVALID
    MISSING = "what a submission must have is missing", _INVALID
    EMPTY = "it is empty", _INVALID
    STRAY = "what must not be there", _INVALID
    EXTRA = "nobody asks for it", _DOUBT
    FORM = "it does not hold what such a file holds", _INVALID
    FIELD = "a field is missing or says nothing", _INVALID
    VALUE = "a field has a value that is not allowed", _INVALID
    NAMES = "it names another submitter or division than its folder", _INVALID
    MODEL = "neither a known model nor mapped to one", _INVALID
    SCENARIOS = "the scenarios are not those of its system's type", _INVALID
    NETWORK = "the log does not name what is reached over a network, or names what is not", _INVALID
    REHEARSAL = "it says of itself that it is a rehearsal", _INVALID

    ENTRY = "the log lacks what LoadGen writes into each", _INVALID
    ERRORS = "LoadGen counted errors that its log does not have", _INVALID
    SCENARIO = "the log is of another scenario", _INVALID
    INFERRED = "inferred: the log is of the scenario that this one's result is inferred from", _DOUBT
    SAME = "one run's log stands for two runs", _INVALID
    MIN_DURATION = "the run was set to be shorter than MLPerf asks for", _INVALID
    LENGTH = "the run was shorter than MLPerf asks for", _INVALID
    COUNT = "the run has not the number of samples or queries that MLPerf asks for", _INVALID
    SAMPLES = "performance_sample_count is too small", _INVALID
    PERCENTILE = "the percentile is not MLPerf's", _INVALID
    BOUND = "Server's latency bound is not MLPerf's", _INVALID
    ROLE = "the run was not set as its folder says", _INVALID
    CONF = "user.conf is not the run's", _INVALID

    PICTURES = "not all pictures of the data set were answered", _INVALID
    SCORE = "accuracy.txt contradicts itself"
    TARGET = "the accuracy is too low", _INVALID
    HASH = "the hash is not the accuracy log's"
    TRUNCATION = "the accuracy log is not truncated as MLCommons' script does it", _INVALID

    FAILED = "the audit was not passed", _INVALID
    SAMPLED = "TEST01 logged more or fewer answers than LoadGen does by its settings", _INVALID
    ANSWERS = "an answer that TEST01 sampled is not the accuracy run's", _INVALID
    COUNTS = "the audit's counts contradict each other"
    SCORES = "the audit's scores are not those of the logs"
    RATIO = "the audit's score is too far from the run's", _INVALID
