"""Locks, conditions, events, barriers, mutexes, queues, channels and locals: all park in wait queues.

This package uses no blocking calls of the standard library, no descriptors and no OS threads.
"""
