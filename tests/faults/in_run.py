"""Faults in the process that LoadGen runs in, after it has started: what is raised, what hangs, what dies, what lies."""

from __future__ import annotations

import re

from tests.faults.harness import Fault

FAILED = (3,)
ACCURACY = ("--accuracy",)
STAGED = ("--boundary", "jpeg", "--preprocess-workers", "2")
PROCESSES = (*STAGED, "--preprocess-place", "process")
JPEG = ("--boundary", "jpeg")
WATCHED = ("--watchdog", "2")


def _raises(at: str, error: str, scenario: str = "SingleStream", call: int = 3, **more: object) -> Fault:
    name = f"{error.partition('(')[0]} in {at.partition(':')[2]}, {scenario}"
    codes = more.pop("codes", FAILED)
    words = re.findall(r"'([^']+)'", error)
    says = words[-1] if words else error.partition("(")[0]
    return Fault(
        name, "raised in the run", codes, at, f"raise {error}", call=call, scenario=scenario, says=says, **more
    )  # type: ignore[arg-type]


RAISED = [
    _raises("sut.pipeline.system:SUT.issue", "RuntimeError('issue')", worst=True),
    _raises("sut.pipeline.system:SUT._complete", "OSError(5, 'complete')", options=WATCHED),
    _raises("sut.pipeline.system:SUT.flush", "RuntimeError('flush')", call=1),
    _raises("sut.pipeline.system:SUT.close", "RuntimeError('close')", call=1),
    _raises("sut.pipeline.batching:BatchingPolicy.cut", "IndexError('cut')"),
    _raises("sut.pipeline.queues:Queue.put", "MemoryError('put')", "Offline", 1),
    _raises("sut.pipeline.queues:Queue.take", "RuntimeError('take')", "Offline", options=WATCHED, worst=True),
    _raises("sut.pipeline.queues:Queue._pop", "IndexError('pop')", "Offline", options=WATCHED),
    _raises(
        "sut.pipeline.queues:PatientQueue._fill_up",
        "ValueError('timed')",
        "Server",
        options=("--max-wait", "1", *WATCHED),
    ),
    _raises("sut.pipeline.lane:Lane.work", "MemoryError('work')", worst=True),
    _raises("sut.pipeline.lane:Lane.work", "SystemExit(0)", "Offline", worst=True),
    _raises("sut.pipeline.lane:Lane.work", "KeyboardInterrupt()", "MultiStream"),
    _raises("sut.pipeline.lane:Lane.answer", "RuntimeError('answer')", "MultiStream"),
    _raises("sut.pipeline.lane:Lane.process", "RuntimeError('process')"),
    _raises("sut.pipeline.lane:Lane.process", "RuntimeError('process on a thread')", "Offline", options=WATCHED),
    _raises("sut.pipeline.lane:Lane.slot", "MemoryError('slot')", "Offline"),
    _raises("sut.pipeline.lane:fill_stamped", "RuntimeError('fill')", "Offline"),
    _raises("sut.pipeline.lane:finish", "KeyError('finish')"),
    _raises("sut.pipeline.lane:finish", "KeyError('finish on a thread')", "Server", options=WATCHED),
    _raises("sut.pipeline.lane:Recorder.record", "OverflowError('record')"),
    _raises("sut.pipeline.lane:Recorder.record", "OverflowError('record on a thread')", "Offline", options=WATCHED),
    _raises("sut.qsl.library:_Gather.view", "ValueError('view')"),
    _raises("sut.qsl.library:_Gather.fill", "ValueError('gather')", "Offline"),
    _raises("sut.qsl.picture_library:_Preprocess.fill", "ValueError('preprocess')", options=JPEG),
    _raises("sut.qsl.library:Library.require", "ValueError('require')", "Offline"),
    _raises("sut.qsl.library:Library.load", "RuntimeError('load')", "Offline", 1, options=ACCURACY),
    _raises("sut.qsl.library:Library.unload", "RuntimeError('unload')", "Offline", 1, options=ACCURACY),
    _raises("sut.pipeline.ledger:Ledger.issue", "BufferError('issue')"),
    _raises("sut.pipeline.ledger:Ledger.batch", "BufferError('batch')"),
    _raises("sut.pipeline.ledger:Ledger.batch", "BufferError('batch on a thread')", "Offline", options=WATCHED),
    _raises("sut.pipeline.ledger:Ledger.prepared", "BufferError('prepared')", "Offline", options=(*STAGED, *WATCHED)),
    _raises(
        "sut.pipeline.staged:Preprocess._prepare", "RuntimeError('prepare')", "Offline", options=(*STAGED, *WATCHED)
    ),
    _raises("sut.pipeline.channel:Channel.reserve", "MemoryError('reserve')", "Offline", options=(*STAGED, *WATCHED)),
    _raises("sut.pipeline.channel:Channel.put", "RuntimeError('channel')", "Server", options=(*STAGED, *WATCHED)),
    _raises("sut.pipeline.channel:Channel.take", "RuntimeError('take')", "Offline", options=(*STAGED, *WATCHED)),
    _raises("sut.pipeline.channel:Channel.done", "RuntimeError('done')", "Offline", options=(*STAGED, *WATCHED)),
    _raises("sut.pipeline.staged:_process", "RuntimeError('process')", "Offline", options=(*STAGED, *WATCHED)),
    *(
        _raises(f"sut.pipeline.{at}", error, "Offline", options=(*PROCESSES, *WATCHED))
        for at, error in (
            ("process_channel:ProcessChannel._hear", "RuntimeError('hear')"),
            ("process_channel:ProcessChannel.take", "RuntimeError('take of a process')"),
            ("process_channel:ProcessChannel.done", "RuntimeError('done with a row')"),
            ("trays:Trays.put", "IndexError('put on a tray')"),
            ("shared:SharedRows.told", "BufferError('told')"),
        )
    ),
    _raises("sut.pipeline.process_channel:ProcessChannel.ask", "RuntimeError('ask')", "Offline", 1, options=PROCESSES),
    _raises("sut.pipeline.shared:SharedRows.tell", "BufferError('tell')", "Server", side="worker", options=PROCESSES),
    _raises("sut.qsl.shared_pictures:PictureReader.read", "OSError(5, 'read')", side="worker", options=PROCESSES),
    _raises("sut.mlperf.loadgen:responses", "MemoryError('responses')"),
    _raises("sut.mlperf.loadgen:_Pool.responses", "MemoryError('pool')", "Offline", options=WATCHED),
    _raises("sut.tasks.classification:Classification.decode", "ValueError('decode')", "Server"),
    _raises("sut.tasks.classification:Classification._labels", "FloatingPointError('labels')"),
    _raises("backends.simulated:SimulatedRunner.infer", "RuntimeError('infer')", "Server", worst=True),
    _raises("backends.simulated:SimulatedRunner.slot", "MemoryError('slot')", "Offline"),
    _raises("preprocess.opencv:OpenCV.run", "ValueError('opencv')", "Offline", options=JPEG),
    _raises("preprocess.parts.decode:decode", "ValueError('cannot decode: got')", "Server", options=JPEG),
    _raises(
        "preprocess.parts.decode:check",
        "ValueError('damaged')",
        "Offline",
        1,
        codes=(1,),
        options=(*ACCURACY, "--max-batchsize", "2"),
    ),
    _raises(
        "sut.datasets.base:DataSet.read",
        "OSError(5, 'Input/output error')",
        "SingleStream",
        1,
        codes=(1,),
        options=ACCURACY,
    ),
]


def _lies(at: str, after: str, scenario: str = "SingleStream", call: int = 3, **more: object) -> Fault:
    name = f"{at.partition(':')[2]} gives {after.partition('= ')[2]}, {scenario}"
    codes = more.pop("codes", FAILED)
    return Fault(name, "wrong answers in the run", codes, at, after=after, call=call, scenario=scenario, **more)  # type: ignore[arg-type]


INFER = "backends.simulated:SimulatedRunner.infer"
DECODE = "sut.tasks.classification:Classification.decode"
LIES = [
    _lies(INFER, "result = {}", worst=True),
    _lies(INFER, "result = None"),
    _lies(INFER, "result = {'label': result['label'][:0]}", worst=True),
    _lies(INFER, "result = {'label': result['label'][1:]}", "Offline"),
    _lies(INFER, "result = {'label': [*result['label'], 1]}", "Offline", worst=True),
    _lies(INFER, "result = {'label': -1 - result['label']}"),
    _lies(INFER, "result = {'label': result['label'] + 10**6}"),
    _lies(INFER, "result = {'label': result['label'].astype(float) * float('nan')}"),
    _lies(INFER, "result = {'label': result['label'].astype(str)}"),
    _lies(INFER, "result = {'scores': result['label']}"),
    _lies(DECODE, "result = result[:0]"),
    _lies(DECODE, "result = [bytes(4)] * (len(result) + 1)"),
    _lies(DECODE, "result = None"),
    _lies(DECODE, "result = [None] * len(result)"),
    _lies("sut.qsl.library:_Gather.view", "result = None", codes=(0,)),
    _lies("sut.pipeline.batching:BatchingPolicy.cut", "result = []", options=WATCHED, worst=True),
    _lies("sut.pipeline.batching:BatchingPolicy.cut", "result = 2 * result", codes=(3, 4), options=WATCHED, worst=True),
    _lies("sut.pipeline.queues:Queue.take", "result = None if result is None else type(result)(result.ids[:-1], result.indices[:-1], result.starts)", "Offline", options=WATCHED),
    _lies("sut.mlperf.loadgen:responses", "result = result[:0]", options=WATCHED, worst=True),
    _lies("sut.mlperf.loadgen:responses", "result = result + result", codes=(3, 4), worst=True),
    _lies("sut.pipeline.system:SUT._complete", "result = result - 10**9"),
    _lies("sut.pipeline.lane:Lane.work", "result = (result[0], [each + 10**10 for each in result[1]])"),
]  # fmt: skip


def _process(
    name: str, do: str, codes: tuple[int, ...] = FAILED, at: str = INFER, call: int = 3, **more: object
) -> Fault:
    return Fault(name, "the process in the run", codes, at, do, call=call, **more)  # type: ignore[arg-type]


def _signal(name: str, **more: object) -> Fault:
    return _process(f"{name} to the run's process", f"os.kill(os.getpid(), signal.{name}); time.sleep(1)", **more)  # type: ignore[arg-type]


NO_CORE = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
PROCESS = [
    *(_signal(name, codes=(0,)) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")),  # the parent's to hear
    *(_signal(name) for name in ("SIGXCPU", "SIGALRM", "SIGUSR1", "SIGVTALRM", "SIGIO")),
    _signal("SIGKILL", worst=True, says="SIGKILL"),
    *(
        _process(f"{name} in the run's process", f"{NO_CORE}os.kill(os.getpid(), signal.{name}); time.sleep(1)", says=name)
        for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")
    ),
    _process("a read of address 0", f"{NO_CORE}ctypes.string_at(0)", says="SIGSEGV", worst=True),
    *(
        _process(
            f"{name} to a process that preprocesses",
            f"os.kill(os.getpid(), signal.{name}); time.sleep(1)",
            at="sut.qsl.shared_pictures:PictureReader.read",
            side="worker",
            options=("--boundary", "jpeg", "--preprocess-workers", "1", "--preprocess-place", "process", *WATCHED),
            scenario="Offline",
            says=says,
            worst=True,
        )
        for name, says in (("SIGKILL", "its process was killed by SIGKILL"), ("SIGSTOP", "no progress"))
    ),
    _process("SIGSTOP to the run's process", "os.kill(os.getpid(), signal.SIGSTOP)", options=WATCHED, worst=True),
    *(_process(f"os._exit({code})", f"os._exit({code})", scenario="Offline") for code in (0, 1, 2, 3, 4, 130)),
    _process("a hang in infer", "time.sleep(3600)", options=WATCHED, worst=True),
    _process("a hang in infer on a lane", "time.sleep(3601)", options=WATCHED, scenario="Offline"),
    _process("a hang in infer that holds the GIL", "ctypes.PyDLL(None).pause()", options=WATCHED, worst=True),
    _process("a loop in infer that never ends", "while True: pass", options=WATCHED),
    _process("a hang before LoadGen is answered", "time.sleep(3602)", at="sut.pipeline.system:SUT._complete", options=WATCHED),
    _process("a hang when samples are loaded", "time.sleep(3603)", at="sut.qsl.library:Library.load", call=1, options=WATCHED),
    _process("a hang when the SUT is closed", "time.sleep(3604)", at="sut.pipeline.system:SUT.close", call=1, options=WATCHED),
    _process("a lock that is never given back", "args[0]._lock.acquire()", at="sut.pipeline.lane:Recorder.record", options=WATCHED),
    _process("a fork that holds everything open", "os.fork() or time.sleep(3605)\nos._exit(7)", worst=True),
    _process(
        "a helper in a session of its own",
        "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(3606)'], start_new_session=True)",
        codes=(0,),
        worst=True,
    ),
    _process(
        "a daemon: forked twice, in a session of its own",
        "os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(3607))",
        codes=(0,),
        worst=True,
    ),
    _process("no more memory for the process", "resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20)); bytearray(2**26)"),
    _process("no more open files", "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0)); open('/dev/null')"),
    _process("no thread can be started", "raise RuntimeError(\"can't start new thread\")", says="can't start new thread"),
    _process("recursion without an end", "def deeper(): deeper()\ndeeper()"),
    *(
        _process(f"on the pipe to the parent: {what}", f"os.write(find('Events')._pipe.fileno(), {line}); time.sleep(0.5)", codes=codes, options=WATCHED)
        for what, line, codes in (
            ("no text", r"b'\xff\xfe\n'", (3,)),
            ("no JSON", r"b'hello\n'", (3,)),
            ("a list", r"b'[1, 2]\n'", (3,)),
            ("a number", r"b'7\n'", (3,)),
            ("no event", r"b'{}\n'", (3,)),
            ("an event nobody knows", r"b'{\"event\": \"party\"}\n'", (0, 3)),
            ("an error without its code", r"b'{\"event\": \"error\"}\n'", (3,)),
            ("a code that is none", r"b'{\"event\": \"error\", \"code\": 99, \"message\": \"x\", \"traceback\": \"\"}\n'", (3,)),
            ("a second plan", r"b'{\"event\": \"plan\"}\n'", (3,)),
            ("a phase without a name", r"b'{\"event\": \"phase\"}\n'", (3,)),
            ("the end, too early", r"b'{\"event\": \"finished\"}\n'", (0, 3)),
            ("half a line", r"b'{\"event\": '", (3,)),
        )
    ),
    _process("the pipe to the parent is closed", "os.close(find('Events')._pipe.fileno()); time.sleep(0.5)", options=WATCHED),
    _process("megabytes on its output", "[os.write(1, b'babble ' * 2**17) for _ in range(64)]", codes=(0,)),
    _process("the shared memory is cut off", f"{NO_CORE}os.truncate(memory_file(), 0)"),
]  # fmt: skip
