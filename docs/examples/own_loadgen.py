"""LoadGen driven by a script of one's own.

From the checkout: PYTHONPATH=. .venv/bin/python docs/examples/own_loadgen.py
"""

from pathlib import Path

import mlperf_loadgen as lg

from sut import SUT, RunConfig

output = Path("output", "own_loadgen")
output.mkdir(parents=True, exist_ok=True)
settings, logs = lg.TestSettings(), lg.LogSettings()
settings.FromConfig("", "resnet50", "SingleStream", 0)  # the rules compiled into LoadGen, and its seeds
settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
settings.min_duration_ms, settings.min_query_count = 1000, 64
settings.single_stream_expected_latency_ns = 1_000_000  # twice as many queries as this asks for are made, never more
logs.log_output.outdir = str(output)

with SUT(RunConfig(scenario="SingleStream", dataset="demo")) as sut:
    library = sut.library
    qsl = lg.ConstructQSL(library.count, library.performance_count, library.load, library.unload)
    lg.StartTestWithLogSettings(lg.ConstructFastSUT(sut.issue, sut.flush), qsl, settings, logs, "")

print((output / "mlperf_log_summary.txt").read_text())
print(f"{sut.failed_samples} samples failed")  # LoadGen calls a run VALID whatever the answers were
