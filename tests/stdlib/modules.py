"""CPython's test modules to run, by their names in the package `test`; a package means all its modules."""

import importlib.util
import pkgutil

__all__ = ["ALL", "LEFT_OUT", "QUICK", "RESOURCES", "expanded"]

ALL = """
    test_socket test_ssl test_timeout test_socketserver test_select test_selectors test_poll test_epoll
    test_threading test_thread test_threading_local test_threadedtempfile test_threadsignals test_queue test_sched
    test_contextlib test_context test_concurrent_futures test_import test_importlib.test_locks
    test_importlib.test_threaded_import test_threaded_import
    test_subprocess test_signal test_wait3 test_wait4 test_fork1 test_popen test_pty test_eintr
    test_os test_posix test_io test_fileio test_bufio test_file_eintr test_file test_fcntl test_tty test_getpass
    test_tempfile test_shutil test_fileinput test_time test_sqlite3
    test_httplib test_httpservers test_urllib2_localnet test_urllib2 test_urllib test_http_cookiejar test_wsgiref
    test_ftplib test_poplib test_imaplib test_smtplib test_smtpd test_nntplib test_telnetlib test_asyncore
    test_asynchat test_xmlrpc test_docxmlrpc test_robotparser test_mailbox test_logging
    test_asyncio test_asyncgen
    test_multiprocessing_main_handling test_multiprocessing_fork test_multiprocessing_spawn
    test_multiprocessing_forkserver
    test_weakref test_gc test_functools test_contextlib_async test_faulthandler test_atexit
""".split()

# Run before each change lands. Together they take about a minute on two cores.
QUICK = """
    test_timeout test_socketserver test_select test_poll test_epoll
    test_threading test_thread test_threading_local test_sched test_context test_importlib.test_locks
    test_popen test_os test_posix test_fileio test_bufio test_file_eintr test_fcntl test_tempfile
    test_sqlite3.test_dbapi test_httplib test_httpservers test_urllib2_localnet test_smtplib test_xmlrpc
    test_asyncio.test_streams test_asyncio.test_runners test_asyncio.test_sock_lowlevel
    test_asyncio.test_unix_events
""".split()


# Modules that ask for `network` although all, or all but a class of them, stay on the loopback.
RESOURCES = {"test.test_socketserver": ["network"], "test.test_timeout": ["network"]}

# Tests that would try to leave this machine (VSOCK: to its hypervisor); they are not even tried.
LEFT_OUT = ("test.test_timeout.TCPTimeoutTestCase.*", "test.test_socket.ThreadedVSOCK*")


def expanded(names):
    """The full names of the modules that this interpreter has; those that it never had or has no more are left out."""
    return [module for name in names for module in _modules_of(name)]


def _modules_of(name):
    for full in (f"test.{name}", name):
        try:
            spec = importlib.util.find_spec(full)
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        if spec.submodule_search_locations is None:
            return [full]
        inside = [f"{full}.{info.name}" for info in pkgutil.iter_modules(spec.submodule_search_locations)]
        return [module for module in inside if module.rpartition(".")[2].startswith("test_")] or [full]
    return []
