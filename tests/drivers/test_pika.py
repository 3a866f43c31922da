"""pika: a blocking connection for each virtual thread."""

import pytest

pika = pytest.importorskip("pika", reason="pika is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("RabbitMQ"), pytest.mark.real]


def connect(port=5672):
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))


def own_queue(channel):
    return channel.queue_declare("", exclusive=True).method.queue


def take_one(channel, queue):
    for _, _, body in channel.consume(queue, auto_ack=True):
        channel.cancel()
        return body
    return None


def test_many_consumers_wait_at_once(run):
    def consume(ready):
        with connect() as connection:
            channel = connection.channel()
            queue = own_queue(channel)
            ready.put(queue)
            return take_one(channel, queue)

    def root():
        ready = vthreads.Queue()
        with connect() as connection, ThreadGroup() as group:
            taken = {}
            for _ in range(30):
                future = group.spawn(consume, ready)
                taken[ready.get()] = future
            channel = connection.channel()
            for queue in taken:
                channel.basic_publish("", queue, queue.encode())
            return [queue.encode() == future.result() for queue, future in taken.items()]

    assert [True] * 30 == run(root)


def test_a_cancelled_consumer_closes_its_connection_on_the_way_out(run):
    def consume(ready):
        with connect() as connection:
            channel = connection.channel()
            queue = own_queue(channel)
            channel.basic_publish("", queue, b"one and only")
            for _ in channel.consume(queue, auto_ack=True):
                # Back in the loop it waits for the next one, in no exchange that pika could not give up.
                ready.put(queue)

    def root():
        ready = vthreads.Queue()
        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(consume, ready)
            queues = [ready.get() for _ in range(5)]
            vthreads.sleep(0)
            group.cancel()
        # A queue of a connection that is closed is gone; one of a connection that was only dropped stays for a while.
        with connect() as connection:
            for queue in queues:
                with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
                    connection.channel().queue_declare(queue, passive=True)

    run(root)


def test_a_message_whose_consumer_was_cancelled_is_not_lost(run):
    def root():
        with connect() as keeper:
            channel = keeper.channel()
            # Not exclusive, so that another connection may consume from it.
            queue = channel.queue_declare("", auto_delete=False).method.queue

            def handle():
                with connect() as connection:
                    channel = connection.channel()
                    for method, _, _ in channel.consume(queue):
                        vthreads.sleep(60)
                        channel.basic_ack(method.delivery_tag)

            channel.basic_publish("", queue, b"kept")
            with vthreads.move_on_after(0.5) as scope:
                handle()
            assert scope.cancelled_caught
            body = take_one(channel, queue)
            channel.queue_delete(queue)
            return body

    assert b"kept" == run(root)


def test_waiting_with_a_time_limit(run):
    def root():
        with connect() as connection:
            channel = connection.channel()
            queue = own_queue(channel)
            return [body for _, _, body in [next(channel.consume(queue, inactivity_timeout=0.05))]]

    assert [None] == run(root)


def test_publishing_with_confirmation(run):
    def publish(number):
        with connect() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            queue = own_queue(channel)
            for message in range(20):
                channel.basic_publish("", queue, b"%d %d" % (number, message), mandatory=True)
            return channel.queue_declare(queue, passive=True).method.message_count

    assert [20] * 10 == run(lambda: list(vthreads.map(publish, range(10))))


def test_a_server_that_goes_away_ends_every_consumer(run, proxy):
    def consume(port, ready):
        connection = connect(port)
        channel = connection.channel()
        queue = own_queue(channel)
        ready.release()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            take_one(channel, queue)
        assert connection.is_closed
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connect(port)

    def root():
        ready = vthreads.Semaphore(0)
        with proxy("RabbitMQ") as server, ThreadGroup() as group:
            for _ in range(5):
                group.spawn(consume, server.port, ready)
            for _ in range(5):
                ready.acquire()
            server.cut()

    run(root)
