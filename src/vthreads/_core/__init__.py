"""The machine: fibers, schedulers, virtual threads, cancellation, groups.

It imports nothing of the package except `errors`. The rest of the package uses the names in `__all__` of each module.
A module imports only from the lines below its own, and `make layers` checks it:

    fork, daemon_carriers
    > runtime > fleet, carrier_end > carrier > background > group
    > members > completions : submitted > semaphore > future > deadlock
    > placement > current > thread > delivery > cancel > starter, wait_queue
    > participants > engine > blocks
    > clock, order, spawn_site, arguments, copies, dropped, exceptions, idents, contexts, delivery_table, statistics
    > inner_imports, unfinished_imports > own_os_thread, os_thread_kinds > os_thread_states
    > originals, replaced, repeated, on_demand

`docs/internals.md` describes each module in a line.
"""
