"""What one operation costs on vthreads and on its peers; run by `python -m benchmarks.compare`.

A workload is a package in this folder. Its docstring is the question that it answers. It defines:

    SIZE                    unit of `size`, for example "threads" or "connections"
    SIZES                   default sizes
    OPERATIONS              number of operations in a measurement; None: `size`
    FIGURES                 name and unit of each figure, for example "cpu": "µs per request"
    PEERS                   another workload whose peers it uses; only if it has none itself
    HELPERS                 modules of the workload that are not peers; optional
    measure(peer, size, operations)   returns the figures; usually calls `in_process` or `under_load`

A peer is a module of a workload. `run(size, operations, watch)` does the work and returns the number of operations;
`serve(announce)` of a server announces its port and serves until it is killed. `AT_MOST` is the largest size that a
peer supports. Only the peer `vthreads` imports vthreads. (Peers of `patched_calls` do no work: they `prepare()` the
calls that the workload makes.)
"""
