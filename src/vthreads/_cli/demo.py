"""`vthreads demo`: a thousand concurrent downloads by unmodified `requests`, and again with one that fails.

The server is another process, so only the time of the client is measured. The demo checks each of its claims, and
its exit status is 0 only if all hold. It uses the public API, and the runtime's list of live threads.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

try:
    import requests
    import trustme
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError as missing:
    # Not an exit here: `--help` needs no library.
    ABSENT = f"the demo uses libraries that are not installed ({missing}); install them: pip install 'vthreads[demo]'"
else:
    ABSENT = ""

from .._core.deadlock import threads_of_run
from .._core.future import Future
from .._core.group import ThreadGroup
from .._core.runtime import current_thread
from .server import BROKEN, ServerProcess, body_of

__all__ = ["main"]

# Number of requests made one after the other, to estimate the time for all of them.
SERIAL = 5
SECONDS_TO_ANSWER = 60


class Downloads:
    """Downloads from one site.

    Attributes:
        right, wrong: numbers of bodies whose checksum is, or is not, the expected one.
        peak: largest number of virtual threads at the same time.
    """

    def __init__(self, certificates: str | None, concurrency: int, progress: Progress, urls: list[str]) -> None:
        self._verify = True if certificates is None else certificates
        self._concurrency = concurrency
        self._progress = progress
        self._bar = progress.add_task("downloading", total=len(urls))
        self.urls = urls
        self.futures: list[Future[None]] = []
        self.right = self.wrong = self.peak = 0

    def run(self) -> None:
        """Download all URLs concurrently."""
        with ThreadGroup("downloads", max_concurrency=self._concurrency) as group:
            for url in self.urls:
                self.futures.append(group.spawn(self.download, url))
                self.peak = max(self.peak, len(group))

    def download(self, url: str) -> None:
        """Download one URL."""
        response = requests.get(url, verify=self._verify, timeout=SECONDS_TO_ANSWER)
        response.raise_for_status()
        if sha256(response.content).digest() == sha256(body_of(urlsplit(url).path)).digest():
            self.right += 1
        else:
            self.wrong += 1
        self._progress.advance(self._bar)

    def seconds_for_one(self) -> float:
        """Measure the time of one download when downloads are made one after the other."""
        # The first download also imports modules, so it is not measured.
        self.download(self.urls[0])
        started = time.perf_counter()
        for url in islice(self.urls, SERIAL):
            self.download(url)
        return (time.perf_counter() - started) / min(SERIAL, len(self.urls))

    def ends(self) -> Counter[str]:
        """Count the ends of the spawned virtual threads."""
        return Counter(
            "alive"
            if future.thread.is_alive()
            else "cancelled"
            if future.cancelled()
            else "completed"
            if future.exception() is None
            else "failed"
            for future in self.futures
        )


class Checks:
    """The claims of the demo, each printed with its result."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.all_held = True

    def check(self, held: bool, what: str) -> None:
        """Print `what` and whether it held."""
        self.all_held = self.all_held and held
        mark = "[green]held  [/]" if held else "[bold red]FAILED[/]"
        self._console.print(f"  {mark}  {what}", soft_wrap=True, highlight=False)


class Leaks:
    """The virtual threads and descriptors of this process at its creation, for a later comparison."""

    def __init__(self) -> None:
        # Start the runtime first, because it opens descriptors.
        self._scheduler = current_thread()._scheduler
        self._descriptors = open_descriptors()

    def check(self, checks: Checks) -> None:
        """Check that nothing exists now that did not exist then."""
        # An HTTPError of requests keeps its response, and so its connection pool, until the collector frees it.
        gc.collect()
        alive = sum(thread is not thread._scheduler.root for thread in threads_of_run(self._scheduler))
        checks.check(alive == 0, f"live virtual threads besides the main program: {alive}")
        now = open_descriptors()
        checks.check(now == self._descriptors, f"open descriptors: {now}, before: {self._descriptors}")


def open_descriptors() -> int:
    """Return the number of open descriptors of this process."""
    # Linux and macOS list them here; listing opens one more.
    return len(os.listdir("/dev/fd")) - 1


def peak_memory() -> float:
    """Return the peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# --- the two parts


def all_at_once(console: Console, checks: Checks, options: argparse.Namespace, url: str, ca: str | None) -> None:
    """Run the first part: every download succeeds."""
    count = options.urls
    urls = [f"{url}/item/{number}" for number in range(count)]
    with progress_bar(console) as progress:
        one = Downloads(ca, 1, progress, urls[:SERIAL]).seconds_for_one()
        leaks = Leaks()
        downloads = Downloads(ca, options.concurrency, progress, urls)
        started, computed = time.perf_counter(), time.process_time()
        downloads.run()
        seconds, computed = time.perf_counter() - started, time.process_time() - computed
    ratio = one * count / seconds
    show(console, "one after the other", f"{one * count:.2f} s (estimate: {count:,} × {one * 1000:.1f} ms)")
    show(console, "on virtual threads", f"{seconds:.2f} s, {computed:.2f} s of processor time")
    show(console, "ratio", f"{ratio:.1f}")
    show(console, "peak virtual threads", f"{downloads.peak:,}")
    show(console, "peak memory", f"{peak_memory():.0f} MiB resident")
    checks.check(downloads.right == count, f"bodies with the right checksum: {downloads.right:,} of {count:,}")
    if options.least_ratio:
        checks.check(ratio >= options.least_ratio, f"at least {options.least_ratio:g} times as fast: {ratio:.1f} times")
        if ratio < options.least_ratio:
            advice = "a busy machine lowers the ratio; repeat it later, or without --least-ratio"
            console.print(f"          {advice}", soft_wrap=True, highlight=False)
    leaks.check(checks)


def one_fails(console: Console, checks: Checks, options: argparse.Namespace, url: str, ca: str | None) -> None:
    """Run the second part: one URL in the middle is answered with status 500."""
    count = options.urls
    urls = [f"{url}/item/{number}" for number in range(count)]
    urls[count // 2] = f"{url}{BROKEN}"
    leaks = Leaks()
    failures: list[str] = []
    with progress_bar(console) as progress:
        downloads = Downloads(ca, options.concurrency, progress, urls)
        try:
            downloads.run()
        except ExceptionGroup as group:
            failures = ["".join(traceback.format_exception_only(failure)) for failure in group.exceptions]
    for failure in failures:
        console.print(failure, style="red", markup=False, highlight=False, soft_wrap=True, end="")
    ends = downloads.ends()
    downloads.futures.clear()
    never = count - ends.total()
    checks.check(len(failures) == 1 and "500 Server Error" in failures[0], f"failures raised: {len(failures)}")
    checks.check(
        ends["failed"] == 1 and ends["alive"] == 0 and downloads.right == ends["completed"],
        f"the others: {ends['completed']:,} had completed, {ends['cancelled']:,} were cancelled, {never:,} never began",
    )
    leaks.check(checks)


def show(console: Console, what: str, value: str) -> None:
    """Print a value with its label."""
    console.print(f"  {what:22}{value}", soft_wrap=True, highlight=False)


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """Show a progress bar on a terminal; show nothing elsewhere."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


# --- the program


def write_certificates(directory: Path) -> tuple[Path, str]:
    """Create a certificate for the server, and a certificate authority to verify it."""
    authority = trustme.CA()
    server, ca = directory / "server.pem", directory / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(server))
    authority.cert_pem.write_to_path(str(ca))
    return server, str(ca)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""

    def count(text: str) -> int:
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError(f"{number} is too small; pass 1 or more")
        return number

    parser = argparse.ArgumentParser(
        prog="python -m vthreads demo",
        description="Download many URLs of a local server concurrently, then again with one that fails; check both.",
    )
    parser.add_argument("--urls", type=count, default=1_000, metavar="N", help="number of URLs (%(default)s)")
    parser.add_argument(
        "--concurrency", type=count, default=100, metavar="N", help="concurrent downloads (%(default)s)"
    )
    parser.add_argument("--latency", type=count, metavar="MS", help="latency of the server (50; 100 with --tls)")
    parser.add_argument("--tls", action="store_true", help="use HTTPS, with a new certificate")
    parser.add_argument(
        "--least-ratio",
        type=float,
        # Other load on the machine lowers the ratio, and does not make the demo fail by default.
        default=0,
        metavar="R",
        help="required speed-up over sequential downloads; 0: no requirement (%(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.latency is None:
        # A TLS handshake computes for several milliseconds. Concurrency cannot hide that, so the latency is larger.
        options.latency = 100 if options.tls else 50
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if every check held."""
    options = parse(arguments)
    if ABSENT:
        sys.exit(ABSENT)
    console = Console()
    checks = Checks(console)
    with TemporaryDirectory() if options.tls else nullcontext() as directory:
        certificate, ca = write_certificates(Path(directory)) if directory else (None, None)
        with ServerProcess(options.latency / 1000, certificate) as server:
            what = f"{options.urls:,} URLs of {server.url}, {options.latency} ms each, {options.concurrency} at a time"
            console.print(f"[bold]1. Download {what}[/]", soft_wrap=True, highlight=False)
            all_at_once(console, checks, options, server.url, ca)
            console.print("\n[bold]2. The same, and one of them fails[/]", soft_wrap=True, highlight=False)
            one_fails(console, checks, options, server.url, ca)
    console.print("\n[green]Everything held.[/]" if checks.all_held else "\n[bold red]Not everything held.[/]")
    return 0 if checks.all_held else 1


if __name__ == "__main__":
    sys.exit(main())
