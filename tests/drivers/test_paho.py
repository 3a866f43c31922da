"""paho-mqtt: its loop on a virtual thread, or on the OS thread that it starts itself."""

import uuid

import pytest

mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("Mosquitto"), pytest.mark.real]


@pytest.fixture
def topic():
    return f"vthreads/{uuid.uuid4()}"


def client(port=1883):
    """A client that is connected; what it has heard, and whether it has lost its server, are queues."""
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    made.heard, made.subscribed, made.lost = vthreads.Queue(), vthreads.Queue(), vthreads.Queue()
    made.on_message = lambda client, _, message: client.heard.put(message.payload)
    made.on_subscribe = lambda client, *_: client.subscribed.put(True)
    made.on_disconnect = lambda client, *_: client.lost.put(True)
    made.connect("127.0.0.1", port)
    return made


def test_many_wait_at_once_and_their_loops_are_os_threads(run, topic):
    def listen(ready):
        listener = client()
        listener.loop_start()
        try:
            listener.subscribe(topic, qos=1)
            listener.subscribed.get()
            ready.release()
            return listener.heard.get()
        finally:
            listener.disconnect()
            listener.loop_stop()

    def root():
        ready = vthreads.Semaphore(0)
        with ThreadGroup() as group:
            heard = [group.spawn(listen, ready) for _ in range(20)]
            for _ in range(20):
                ready.acquire()
            speaker = client()
            speaker.loop_start()
            speaker.publish(topic, b"hello", qos=1).wait_for_publish(20)
            speaker.disconnect()
            speaker.loop_stop()
            return [future.result() for future in heard]

    assert [b"hello"] * 20 == run(root)


def test_many_loops_on_virtual_threads_end_when_they_are_cancelled(run, topic):
    def root():
        listeners = [client() for _ in range(20)]
        with ThreadGroup() as group:
            for listener in listeners:
                group.spawn(listener.loop_forever)
                listener.subscribe(topic, qos=1)
            for listener in listeners:
                listener.subscribed.get()
            listeners[0].publish(topic, b"hello", qos=1)
            heard = [listener.heard.get() for listener in listeners]
            group.cancel()
        for listener in listeners:
            # Its loop is gone, so it says goodbye by itself.
            listener.disconnect()
            listener.loop_misc()
        return heard

    assert [b"hello"] * 20 == run(root)


def test_waiting_for_a_publication_can_be_cancelled(run, topic):
    def root():
        speaker = client()
        with vthreads.move_on_after(0.2) as scope:
            # Its loop does not run, so it is never notified that the message has arrived.
            speaker.publish(topic, b"hello", qos=1).wait_for_publish()
        assert scope.cancelled_caught
        speaker.disconnect()
        speaker.loop_misc()

    run(root)


def test_a_server_that_goes_away_is_noticed(run, proxy, topic):
    def root():
        with proxy("Mosquitto") as server, ThreadGroup() as group:
            listeners = [client(server.port) for _ in range(10)]
            for listener in listeners:
                group.spawn(listener.loop_forever, retry_first_connection=False)
                listener.subscribe(topic)
            for listener in listeners:
                listener.subscribed.get()
            server.cut()
            for listener in listeners:
                assert listener.lost.get()
            # They try to connect again without end.
            group.cancel()

    run(root)
