"""OpenTelemetry: an OS thread that exports, and locks that it shares with virtual threads."""

import random
import threading

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import vthreads
from vthreads import ThreadGroup

pytestmark = pytest.mark.real


class Exporter(SpanExporter):
    """Keeps what it gets."""

    def __init__(self):
        self.spans = []
        self._lock = threading.Lock()

    def export(self, spans):
        with self._lock:
            self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def traced(run):
    """Call a function as root with a tracer; the spans that were exported."""

    def traced(fn):
        exporter = Exporter()

        def root():
            provider = TracerProvider()
            provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=5, max_export_batch_size=16))
            fn(provider.get_tracer("test"))
            provider.force_flush()
            provider.shutdown()

        run(root)
        return exporter

    return traced


def test_spans_of_many_threads_are_exported_with_their_parents(traced):
    def work(tracer, number):
        with tracer.start_as_current_span(f"outer {number}"):
            vthreads.sleep(0.001)
            with tracer.start_as_current_span(f"inner {number}"):
                vthreads.sleep(0.001)

    def root(tracer):
        with ThreadGroup() as group:
            for number in range(200):
                group.spawn(work, tracer, number)

    spans = {span.name: span for span in traced(root).spans}
    assert 400 == len(spans)
    for number in range(200):
        assert spans[f"inner {number}"].parent.span_id == spans[f"outer {number}"].context.span_id


def test_a_child_of_a_group_has_the_span_that_was_current_at_its_spawn(traced):
    seen = []

    def root(tracer):
        with tracer.start_as_current_span("request") as span, ThreadGroup() as group:
            group.spawn(lambda: seen.append(trace.get_current_span() is span))

    traced(root)
    assert [True] == seen


def parents_of_children(fn):
    """Spawn children by `fn(child)` in a span; whether each child's own span has that one as its parent."""
    found = []

    def root(tracer):
        def child(*_):
            vthreads.sleep(0)
            with tracer.start_as_current_span("child") as span:
                found.append(span.parent.span_id)

        with tracer.start_as_current_span("request") as span:
            fn(child)
            found[:] = [parent == span.get_span_context().span_id for parent in found]

    return root, found


@pytest.mark.parametrize(
    "spawns",
    [
        lambda child: vthreads.spawn(child).result(),
        vthreads.gather,
        vthreads.race,
        lambda child: list(vthreads.map(child, [1])),
        vthreads.offload,
    ],
    ids=["spawn", "gather", "race", "map", "offload"],
)
def test_spans_follow_every_way_to_start_something(traced, spawns):
    root, found = parents_of_children(spawns)
    traced(root)
    assert [True] == found


def test_the_figures_of_the_runtime_are_metrics_by_a_callback(run):
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    def threads(_):
        for carrier in vthreads.debug.metrics().carriers:
            for state, count in carrier.threads.items():
                yield Observation(count, {"carrier": carrier.name, "state": state})

    def root():
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        provider.get_meter("vthreads").create_observable_gauge("threads", [threads])
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(vthreads.sleep, 60)
            data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data
            group.cancel()
        provider.shutdown()
        return {point.attributes["state"]: point.value for point in data.data_points}

    assert {"parked": 3, "running": 1, "ready": 0, "new": 0} == run(root)


def test_every_span_that_began_is_exported_under_random_cancellation(traced):
    began = []

    def work(tracer, chance):
        for _ in range(20):
            with vthreads.move_on_after(chance.uniform(0, 0.004)):
                with tracer.start_as_current_span("work") as span:
                    began.append(span.get_span_context().span_id)
                    vthreads.sleep(0.002)

    def root(tracer):
        with ThreadGroup() as group:
            for seed in range(30):
                group.spawn(work, tracer, random.Random(seed))

    exporter = traced(root)
    assert sorted(began) == sorted(span.context.span_id for span in exporter.spans)
