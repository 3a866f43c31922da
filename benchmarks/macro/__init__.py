"""What one operation costs on vthreads and on its peers; run by `python -m vthreads bench`.

A workload is a package in here. Its docstring asks a question, and it says how that is measured:

    SIZE                    what `size` counts, "threads" or "connections" for example
    SIZES                   those that are measured unless others are asked for
    OPERATIONS              how many operations one measurement has; None: as many as `size`
    FIGURES                 what comes out: name and unit, "cpu": "µs per request" for example
    PEERS                   another workload whose peers are taken; only if it has none of its own
    HELPERS                 modules of the workload that are no peers; only if there are some
    measure(peer, size, operations)   the figures; `in_process` and `under_load` make most of these

A peer is a module of a workload. `run(size, operations, watch)` does the work and says how much was done;
`serve(announce)` of a server announces its port, and serves until it is ended. `AT_MOST` is the largest size that a
peer can do. A peer needs nothing of vthreads, unless it is vthreads. (Those of `patched_calls` do no work: they
`prepare()` the calls, which the workload makes.)
"""
