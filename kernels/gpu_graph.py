"""CUDA graphs of what is started on a stream, by the driver itself: neither PyCUDA nor all of CuPy's streams have them.

Signatures and constants are those of cuda.h (CUDA Driver API, "Graph Management" and "Stream Management").
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from plugins.driver import error_text

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other lanes may allocate, copy and launch meanwhile. To wait for
the whole context is forbidden to all threads, which ``Gpu.starting`` sees to."""


class GraphError(Exception):
    """What the driver refuses."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Graph:
    """What was started on a stream, ready to be started again. All methods want the GPU current in this thread."""

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        """Have ``work`` start things on ``stream``, none of which runs. Raises ``GraphError``, and what it raises."""
        self._library = ctypes.CDLL("libcuda.so.1")
        self._exec = ctypes.c_void_p()
        handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
        self._check("cuStreamBeginCapture_v2", handle, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:
                # A capture that is not ended would take all that comes.
                ended = self._library.cuStreamEndCapture(handle, ctypes.byref(graph))
            if ended:
                raise self._error("cuStreamEndCapture", ended)
            self._check("cuGraphInstantiateWithFlags", ctypes.byref(self._exec), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:  # the driver gives none where it could not end the capture
                self._library.cuGraphDestroy(graph)

    def launch(self, stream: int) -> None:
        """Start all of it."""
        self._check("cuGraphLaunch", self._exec, ctypes.c_void_p(stream))

    def destroy(self) -> None:
        """Free it; it may not be under way."""
        self._library.cuGraphExecDestroy(self._exec)

    def _check(self, function: str, *arguments: Any) -> None:
        if code := getattr(self._library, function)(*arguments):
            raise self._error(function, code)

    def _error(self, function: str, code: int) -> GraphError:
        return GraphError(f"{function} failed: {error_text(self._library, code) or code}", code)


class CapturesGraphs:
    """A ``Driver``'s part in graphs, which are those of the CUDA driver itself."""

    def capture(self, stream: int, work: Callable[[], None]) -> Graph:
        """See ``Driver``."""
        return Graph(stream, work)

    def replay(self, graph: Graph, stream: int) -> None:
        """See ``Driver``."""
        graph.launch(stream)

    def drop_graph(self, graph: Graph) -> None:
        """See ``Driver``."""
        graph.destroy()
