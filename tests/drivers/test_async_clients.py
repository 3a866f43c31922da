"""asyncpg, aiohttp and the asynchronous client of httpx, unmodified, in blocking code: on the shared loop, and on both
loops that a runtime makes.
"""

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is not installed")
aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import Event, Queue, ThreadGroup, aio, serve  # noqa: E402

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def pipe_of_uvloop():
    """The first loop of uvloop opens a pipe for the whole process."""
    uvloop.new_event_loop().close()


@pytest.fixture(params=[None, "asyncio", "uvloop"], ids=["shared loop", "asyncio", "uvloop"])
def run(request):
    return lambda root: vthreads.run(root, poller=request.param)


class Site:
    """A server whose requests for `/waits` never end by themselves."""

    def __init__(self):
        self.begun = Event()
        self.cancelled = Event()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/waits":
            self._wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def _wait(self):
        self.begun.set()
        try:
            Event().wait()
        finally:
            self.cancelled.set()

    def serve_to(self, visit):
        """Call `visit(url)` while it serves, and return the result."""
        ready = Queue()
        with ThreadGroup() as group:
            group.spawn(serve.wsgi, self, "127.0.0.1", 0, ready=ready.put)
            server = ready.get()
            try:
                return visit("http://{}:{}".format(*server.addresses[0]))
            finally:
                server.stop()


async def new_session():
    # It belongs to the loop that runs where it is made.
    return aiohttp.ClientSession()


async def text_of(session, url):
    async with session.get(url) as response:
        return await response.text()


def test_threads_share_a_session_of_aiohttp_and_a_cancelled_request_is_closed(run):
    site = Site()

    def visit(url):
        with aio.enter(aio.run(new_session())) as session:
            with ThreadGroup(max_concurrency=10) as group:
                futures = [group.spawn(aio.run, text_of(session, url)) for _ in range(30)]
            with ThreadGroup() as group:
                waiting = group.spawn(aio.run, text_of(session, f"{url}/waits"))
                site.begun.wait()
                waiting.cancel()
            site.cancelled.wait()
            return {future.result() for future in futures}, waiting.cancelled()

    assert ({"hello"}, True) == run(lambda: site.serve_to(visit))


def test_threads_share_a_client_of_httpx_and_a_failure_cancels_the_others(run):
    site = Site()

    def fail():
        site.begun.wait()
        raise LookupError

    def visit(url):
        with aio.enter(httpx.AsyncClient(trust_env=False)) as client:
            with ThreadGroup(max_concurrency=10) as group:
                futures = [group.spawn(aio.run, client.get(url)) for _ in range(30)]
            with aio.enter(client.stream("GET", url)) as response:
                streamed = b"".join(aio.iterate(response.aiter_bytes()))
            with pytest.raises(LookupError), ThreadGroup(errors="first") as group:
                waiting = group.spawn(aio.run, client.get(f"{url}/waits"))
                group.spawn(fail)
            site.cancelled.wait()
            return {future.result().text for future in futures}, streamed, waiting.cancelled()

    assert ({"hello"}, b"hello", True) == run(lambda: site.serve_to(visit))


SLEEP = "select pg_sleep(3600)"
SLEEPING = (
    "select count(*) from pg_stat_activity where datname = current_database() and query = $1 and state = 'active'"
)


async def new_pool(database):
    return await asyncpg.create_pool(database, min_size=1, max_size=3)


@pytest.mark.server("PostgreSQL")
def test_threads_share_a_pool_of_asyncpg_and_a_cancelled_query_gives_its_connection_back(run, new_database):
    def double(pool, number):
        with aio.enter(pool.acquire()) as connection:
            return aio.run(connection.fetchval("select 2 * $1::int", number))

    def wait_in_server(pool):
        with aio.enter(pool.acquire()) as connection:
            aio.run(connection.execute(SLEEP))

    def sleeps_in_server(pool):
        with aio.enter(pool.acquire()) as connection:
            return aio.run(connection.fetchval(SLEEPING, SLEEP))

    def root():
        with aio.enter(aio.run(new_pool(new_database))) as pool:
            with ThreadGroup() as group:
                futures = [group.spawn(double, pool, number) for number in range(20)]
            for _ in range(4):  # one more than there are connections
                with ThreadGroup() as group:
                    group.spawn(wait_in_server, pool)
                    # PostgreSQL ignores a request to cancel that comes before it has begun the query.
                    while not sleeps_in_server(pool):
                        pass
                    group.cancel()
            with aio.enter(pool.acquire()) as connection, aio.enter(connection.transaction()):
                rows = [row[0] for row in aio.iterate(connection.cursor("select generate_series(1, 3)"))]
            return [future.result() for future in futures], rows

    assert ([2 * number for number in range(20)], [1, 2, 3]) == run(root)
