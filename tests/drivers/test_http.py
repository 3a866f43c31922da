"""HTTP clients over TLS: requests, urllib3 and httpx."""

import random
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

requests = pytest.importorskip("requests", reason="requests is not installed")
urllib3 = pytest.importorskip("urllib3", reason="urllib3 is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
http11 = pytest.importorskip("httpcore._sync.http11", reason="httpx is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = pytest.mark.real


class Handler(BaseHTTPRequestHandler):
    """Answer with the path; `/hang...` only once it is let go."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/hang"):
            with self.server.counting:
                self.server.hanging += 1
            self.server.let_go.wait()
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """On OS threads, which are joined when it is closed."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.counting = threading.Lock()
        self.hanging = 0
        self.let_go = threading.Event()
        self._context = context

    @property
    def port(self):
        return self.server_address[1]

    def finish_request(self, request, client_address):
        # The handshake as well on the thread of the connection.
        with self._context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, *_):
        # A client that was cancelled has gone in the middle.
        pass

    def wait_for_hanging(self, count):
        with vthreads.fail_after(20):
            while self.hanging != count:
                vthreads.sleep(0.01)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority, tmp_path):
    """A file with the certificate of the authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    return file


@pytest.fixture
def server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = Server(context)
    accepting = threading.Thread(target=server.serve_forever, args=[0.01])
    accepting.start()
    yield server
    server.let_go.set()
    server.shutdown()
    accepting.join()
    server.server_close()


# --- clients: a pool of so many connections, and `get(path)` on it

NO_ANSWER = (requests.RequestException, urllib3.exceptions.HTTPError, httpx.HTTPError)
NO_CONNECTION = (urllib3.exceptions.EmptyPoolError, httpx.PoolTimeout)


class Requests:
    def __init__(self, port, trusting, size):
        self._session = requests.Session()
        # The environment may name other authorities.
        self._session.trust_env = False
        self._session.verify = str(trusting)
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=size, pool_block=True))
        self._base = f"https://127.0.0.1:{port}"

    def get(self, path):
        return self._session.get(self._base + path).text

    def close(self):
        self._session.close()


class Urllib3:
    def __init__(self, port, trusting, size):
        self._pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", port, maxsize=size, block=True, ca_certs=str(trusting), retries=False
        )

    def get(self, path, pool_timeout=None):
        return self._pool.urlopen("GET", path, pool_timeout=pool_timeout).data.decode()

    def close(self):
        self._pool.close()


class Httpx:
    def __init__(self, port, trusting, size):
        self._client = httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            verify=ssl.create_default_context(cafile=str(trusting)),
            limits=httpx.Limits(max_connections=size),
            timeout=None,
        )

    def get(self, path, pool_timeout=None):
        return self._client.get(path, timeout=httpx.Timeout(None, pool=pool_timeout)).text

    def close(self):
        self._client.close()


@pytest.fixture(params=[Requests, Urllib3, Httpx])
def client(request, trusting, server):
    """Make a client of the server, which is closed afterwards."""
    made = []

    def client(size=10, port=None):
        made.append(request.param(port or server.port, trusting, size))
        return made[-1]

    yield client
    for one in made:
        one.close()


# --- what holds for all of them


def test_many_wait_at_once(run, server, client):
    def root():
        pool = client(30)
        with ThreadGroup() as group:
            answers = [group.spawn(pool.get, f"/hang/{number}") for number in range(30)]
            server.wait_for_hanging(30)
            server.let_go.set()
        return [answer.result() for answer in answers]

    assert [f"/hang/{number}" for number in range(30)] == run(root)


def test_a_request_that_a_deadline_hits_spoils_no_other(run, server, client):
    def root():
        pool = client(1)
        with vthreads.move_on_after(0.2) as scope:
            pool.get("/hang")
        assert scope.cancelled_caught
        return pool.get("/next")

    assert "/next" == run(root)


def test_a_cancelled_group_ends_all_its_requests(run, server, client):
    def root():
        pool = client(10)
        with ThreadGroup() as group:
            for _ in range(10):
                group.spawn(pool.get, "/hang")
            server.wait_for_hanging(10)
            group.cancel()
        return vthreads.gather(*[lambda: pool.get("/next")] * 10)

    assert ["/next"] * 10 == run(root)


def test_those_who_find_the_pool_exhausted_park(run, client):
    def root():
        pool = client(2)
        return list(vthreads.map(pool.get, [f"/{number}" for number in range(40)]))

    assert [f"/{number}" for number in range(40)] == run(root)


def test_those_who_find_the_pool_exhausted_time_out(run, server, client):
    def root():
        pool = client(1)
        if isinstance(pool, Requests):
            # It has no way to say for how long.
            return
        with ThreadGroup() as group:
            group.spawn(pool.get, "/hang")
            server.wait_for_hanging(1)
            with pytest.raises(NO_CONNECTION):
                pool.get("/", pool_timeout=0.1)
            server.let_go.set()

    run(root)


def test_a_cancelled_waiter_for_the_pool_loses_nothing(run, server, client):
    def root():
        pool = client(1)
        with ThreadGroup() as group:
            group.spawn(pool.get, "/hang")
            server.wait_for_hanging(1)
            with ThreadGroup() as waiting:
                for _ in range(10):
                    waiting.spawn(pool.get, "/never")
                waiting.cancel()
            server.let_go.set()
        return pool.get("/next")

    assert "/next" == run(root)


def test_answers_are_never_mixed_up_under_random_timeouts(run, client):
    def work(pool, name, chance):
        for number in range(10):
            with vthreads.move_on_after(chance.uniform(0, 0.05)):
                assert f"/{name}/{number}" == pool.get(f"/{name}/{number}")

    def root():
        pool = client(3)
        with ThreadGroup() as group:
            for seed in range(8):
                group.spawn(work, pool, seed, random.Random(seed))
        # As many at once as the pool has places: none was lost.
        return vthreads.gather(*[lambda: pool.get("/next")] * 3)

    assert ["/next"] * 3 == run(root)


def test_a_server_that_goes_away_ends_every_request(run, server, client, proxy):
    def root():
        with proxy(server.port) as cuttable:
            pool = client(10, cuttable.port)
            with ThreadGroup(on_failure="continue") as group:
                answers = [group.spawn(pool.get, "/hang") for _ in range(10)]
                server.wait_for_hanging(10)
                cuttable.cut()
                for answer in answers:
                    assert isinstance(answer.exception(), NO_ANSWER)
            with pytest.raises(NO_ANSWER):
                pool.get("/")

    run(root)


def test_a_connection_that_another_request_begins_to_use_has_not_expired(run):
    class Stream:
        """Asked whether it has something to read, it yields to another request, which gets its response."""

        def get_extra_info(self, name):
            assert "is_readable" == name
            if begins:
                connection._state = http11.HTTPConnectionState.ACTIVE
            return True

    def root():
        return connection.has_expired()

    for begins in True, False:
        connection = http11.HTTP11Connection(origin=None, stream=Stream())
        connection._state = http11.HTTPConnectionState.IDLE
        assert run(root) is not begins
