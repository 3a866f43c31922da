"""redis-py: commands that block on the server, published messages, and its pools."""

import random

import pytest

redis = pytest.importorskip("redis", reason="redis is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("Redis"), pytest.mark.real]

PREFIX = "vthreads-test-"


def client(port=6379, **options):
    return redis.Redis(host="127.0.0.1", port=port, decode_responses=True, max_connections=1000, **options)


@pytest.fixture
def with_client(run):
    """Call a function as root with a client, whose connections are closed afterwards."""

    def with_client(fn):
        def root():
            with client() as made:
                return fn(made)

        return run(root)

    return with_client


def wait_for_blocked(redis_client, count):
    with vthreads.fail_after(20):
        while redis_client.info("clients")["blocked_clients"] != count:
            vthreads.sleep(0.01)


def test_many_wait_at_once_and_each_gets_its_item(with_client):
    def root(r):
        def take(number):
            return r.blpop(f"{PREFIX}list-{number}", timeout=30)[1]

        with ThreadGroup() as group:
            taken = [group.spawn(take, number) for number in range(200)]
            wait_for_blocked(r, 200)
            for number in range(200):
                r.rpush(f"{PREFIX}list-{number}", number)
            return [int(future.result()) for future in taken]

    assert list(range(200)) == with_client(root)


def test_a_cancelled_blpop_takes_nothing_and_its_connection_is_not_used_again(with_client):
    def root(r):
        with ThreadGroup() as group:
            for _ in range(20):
                group.spawn(r.blpop, f"{PREFIX}cancelled", timeout=30)
            wait_for_blocked(r, 20)
            group.cancel()
        wait_for_blocked(r, 0)
        r.rpush(f"{PREFIX}cancelled", "kept")
        assert ["kept"] == r.lrange(f"{PREFIX}cancelled", 0, -1)
        assert 1 == r.delete(f"{PREFIX}cancelled")
        assert [True] * 30 == vthreads.gather(*[r.ping] * 30)

    with_client(root)


def test_answers_are_never_mixed_up_under_random_timeouts(with_client):
    def work(r, chance):
        for number in range(30):
            with vthreads.move_on_after(chance.uniform(0, 0.005)):
                assert str(number) == r.echo(str(number))

    def root(r):
        with ThreadGroup() as group:
            for seed in range(20):
                group.spawn(work, r, random.Random(seed))
        assert "still here" == r.echo("still here")

    with_client(root)


def test_published_messages(with_client):
    def listen(r, ready):
        heard = []
        with r.pubsub() as pubsub:
            pubsub.subscribe(f"{PREFIX}news")
            messages = pubsub.listen()
            assert "subscribe" == next(messages)["type"]
            ready.release()
            while heard[-1:] != ["last"]:
                heard.append(next(messages)["data"])
        return heard

    def root(r):
        ready = vthreads.Semaphore(0)
        with ThreadGroup() as group:
            heard = [group.spawn(listen, r, ready) for _ in range(20)]
            for _ in range(20):
                ready.acquire()
            for text in ("first", "last"):
                r.publish(f"{PREFIX}news", text)
        return [future.result() for future in heard]

    assert [["first", "last"]] * 20 == with_client(root)


def test_listening_can_be_cancelled(with_client):
    def root(r):
        with r.pubsub() as pubsub:
            pubsub.subscribe(f"{PREFIX}silence")
            with vthreads.move_on_after(0.2) as scope:
                list(pubsub.listen())
            assert scope.cancelled_caught
        with vthreads.fail_after(20):
            while r.pubsub_numsub(f"{PREFIX}silence")[0][1]:
                vthreads.sleep(0.01)

    with_client(root)


def test_clients_of_an_exhausted_pool_park(run):
    def root():
        pool = redis.BlockingConnectionPool(host="127.0.0.1", max_connections=3, timeout=20)
        with redis.Redis(connection_pool=pool) as r:
            with ThreadGroup() as group:
                # Redis looks for commands that have waited long enough every tenth of a second.
                for _ in range(20):
                    group.spawn(r.blpop, f"{PREFIX}nothing", timeout=0.01)
        pool.disconnect()

    run(root)


def test_a_client_of_an_exhausted_pool_times_out(run):
    def root():
        pool = redis.BlockingConnectionPool(host="127.0.0.1", max_connections=1, timeout=0.1)
        taken = pool.get_connection()
        with pytest.raises(redis.ConnectionError, match="No connection available"):
            pool.get_connection()
        pool.release(taken)
        pool.disconnect()

    run(root)


@pytest.mark.parametrize("kind", ["BlockingConnectionPool", "ConnectionPool"])
def test_random_timeouts_lose_no_connection_of_a_pool(run, kind):
    def work(r, chance):
        for _ in range(20):
            with vthreads.move_on_after(chance.uniform(0, 0.01)):
                r.blpop(f"{PREFIX}nothing", timeout=0.003)

    def root():
        limit = {"max_connections": 5, "timeout": 20} if kind == "BlockingConnectionPool" else {"max_connections": 20}
        pool = getattr(redis, kind)(host="127.0.0.1", **limit)
        with redis.Redis(connection_pool=pool) as r, ThreadGroup() as group:
            for seed in range(20):
                group.spawn(work, r, random.Random(seed))
        # As many as the pool may have, at once: none was lost on the way.
        taken = [pool.get_connection() for _ in range(pool.max_connections)]
        for connection in taken:
            pool.release(connection)
        pool.disconnect()

    run(root)


def test_a_server_that_goes_away_ends_every_command(run, proxy):
    def wait(r):
        with pytest.raises(redis.ConnectionError):
            r.blpop(f"{PREFIX}away", timeout=30)

    def root():
        with proxy("Redis") as server, client() as observer:
            retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
            with client(server.port, retry=retry) as r, ThreadGroup() as group:
                for _ in range(20):
                    group.spawn(wait, r)
                wait_for_blocked(observer, 20)
                server.cut()

    run(root)


def test_a_transaction_that_watches(with_client):
    def root(r):
        key = f"{PREFIX}counter"
        r.set(key, 0)

        def increase(pipe):
            value = int(pipe.get(key))
            pipe.multi()
            pipe.set(key, value + 1)

        vthreads.gather(*[lambda: r.transaction(increase, key)] * 20)
        value = r.get(key)
        r.delete(key)
        return value

    assert "20" == with_client(root)
