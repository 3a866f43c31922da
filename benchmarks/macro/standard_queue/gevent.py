"""Greenlets, by `monkey.patch_all()`. It replaces whole classes, for example `queue.Queue` and `threading.Event`."""

from gevent import monkey


def prepare():
    monkey.patch_all()
