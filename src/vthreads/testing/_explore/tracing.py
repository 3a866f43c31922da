"""Stop code of the program before each line or instruction, by `sys.monitoring` or `sys.settrace`.

While a tracing function runs, the interpreter marks its thread state as tracing and traces nothing in it. A switch from
there would leave the mark set, so the next thread would not be traced either. So the mark is cleared before the switch
and set again after it. On Python 3.12 and later `sys.monitoring` has no cost for instructions that are disabled because
they are private. On 3.11 a trace function is called for all instructions.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Protocol

from .schedule import Points
from .source_lines import line_of
from .user_code import UserCode, shared_instructions

__all__ = ["Tracer", "make_tracer"]

# Called with the position of the code (instruction or line), and with the function to call for a switch.
Point = Callable[[CodeType, int | None, int | None, Callable[[], None]], None]

_api = ctypes.pythonapi
_thread_state = _api.PyThreadState_Get
_thread_state.restype = ctypes.c_void_p
_enter, _leave = _api.PyThreadState_EnterTracing, _api.PyThreadState_LeaveTracing
_enter.argtypes = _leave.argtypes = [ctypes.c_void_p]
_enter.restype = _leave.restype = None


def _outside_tracing(switch: Callable[[], None]) -> Callable[[], None]:
    def switch_and_come_back() -> None:
        state = _thread_state()
        _leave(state)
        try:
            switch()
        finally:
            _enter(state)

    return switch_and_come_back


class Tracer(Protocol):
    """Calls the point of a run between `start` and `stop`."""

    def start(self, point: Point, switch: Callable[[], None]) -> None:
        """Start to call `point` on this OS thread, with a `switch` that it may call."""

    def stop(self) -> None:
        """Stop calling the point."""

    def close(self) -> None:
        """Release the tracer's resources in the interpreter."""


class NoTracer:
    """The tracer for runs whose points are all calls."""

    def start(self, point: Point, switch: Callable[[], None]) -> None:
        """Do nothing: no code needs tracing."""

    def stop(self) -> None:
        """Do nothing: no tracing was started."""

    close = stop


class TraceFunction:
    """Traces by `sys.settrace`; the previous trace function is restored afterwards."""

    def __init__(self, points: Points, user_code: UserCode) -> None:
        self._opcodes = points == "opcodes"
        self._user_code = user_code
        self._shared: dict[CodeType, frozenset[int]] = {}
        self._before: Any = None

    def start(self, point: Point, switch: Callable[[], None]) -> None:
        self._before = sys.gettrace()
        make = self._opcode_function if self._opcodes else self._line_function
        # If a point raises, the interpreter ends the tracing. Nothing is lost: points raise only in runs that are over.
        sys.settrace(make(point, _outside_tracing(switch)))

    def stop(self) -> None:
        sys.settrace(self._before)
        self._before = None

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _line_function(self, point: Point, switch: Callable[[], None]) -> Any:
        user_code = self._user_code

        def trace_lines(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                point(frame.f_code, None, frame.f_lineno, switch)
            return trace_lines

        return lambda frame, event, argument: trace_lines if frame in user_code else None

    def _opcode_function(self, point: Point, switch: Callable[[], None]) -> Any:
        user_code, shared = self._user_code, self._shared

        def trace_opcodes(frame: FrameType, event: str, argument: Any) -> Any:
            code = frame.f_code
            if event == "opcode" and frame.f_lasti in shared[code]:
                point(code, frame.f_lasti, None, switch)
            return trace_opcodes

        def trace_calls(frame: FrameType, event: str, argument: Any) -> Any:
            offsets = shared.get(frame.f_code)
            if offsets is None:
                # Code outside the program has no shared instructions. This function is called for such code mostly.
                offsets = shared_instructions(frame.f_code) if frame in user_code else frozenset()
                shared[frame.f_code] = offsets
            if not offsets:
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return trace_opcodes

        return trace_calls


if sys.version_info >= (3, 12):
    _monitoring = sys.monitoring
    _events = _monitoring.events

    class Monitoring:
        """Traces by `sys.monitoring`, under a free tool id; trace functions stay as they are."""

        def __init__(self, points: Points, user_code: UserCode) -> None:
            self._user_code = user_code
            self._callbacks: dict[int, Callable[..., Any]] = {_events.INSTRUCTION: self._on_instruction}
            if points == "lines":
                # A loop on a single line starts that line only once, so its jumps must be points too.
                self._callbacks = {_events.LINE: self._on_line, _events.JUMP: self._on_jump}
            self._shared: dict[CodeType, frozenset[int]] = {}
            self._point: Point | None = None
            self._switch: Callable[[], None] = lambda: None
            self._tool = _free_tool()
            _monitoring.use_tool_id(self._tool, "vthreads.testing.explore")
            for event, callback in {**self._callbacks, _events.PY_START: self._on_start}.items():
                _monitoring.register_callback(self._tool, event, callback)
            # Code that was disabled as foreign in an earlier exploration may belong to the program now.
            _monitoring.restart_events()

        def start(self, point: Point, switch: Callable[[], None]) -> None:
            self._point, self._switch = point, _outside_tracing(switch)
            _monitoring.set_events(self._tool, _events.PY_START)

        def stop(self) -> None:
            self._point = None
            _monitoring.set_events(self._tool, 0)

        def close(self) -> None:
            for code in self._shared:
                _monitoring.set_local_events(self._tool, code, 0)
            for event in (*self._callbacks, _events.PY_START):
                _monitoring.register_callback(self._tool, event, None)
            _monitoring.free_tool_id(self._tool)

        def _on_start(self, code: CodeType, offset: int) -> Any:
            if code not in self._shared and sys._getframe(1) in self._user_code:
                self._shared[code] = shared_instructions(code)
                _monitoring.set_local_events(self._tool, code, sum(self._callbacks))
            return _monitoring.DISABLE

        def _on_instruction(self, code: CodeType, offset: int) -> Any:
            if offset not in self._shared[code]:
                return _monitoring.DISABLE
            if self._point is not None:
                self._point(code, offset, None, self._switch)
            return None

        def _on_line(self, code: CodeType, line: int) -> Any:
            if self._point is not None:
                self._point(code, None, line, self._switch)

        def _on_jump(self, code: CodeType, offset: int, target: int) -> Any:
            line = line_of(code, target)
            if target > offset or line != line_of(code, offset):
                return _monitoring.DISABLE
            if self._point is not None:
                self._point(code, None, line, self._switch)
            return None

    def _free_tool() -> int:
        # Start with the last ids: by convention, debuggers, coverage and profilers have the first.
        for tool in (4, 3, 5, 2, 1, 0):
            if _monitoring.get_tool(tool) is None:
                return tool
        raise RuntimeError("all six tools of sys.monitoring are in use; end a debugger, profiler or coverage first")


def make_tracer(points: Points, user_code: UserCode) -> Tracer:
    """Return the tracer of this Python version for `points`."""
    if points == "checkpoints":
        return NoTracer()
    if sys.version_info >= (3, 12):
        return Monitoring(points, user_code)
    return TraceFunction(points, user_code)
