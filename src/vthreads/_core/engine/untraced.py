"""Suspend the trace and profile functions of the calling OS thread. The interpreter counts the calls, so they nest."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

__all__ = ["enter_tracing", "leave_tracing", "thread_state"]

_api = ctypes.pythonapi

thread_state: Callable[[], Any] = _api.PyThreadState_Get
thread_state.restype = ctypes.c_void_p  # type: ignore[attr-defined]  # of ctypes

enter_tracing: Callable[[Any], None] = _api.PyThreadState_EnterTracing
leave_tracing: Callable[[Any], None] = _api.PyThreadState_LeaveTracing
for _function in (enter_tracing, leave_tracing):
    _function.argtypes, _function.restype = [ctypes.c_void_p], None  # type: ignore[attr-defined]  # of ctypes
