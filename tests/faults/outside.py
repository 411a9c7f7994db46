"""Faults after LoadGen has started that come from outside its process: signals, disks, logs, and the parent's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tests.faults.harness import Fault
from tests.faults.in_run import ACCURACY, FAILED, INFER
from tests.integration.support import Sut
from tests.unit.small_models import write_own

INTERRUPTED = (130,)


def _to_parent(name: str, phase: str, at: str, call: int = 1, **more: object) -> Fault:
    do = f"os.kill(os.getppid(), signal.{name}); time.sleep(2)"
    return Fault(f"{name} while {phase}", "signals", INTERRUPTED, at, do, call=call, **more)  # type: ignore[arg-type]


_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
SIGNALS = [
    *(_to_parent(name, "running", INFER, 20, worst=name == "SIGHUP") for name in _SIGNALS),
    *(_to_parent(name, "closing", "sut.pipeline.system:SUT.close") for name in _SIGNALS),
    *(_to_parent(name, "loading the model", "backends.simulated:Simulated.load", in_run=False) for name in _SIGNALS),
    *(_to_parent(name, "calibrating", "sut.run.timing:calibrate", in_run=False) for name in _SIGNALS),
    *(
        Fault(f"{name} while scoring", "signals", INTERRUPTED, "sut.run.outcome:score_log", f"os.kill(os.getpid(), signal.{name})",
              side="parent", scenario="Offline", options=ACCURACY)
        for name in _SIGNALS
    ),
    *(
        Fault(f"{name} twice while running", "signals", INTERRUPTED, INFER,
              f"os.kill(os.getppid(), signal.{name}); time.sleep(0.02); os.kill(os.getppid(), signal.{name}); time.sleep(2)",
              call=30)
        for name in ("SIGINT", "SIGTERM")
    ),
]  # fmt: skip

LOG = "directory = next(each for each in args if hasattr(each, 'read_text'))\n"


def _log(
    name: str, edit: str, scenario: str = "SingleStream", codes: tuple[int, ...] = FAILED, **more: object
) -> Fault:
    options = ACCURACY if "accuracy" in name else ()
    return Fault(f"{name}, {scenario}", "the logs, after the run", codes, "sut.run.outcome:make_result", LOG + edit,
                 side="parent", scenario=scenario, options=options, **more)  # type: ignore[arg-type]  # fmt: skip


def _value(key: str, value: str) -> str:
    """Python that gives ``key`` of the detail log another value."""
    return (
        "import re; path = directory / 'mlperf_log_detail.txt'; text = path.read_text()\n"
        f'new = re.sub(r\'("key": "{key}", "value": )[^,]+\', lambda match: match[1] + {value!r}, text)\n'
        "assert new != text; path.write_text(new)"
    )


LOGS = [
    *(
        _log(f"the {name} is {what}", edit.format(file=file), **more)
        for name, file, more in (
            ("detail log", "mlperf_log_detail.txt", {}),
            ("summary", "mlperf_log_summary.txt", {}),
            ("trace", "mlperf_log_trace.json", {}),
            ("accuracy log", "mlperf_log_accuracy.json", {"scenario": "Offline"}),
        )
        for what, edit in (
            ("gone", "(directory / '{file}').unlink()"),
            ("empty", "(directory / '{file}').write_bytes(b'')"),
            ("cut in the middle", "path = directory / '{file}'; data = path.read_bytes(); path.write_bytes(data[:len(data) // 2])"),
            ("noise", "(directory / '{file}').write_bytes(bytes(range(256)) * 40)"),
        )
        if (name, what) != ("summary", "gone")
    ),
    _log("the verdict was turned to VALID", _value("result_validity", '"VALID"'), "Server", says="", codes=(3, 4)),
    _log("the log says another scenario", _value("effective_scenario", '"Offline"'), worst=True),
    _log("the log says another mode", _value("effective_test_mode", '"AccuracyOnly"')),
    _log("the count of queries is another", _value("result_query_count", "99999")),
    _log("the metric is null", _value("early_stopping_latency_ss", "null"), worst=True),
    _log("the metric is another", _value("early_stopping_latency_ss", "1000")),
    _log("the median is another", _value("result_50.00_percentile_latency_ns", "7")),
    _log("the rate is another", _value("result_samples_per_second", "1e9"), "Offline"),
    _log("a seed is not the official one", _value("effective_schedule_rng_seed", "1"), codes=(4,)),
    _log("samples per query are others", _value("effective_samples_per_query", "16"), "MultiStream"),
    _log("an error of LoadGen's", "path = directory / 'mlperf_log_detail.txt'; path.write_text(path.read_text().replace('\"is_error\": false', '\"is_error\": true', 1))", codes=(4,)),
    _log("the accuracy log is another run's", "path = directory / 'mlperf_log_accuracy.json'; rows = json.loads(path.read_text()); path.write_text(json.dumps([{**row, 'data': '00004842'} for row in rows]))", "Offline", worst=True),
    _log("an accuracy log with a sample missing", "path = directory / 'mlperf_log_accuracy.json'; path.write_text(json.dumps(json.loads(path.read_text())[1:]))", "Offline"),
    _log("an accuracy log with a strange sample", "path = directory / 'mlperf_log_accuracy.json'; rows = json.loads(path.read_text()); rows[0]['qsl_idx'] = 4711; path.write_text(json.dumps(rows))", "Offline"),
    _log("an accuracy log with half an answer", "path = directory / 'mlperf_log_accuracy.json'; rows = json.loads(path.read_text()); rows[0]['data'] = '00'; path.write_text(json.dumps(rows))", "Offline"),
    _log("an accuracy log with two answers to one sample", "path = directory / 'mlperf_log_accuracy.json'; rows = json.loads(path.read_text()); path.write_text(json.dumps([*rows, {**rows[0], 'data': '0000c842'}]))", "Offline"),
]  # fmt: skip


def _disk(name: str, do: str, codes: tuple[int, ...], **more: object) -> Fault:
    return Fault(name, "disk and folder", codes, INFER, do, call=25, **more)  # type: ignore[arg-type]


MODEL = ("--scenario", "SingleStream,Offline", "--threads", "1")


def _exchange(do: str, sut: Sut) -> Sequence[str]:
    """Two scenarios of one model, whose file ``do`` changes in between."""
    write_own(sut.cwd / "own.onnx")
    write_own(sut.cwd / "other.onnx", classes=1001)
    return (
        "--backend",
        "onnxruntime",
        "--model",
        "own.onnx",
        "--model-name",
        "efficientnet-lite0",
        "--time",
        "0.3",
        *MODEL,
    )


EXCHANGED = [
    Fault(f"the model {what} after the first of two scenarios", "the model, in the run", FAILED, "sut.run.outcome:make_result", do,
          side="parent", prepare=partial(_exchange, do), says="the model changed during the runs", valid=1, worst=True)
    for what, do in (
        ("is replaced by another", "os.replace('other.onnx', 'own.onnx')"),
        ("is written over", "shutil.copyfile('other.onnx', 'own.onnx')"),
        ("is removed", "os.remove('own.onnx')"),
    )
]  # fmt: skip

OUTPUT = "output = next(Path.cwd().glob('output'))\n"
DISK = [
    _disk("the output folder is removed", OUTPUT + "shutil.rmtree(output)", (3,), worst=True),
    _disk("the output folder is moved away", OUTPUT + "output.rename('elsewhere')", (3,)),
    _disk("the run's folder becomes a file", OUTPUT + "run = next(output.glob('*/*/*/*')); run.rename(run.with_name('old')); run.touch()", (3,)),
    _disk("the logs are removed", OUTPUT + "[path.unlink() for path in output.rglob('mlperf_log_*')]", (3,)),
    _disk("no file may grow any more, for the run's process", "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", (3,)),
    _disk("no file may be written any more, for the run's parent", "resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0))", (3,), result=False),
    _disk("the run's folder becomes a link to another", OUTPUT + "run = next(output.glob('*/*/*/*')); run.rename(run.with_name('old')); Path('elsewhere').mkdir(); run.symlink_to(Path('elsewhere').resolve())", (3,)),
    _disk("the output folder becomes a file", OUTPUT + "output.rename('elsewhere'); output.touch()", (3,)),
    _disk("the working folder is removed", "os.rename(os.getcwd(), os.getcwd() + '-moved')", (0, 3), result=False),
]  # fmt: skip


def _parent(
    at: str, error: str, codes: tuple[int, ...] = FAILED, scenario: str = "SingleStream", **more: object
) -> Fault:
    name = f"{error.partition('(')[0]} in {at.partition(':')[2]}"
    return Fault(name, "raised in the parent", codes, at, f"raise {error}", side="parent", scenario=scenario, **more)  # type: ignore[arg-type]


PARENT = [
    _parent("sut.run.supervisor:_Watch._show", "RuntimeError('show')", call=2, worst=True),
    _parent("sut.run.supervisor:_Watch._stalled", "OSError(5, 'stalled')", call=2),
    _parent("sut.process.child:Lines.of", "UnicodeDecodeError('utf-8', b'x', 0, 1, 'lines')"),
    _parent("sut.run.supervisor:_Watch._take", "KeyError('take')"),
    _parent("sut.results.stages:own_latency_ns", "IndexError('own latency')"),
    _parent("sut.cli.console:Watcher.progress", "BrokenPipeError(32, 'Broken pipe')", (0, 3)),
    _parent("sut.cli.console:Watcher.phase", "RuntimeError('phase')"),
    _parent("sut.run.outcome:make_result", "RuntimeError('make')", worst=True),
    _parent("sut.mlperf.logs:read_detail", "MemoryError('detail')"),
    _parent("sut.mlperf.logs:read_trace", "MemoryError('trace')"),
    _parent("sut.results.stages:join", "RuntimeError('join')"),
    _parent("sut.mlperf.metrics:percentile_stats", "ZeroDivisionError('percentiles')"),
    _parent("sut.results.schema:stage_stats", "RuntimeError('stages')"),
    _parent("sut.mlperf.rules:broken_rules", "KeyError('rules')"),
    _parent("sut.mlperf.rules:explain_invalid", "KeyError('explain')"),
    _parent("sut.run.outcome:system_facts", "OSError(5, 'facts')"),
    _parent("sut.run.outcome:score_log", "RuntimeError('score')", scenario="Offline", options=ACCURACY),
    _parent("sut.mlperf.accuracy:read_accuracy_log", "MemoryError('answers')", scenario="Offline", options=ACCURACY),
    _parent("sut.results.schema:reference_results", "RuntimeError('reference')"),
    _parent("sut.run.folders:_tidy", "OSError(5, 'tidy')", (0,)),
    _parent("sut.cli.console:Console.result", "RuntimeError('console')", valid=1),
]  # fmt: skip
