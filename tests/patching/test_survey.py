"""The patch looks through all objects of the program, and evaluates none of them."""

from __future__ import annotations

import textwrap

import pytest

pytestmark = pytest.mark.unpatched


ODD_OBJECTS = {
    "a proxy of something that is gone": """
        class Gone: pass
        gone = Gone()
        odd = weakref.proxy(gone)
        del gone
    """,
    "an object that is evaluated when it is asked for its class": """
        class Lazy:
            @property
            def __class__(self): raise AssertionError("evaluated")
        odd = Lazy()
    """,
    "an object that is evaluated by any attribute": """
        class Lazy:
            def __getattribute__(self, name): raise AssertionError("evaluated")
        odd = Lazy()
        object.__setattr__(odd, "lock", lock)
    """,
    "a class that cannot be hashed and takes no attributes": """
        class Meta(type):
            __hash__ = None
            def __eq__(cls, other): raise AssertionError("compared")
            def __setattr__(cls, name, value): raise AssertionError("refused")
            @property
            def __module__(cls): raise AssertionError("evaluated")
            @property
            def __dict__(cls): raise AssertionError("evaluated")
        class Odd(metaclass=Meta):
            lock = lock
            sleep = time.sleep
        odd = Odd()
    """,
    "a module that is imported when it is first used": """
        import importlib.util
        spec = importlib.util.find_spec("this")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        odd = sys.modules["this"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(odd)
    """,
    "a dict that refuses": """
        class Refusing(dict):
            def refuse(self, *args): raise AssertionError("asked")
            get = items = __setitem__ = __contains__ = __iter__ = refuse
        odd = Refusing(lock=lock)
    """,
}


def test_patching_asks_no_object_that_it_looks_at(run_script):
    start = "import sys, threading, time, weakref\nlock, keep = threading.Lock(), []\n"
    odd_objects = "".join(f"{textwrap.dedent(odd)}keep.append(odd)\n" for odd in ODD_OBJECTS.values())
    end = """
import vthreads
from vthreads.testing import check_nothing_leaked
def root():
    import multiprocessing.managers
    with check_nothing_leaked():
        vthreads.sleep(0)
vthreads.run(root)
print("run")
"""
    assert "run\n" == run_script(start + odd_objects + end)


def test_patching_leaves_objects_alone_that_a_c_module_keeps_for_reuse(run_script):
    """CPython 3.12 shows the collector what `_asyncio` has freed: who makes references to that frees it twice."""
    assert "[0, 0, 0]\n" == run_script(
        """
        import asyncio, vthreads

        async def wait():
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, 0)
            return await future

        results = []
        for _ in range(3):
            results.append(asyncio.run(wait()))
            vthreads.patch()
            vthreads.unpatch()
        print(results)
        """
    )
