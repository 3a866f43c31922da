"""Figures for Prometheus, and whether the service is ready, on a separate port."""

from collections import Counter

from flask import Flask

from vthreads import debug


class Metrics:
    """Counters of the service, and the state of its virtual threads."""

    def __init__(self):
        self._requests = Counter()

    def count(self, method, status):
        self._requests[method, status] += 1

    def lines(self, packing):
        for (method, status), count in sorted(self._requests.items()):
            yield f'shop_requests_total{{method="{method}",status="{status}"}} {count}'
        yield f"shop_packed_total {packing.packed}"
        for carrier in debug.metrics().carriers:
            for state, count in carrier.threads.items():
                yield f'vthreads_threads{{carrier="{carrier.name}",state="{state}"}} {count}'
            yield f'vthreads_switches_total{{carrier="{carrier.name}"}} {carrier.switches}'


def make_admin_app(metrics, packing, is_ready):
    app = Flask("admin")

    @app.get("/metrics")
    def show():
        text = "".join(f"{line}\n" for line in metrics.lines(packing))
        return text, 200, {"Content-Type": "text/plain; version=0.0.4"}

    @app.get("/ready")
    def ready():
        return ("ready\n", 200) if is_ready() else ("not ready\n", 503)

    return app
