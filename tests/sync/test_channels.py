"""Channels: rendezvous and buffer, close, and receiving from several channels."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vthreads import Cancelled, CancelScope, ChannelClosed, ThreadGroup, now, sleep
from vthreads._sync.channels import Channel, receive_any
from vthreads._sync.statistics import ChannelStatistics

pytestmark = pytest.mark.unpatched


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


def closed(call, *args, **keywords):
    with pytest.raises(ChannelClosed):
        call(*args, **keywords)
    return True


# --- rendezvous and buffer


def test_without_a_buffer_send_waits_for_its_receiver(virtual):
    def root():
        channel, log = Channel(), []
        with ThreadGroup() as group:
            group.spawn(lambda: (channel.send(1), log.append("sent")))
            sleep(1)
            assert [] == log
            assert ChannelStatistics(0, 1, 1, 0, False) == channel.statistics()
            assert 1 == channel.receive()
            sleep(0)
            assert ["sent"] == log

    virtual(root)


def test_without_a_buffer_send_does_not_wait_if_a_receiver_does(virtual):
    def root():
        channel = Channel()
        with ThreadGroup() as group:
            received = group.spawn(channel.receive)
            assert ChannelStatistics(0, 1, 0, 1, False) == channel.statistics()
            channel.send(1, timeout=0)
        return received.result()

    assert 1 == virtual(root)


def test_a_buffer_takes_as_many_as_it_has_room_for(virtual, order):
    def root():
        channel = Channel(2)
        channel.send(1)
        channel.send(2)
        assert ChannelStatistics(2, 0, 0, 0, False) == channel.statistics()
        with ThreadGroup() as group:
            for item in (3, 4):
                group.spawn(channel.send, item)
            assert ChannelStatistics(2, 2, 2, 0, False) == channel.statistics()
            return [channel.receive() for _ in range(4)], channel.statistics()

    assert ([1, 2, 3, 4], ChannelStatistics(0, 0, 0, 0, False)) == virtual(root, order=order)


def test_receivers_get_items_in_the_order_in_which_they_came(virtual, order):
    def root():
        channel, got = Channel(), {}
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: got.update({number: channel.receive()}))
            for item in "abc":
                channel.send(item)
        return got

    assert {0: "a", 1: "b", 2: "c"} == virtual(root, order=order)


@pytest.mark.parametrize("item", [None, False, 0, ()])
def test_false_items_are_items(virtual, item):
    def root():
        channel = Channel()
        with ThreadGroup() as group:
            received = group.spawn(channel.receive)
            channel.send(item)
            group.spawn(channel.send, item)
            return received.result(), channel.receive()

    assert (item, item) == virtual(root)


def test_a_negative_capacity_is_refused():
    with pytest.raises(ValueError, match="capacity=-1 is too small; give 0 or more"):
        Channel(-1)


def test_timeouts(virtual):
    def root():
        channel = Channel(1)
        with pytest.raises(TimeoutError, match="no item was sent to <Channel open buffered=0/1> within 2 seconds"):
            channel.receive(timeout=2)
        channel.send(1)
        with pytest.raises(TimeoutError, match="no thread received from <Channel open buffered=1/1> within 3 seconds"):
            channel.send(2, timeout=3)
        assert 5 == now()
        return channel.receive(timeout=0), channel.statistics()

    assert (1, ChannelStatistics(0, 0, 0, 0, False)) == virtual(root)


# --- the end


def test_a_closed_channel_is_drained_and_then_closed(virtual):
    def root():
        channel = Channel(2)
        channel.send(1)
        channel.send(2)
        channel.close()
        assert channel.closed
        assert closed(channel.send, 3)
        assert closed(channel.send, 3, timeout=0)
        assert [1, 2] == [channel.receive(), channel.receive(timeout=0)]
        assert closed(channel.receive)
        assert closed(channel.receive, timeout=0)
        channel.close()

    virtual(root)


def test_closing_ends_parked_senders_and_keeps_what_is_buffered(virtual):
    def root():
        channel = Channel(1)
        channel.send(1)
        with ThreadGroup() as group:
            senders = [group.spawn(closed, channel.send, item) for item in (2, 3)]
            channel.close()
            assert 0 == channel.statistics().waiting
        return [sender.result() for sender in senders], list(channel)

    assert ([True, True], [1]) == virtual(root)


def test_closing_ends_parked_receivers(virtual):
    def root():
        channel = Channel()
        with ThreadGroup() as group:
            receivers = [group.spawn(closed, channel.receive) for _ in range(2)]
            channel.close()
            assert ChannelStatistics(0, 0, 0, 0, True) == channel.statistics()
        return [receiver.result() for receiver in receivers]

    assert [True, True] == virtual(root)


def test_a_receiver_that_has_its_item_is_not_closed(virtual):
    def root():
        channel = Channel()
        with ThreadGroup() as group:
            received = group.spawn(channel.receive)
            sender = group.spawn(lambda: (channel.send(1), channel.close()))
        assert sender.result()
        return received.result()

    assert 1 == virtual(root)


def test_iterating_receives_until_the_end(virtual, order):
    def root():
        channel = Channel()

        def send():
            with channel:
                for item in range(5):
                    channel.send(item)

        with ThreadGroup() as group:
            group.spawn(send)
            received = list(channel)
        assert [] == list(channel)
        return received

    assert list(range(5)) == virtual(root, order=order)


def test_several_iterate_and_each_item_goes_to_one(virtual, order):
    def root():
        channel, got = Channel(), []
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(lambda: got.extend(channel))
            with channel:
                for item in range(10):
                    channel.send(item)
        return sorted(got)

    assert list(range(10)) == virtual(root, order=order)


def test_the_block_of_a_channel_closes_it_after_an_exception():
    channel = Channel()
    with pytest.raises(ZeroDivisionError), channel:
        _ = 1 / 0
    assert channel.closed


def test_a_channel_says_its_state(virtual):
    def root():
        channel = Channel(2)
        channel.send(1)
        assert "<Channel open buffered=1/2>" == repr(channel)
        channel.close()
        assert "<Channel closed buffered=1/2>" == repr(channel)

    virtual(root)


def test_a_cancelled_sender_has_sent_nothing(virtual, order):
    def root():
        channel = Channel()
        with ThreadGroup() as group:
            senders = [group.spawn(channel.send, item) for item in (1, 2, 3)]
            senders[0].cancel()
            senders[2].cancel()
            return channel.receive(), channel.statistics().waiting

    assert (2, 0) == virtual(root, order=order)


def test_a_cancelled_receiver_has_taken_nothing(virtual, order):
    def root():
        channel = Channel(1)
        with ThreadGroup() as group:
            group.spawn(channel.receive).cancel()
            channel.send(1)
        return channel.receive()

    assert 1 == virtual(root, order=order)


# --- several channels


def test_receive_any_takes_what_is_there_from_the_channel_given_first(virtual):
    def root():
        a, b, c = channels = Channel(1), Channel(1), Channel(1)
        c.send("c")
        b.send("b")
        assert [(b, "b"), (c, "c")] == [receive_any(*channels) for _ in range(2)]
        with pytest.raises(TimeoutError):
            receive_any(a, timeout=0)

    virtual(root)


def test_receive_any_takes_from_a_sender_that_waits(virtual):
    def root():
        a, b = Channel(), Channel()
        with ThreadGroup() as group:
            sender = group.spawn(b.send, 1)
            answer = receive_any(a, b)
            assert (b, 1) == answer
        return sender.done(), a.statistics().waiting, b.statistics().waiting

    assert (True, 0, 0) == virtual(root)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_receive_any_waits_for_the_first_that_sends(virtual, which, order):
    def root():
        channels = Channel(), Channel(1), Channel(2)
        with ThreadGroup() as group:
            future = group.spawn(receive_any, *channels)
            assert [1, 1, 1] == [channel.statistics().receivers for channel in channels]
            channels[which].send("item", timeout=0)
            # The other channels have no waiter any more.
            for other in channels:
                with pytest.raises(TimeoutError):
                    for _ in range(3):
                        other.send("more", timeout=0)
        channel, item = future.result()
        assert "item" == item
        return channels.index(channel), [channel.statistics().waiting for channel in channels]

    assert (which, [0, 0, 0]) == virtual(root, order=order)


def test_receive_any_passes_closed_channels_over(virtual):
    def root():
        a, b = Channel(), Channel(1)
        a.close()
        b.send(1)
        assert (b, 1) == receive_any(a, b)
        b.close()
        assert closed(receive_any, a, b)
        assert closed(receive_any, a, b, timeout=0)

    virtual(root)


def test_receive_any_drains_a_closed_channel(virtual):
    def root():
        a, b = Channel(), Channel(1)
        b.send(1)
        b.close()
        return receive_any(a, b)[1]

    assert 1 == virtual(root)


def test_a_channel_that_is_closed_meanwhile_does_not_end_receive_any_while_others_are_open(virtual):
    def root():
        a, b = Channel(), Channel()
        with ThreadGroup() as group:
            future = group.spawn(receive_any, a, b)
            a.close()
            sleep(1)
            assert not future.done()
            b.send(1)
            assert (b, 1) == future.result()
            last = group.spawn(closed, receive_any, a, b)
            b.close()
        return last.result()

    assert virtual(root)


def test_the_timeout_of_receive_any_goes_on_when_a_channel_is_closed(virtual):
    def root():
        a, b = Channel(), Channel()
        with ThreadGroup() as group:
            group.spawn(lambda: (sleep(2), a.close()))
            with pytest.raises(TimeoutError, match="within 5 seconds"):
                receive_any(a, b, timeout=5)
        return now(), b.statistics().waiting

    assert (5, 0) == virtual(root)


def test_receive_any_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="without a channel"):
        receive_any()


def test_receive_any_of_one_channel_twice_takes_one_item(virtual):
    def root():
        channel = Channel(5)
        with ThreadGroup() as group:
            future = group.spawn(receive_any, channel, channel)
            channel.send(1)
            channel.send(2)
        return future.result()[1], channel.receive(), channel.statistics().waiting

    assert (1, 2, 0) == virtual(root)


def test_receive_any_in_a_cancelled_scope_takes_nothing(virtual):
    def root():
        channel = Channel(1)
        channel.send(1)
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                receive_any(channel)
            assert (channel, 1) == receive_any(channel, timeout=0)

    virtual(root)


def test_those_who_wait_for_one_and_for_any_are_served_in_their_order(virtual, order):
    def root():
        a, b, got = Channel(), Channel(), {}
        with ThreadGroup() as group:
            group.spawn(lambda: got.update(one=a.receive()))
            group.spawn(lambda: got.update(any=receive_any(b, a)[1]))
            group.spawn(lambda: got.update(last=a.receive()))
            for item in (1, 2, 3):
                a.send(item)
        return got

    assert {"one": 1, "any": 2, "last": 3} == virtual(root, order=order)


# --- OS threads


def test_os_and_virtual_threads_talk(virtual):
    def root():
        there, back = Channel(), Channel(2)

        def echo():
            with back:
                for item in there:
                    back.send(item)

        with ThreadPoolExecutor(1) as pool, ThreadGroup() as group:
            future = pool.submit(echo)

            def send():
                with there:
                    for item in range(100):
                        there.send(item)

            group.spawn(send)
            received = list(back)
            future.result()
        return received

    assert list(range(100)) == virtual(root)


def test_receive_any_on_an_os_thread_and_from_one(virtual):
    def root():
        a, b, answers = Channel(), Channel(), Channel(100)

        def os_thread():
            while True:
                try:
                    channel, item = receive_any(a, b)
                except ChannelClosed:
                    return
                answers.send((channel is a, item))

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(os_thread)
            for item in range(20):
                (a if item % 3 else b).send(item)
            a.close()
            b.close()
            until(future.done)
            future.result()
        answers.close()
        return list(answers)

    assert [(bool(item % 3), item) for item in range(20)] == virtual(root)


def test_an_os_thread_sends_to_a_virtual_thread_that_receives_from_any(virtual):
    def root():
        a, b = Channel(), Channel()
        with ThreadPoolExecutor(2) as pool:
            senders = [pool.submit(channel.send, channel is a) for channel in (a, b)]
            answers = [receive_any(a, b) for _ in range(2)]
            for sender in senders:
                sender.result()
        assert all(item is (channel is a) for channel, item in answers)
        return sorted(item for _, item in answers)

    assert [False, True] == virtual(root)


def test_closing_reaches_os_threads(virtual):
    def root():
        channel = Channel()
        with ThreadPoolExecutor(2) as pool:
            future = pool.submit(closed, channel.receive)
            until(lambda: channel.statistics().waiting)
            channel.close()
            return future.result()

    assert virtual(root)
