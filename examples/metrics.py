"""Metrics for Prometheus: the program serves a page with its own figures."""

import re
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vthreads import Event, ThreadGroup, checkpoint, debug, offload, spawn


def exposition():
    figures = debug.metrics()
    yield f"vthreads_offloads {figures.offloads}"
    for carrier in figures.carriers:
        label = f'carrier="{carrier.name}"'
        for state, count in carrier.threads.items():
            yield f'vthreads_threads{{{label},state="{state}"}} {count}'
        yield f"vthreads_switches_total{{{label}}} {carrier.switches}"
        yield f"vthreads_descriptors{{{label}}} {carrier.descriptors}"
        count = 0
        for bound, more in zip((*carrier.delays.bounds, "+Inf"), carrier.delays.counts, strict=True):
            count += more
            yield f'vthreads_run_queue_delay_seconds_bucket{{{label},le="{bound}"}} {count}'
        yield f"vthreads_run_queue_delay_seconds_sum{{{label}}} {carrier.delays.total:.6f}"
        yield f"vthreads_run_queue_delay_seconds_count{{{label}}} {count}"


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        page = "".join(f"{line}\n" for line in exposition())
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass


def main():
    over = Event()
    with debug.measure_delays(), ThreadGroup() as group, ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        spawn(server.serve_forever)
        for _ in range(10):
            group.spawn(over.wait)
        for _ in range(100):
            checkpoint()
        page = offload(urllib.request.urlopen, f"http://127.0.0.1:{server.server_port}").read().decode()
        over.set()
        server.shutdown()
    parked = re.search(r'threads{.*state="parked"} (\d+)', page)[1]
    delays = re.search(r"delay_seconds_count.* (\d+)", page)[1]
    print(f"{int(parked) >= 10=}, {int(delays) >= 100=}, {page.count('bucket')} buckets, {page.split()[1]} offload")


if __name__ == "__main__":
    main()
