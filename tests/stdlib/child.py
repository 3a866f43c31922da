"""Run one test module in this process, and record the start and the end of each test.

Started as a script with one argument, the JSON object `Options` of `supervise.py`. Set up as CPython's own `regrtest`
does it, without the resources that it enables on request (network, largefile, gui and similar ones).
"""

import faulthandler
import gc
import importlib
import json
import os
import random
import sys
import time
import traceback
import unittest
from fnmatch import fnmatchcase

# The name of a test in the journal; two tests of a module may have the same id.
KEY = "_key_in_journal"


def journal_at(path):
    """What writes a line to the journal, by original functions: closures cannot be patched."""
    open_, write_, close_, pid_of_this = os.open, os.write, os.close, os.getpid
    owner = pid_of_this()

    def write(**entry):
        # A test that forks may come through here in the child as well.
        if pid_of_this() != owner:
            return
        fd = open_(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            write_(fd, (json.dumps(entry) + "\n").encode("utf-8", "backslashreplace"))
        finally:
            close_(fd)

    return write


class Journal(unittest.TestResult):
    """Each test's beginning, outcome and time."""

    def __init__(self, write):
        super().__init__()
        self._write = write
        self._clock = time.perf_counter
        self._outcome = None

    def startTest(self, test):
        super().startTest(test)
        self._outcome, self._detail, self._started = None, "", self._clock()
        self._write(start=key_of(test))

    def stopTest(self, test):
        super().stopTest(test)
        seconds = round(self._clock() - self._started, 3)
        self._write(end=key_of(test), outcome=self._outcome or "passed", detail=self._detail, seconds=seconds)
        self._outcome = None

    def _note(self, test, outcome, detail=""):
        if isinstance(test, unittest.TestCase):
            # The first failure of several, in subtests or in the clean-up, says most.
            if self._outcome not in ("failed", "error"):
                self._outcome, self._detail = outcome, detail
        else:
            # setUpClass, setUpModule and their counterparts are reported in the place of a test.
            self._write(fixture=test.id(), outcome=outcome, detail=detail)

    def addSuccess(self, test):
        self._note(test, "passed")

    def addError(self, test, error):
        self._note(test, "error", described(error))

    def addFailure(self, test, error):
        self._note(test, "failed", described(error))

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self._note(test, "failed", described(error))

    def addSkip(self, test, reason):
        self._note(test, "skipped", str(reason))

    def addExpectedFailure(self, test, error):
        self._note(test, "passed", "failed as expected")

    def addUnexpectedSuccess(self, test):
        self._note(test, "failed", "unexpected success")


def described(error):
    kind, value, tb = error
    try:
        return "".join(traceback.format_exception(kind, value, tb))[-4000:]
    except Exception as failure:
        return f"{kind.__name__}, whose description fails: {failure!r}"


def key_of(test):
    return getattr(test, KEY, None) or test.id()


def keep(suite, wanted, seen):
    """Give every test its key and leave in `suite` those that are `wanted`, in their order."""
    kept = []
    for test in suite._tests:
        if isinstance(test, unittest.TestSuite):
            keep(test, wanted, seen)
        else:
            name = test.id()
            seen[name] = seen.get(name, 0) + 1
            setattr(test, KEY, name if seen[name] == 1 else f"{name}#{seen[name]}")
            if not wanted(key_of(test)):
                continue
        kept.append(test)
    suite._tests = kept


def set_up(resources):
    from test import support

    faulthandler.enable(all_threads=True)
    support.record_original_stdout(sys.stdout)
    support.use_resources = resources
    support.verbose = False
    try:
        from test.libregrtest.utils import adjust_rlimit_nofile, setup_threading_excepthook, setup_unraisable_hook
    except ImportError:
        return
    adjust_rlimit_nofile()
    setup_unraisable_hook()
    setup_threading_excepthook()


def run_module(options):
    write = journal_at(options["journal"])
    set_up(options["resources"])
    random.seed(1)
    done, only = set(options["done"]), options["only"] and set(options["only"])
    write(start="(import)")
    try:
        module = importlib.import_module(options["module"])
        suite = unittest.TestLoader().loadTestsFromModule(module)
    except unittest.SkipTest as skipped:
        write(end="(import)", outcome="skipped", detail=str(skipped), seconds=0)
        return
    except BaseException:
        write(end="(import)", outcome="error", detail=described(sys.exc_info()), seconds=0)
        raise
    write(end="(import)", outcome="passed", detail="", seconds=0)

    def wanted(key):
        if any(fnmatchcase(key, pattern) for pattern in options["left_out"]):
            return False
        return key not in done and (only is None or key in only)

    keep(suite, wanted, {})
    suite(Journal(write))
    write(start="(exit)")
    gc.collect()


def plain(options):
    run_module(options)


def vthreads(options):
    from vthreads import run

    run(run_module, options)


def threads(options):
    from vthreads import patch, run

    patch(threads=True)
    # Some tests wait busily, as threads of an operating system may.
    run(run_module, options, preempt=0.01)


def gevent(options):
    from gevent import monkey

    monkey.patch_all()
    run_module(options)


def main():
    options = json.loads(sys.argv.pop())
    # This directory is of no concern to the tests; what they import with it comes last.
    sys.path[0:1] = []
    sys.path += options["path"]
    {"plain": plain, "vthreads": vthreads, "threads": threads, "gevent": gevent}[options["column"]](options)


if __name__ == "__main__":
    main()
