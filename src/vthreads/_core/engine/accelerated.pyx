# cython: language_level=3, binding=False, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled engine: the same contract as `reference.py`, which explains each part.

One shared library, built from many parts: `X/compiled/y.pxi` repeats hot code of the module `X/y.py`, and the parts of
the engine itself are in `compiled` beside this file. C code is in headers beside the parts that use it. Paths are those
below the package `vthreads`; each part imports by absolute names, since all are one module when they are compiled.
A part uses names of its own layer and of lower ones. Upper layers pass other names to `supply`.

It follows the readable code line for line, except where that costs speed. The differences: switches use greenlet's C
API, the run queue of a first-in-first-out order is a ring, epoll is polled without a list, the frame stacks of finished
greenlets are kept, and the running fiber is a variable of the OS thread.
"""

# --- the engine: fibers only

include "_core/engine/compiled/interpreter.pxi"
include "_core/engine/compiled/states.pxi"
include "_core/engine/compiled/run_queue.pxi"
include "_core/engine/compiled/timers.pxi"
include "_core/engine/compiled/descriptors.pxi"
include "_core/engine/compiled/pollers.pxi"
include "_core/engine/compiled/fiber.pxi"
include "_core/engine/compiled/greenlet_pool.pxi"
include "_core/engine/compiled/scheduler.pxi"
include "_core/engine/compiled/turns.pxi"
include "_core/engine/compiled/carriers.pxi"
include "_core/engine/compiled/section.pxi"
include "_core/engine/compiled/parts.pxi"

# --- hot code of the layers above, in their order

include "_core/compiled/arguments.pxi"
include "_core/compiled/contexts.pxi"
include "_core/compiled/idents.pxi"
include "_core/compiled/wait_queue.pxi"
include "_core/compiled/thread.pxi"
include "_core/compiled/current.pxi"
include "_core/compiled/future.pxi"
include "_core/compiled/semaphore.pxi"
include "_core/compiled/completions.pxi"
include "_core/compiled/members.pxi"
include "_core/compiled/group.pxi"
include "_core/compiled/runtime.pxi"
include "_sync/compiled/locks.pxi"
include "_sync/compiled/queues.pxi"
include "compiled/_timeouts.pxi"
include "_calls/compiled/standard_locks.pxi"
include "_calls/compiled/standard_conditions.pxi"
include "_calls/compiled/standard_queues.pxi"
include "_calls/net/compiled/attempts.pxi"
include "_calls/net/compiled/socket.pxi"
include "_calls/net/compiled/ssl.pxi"
include "_calls/net/compiled/select.pxi"
include "_calls/net/compiled/watches.pxi"
include "_calls/files/compiled/kinds.pxi"
include "_calls/files/compiled/reading.pxi"
include "_calls/files/compiled/writing.pxi"
include "_calls/files/compiled/raw.pxi"
include "_calls/files/compiled/buffers.pxi"
include "_calls/files/compiled/buffer_classes.pxi"
include "_calls/files/compiled/opening.pxi"
include "_event_loops/compiled/running_loops.pxi"
include "_event_loops/compiled/first_steps.pxi"
include "_event_loops/compiled/guests.pxi"
include "aio/compiled/_calls.pxi"
include "_patching/compiled/holders.pxi"

# --- the table of parts

PARTS.update(
    {
        "vthreads._core.wait_queue.WaitQueue": WaitQueue,
        "vthreads._core.wait_queue.waiter_here": waiter_here,
        "vthreads._core.current.check_here": check_here,
        "vthreads._core.current.give_way": give_way_here,
        "vthreads._core.current.instruction_here": instruction_here,
        "vthreads._core.thread.ThreadFields": ThreadFields,
        "vthreads._core.thread.VirtualThread.run": run_thread,
        "vthreads._core.future.FutureFields": FutureFields,
        "vthreads._core.future.Future.result": future_result,
        "vthreads._core.semaphore.Semaphore": Semaphore,
        "vthreads._core.completions.EndedFutures": EndedFutures,
        "vthreads._core.members.MemberFields": MemberFields,
        "vthreads._core.members.Members.spawn": spawn_member,
        "vthreads._core.members.Members._add": add_member,
        "vthreads._core.members.sites_here": sites_here,
        "vthreads._core.group.ThreadGroup.spawn": spawn,
        "vthreads._core.runtime.checkpoint": checkpoint,
        "vthreads._sync.locks.Lock": Lock,
        "vthreads._sync.locks.RLock": RLock,
        "vthreads._sync.queues._Exchange": _Exchange,
        "vthreads._sync.queues.Queue.put": queue_put,
        "vthreads._sync.queues.Queue.get": queue_get,
        "vthreads._sync.queues.SimpleQueue.put": simple_put,
        "vthreads._sync.queues.SimpleQueue.get": simple_get,
        "vthreads._calls.net.select.select": select_files,
        "vthreads._calls.net.ssl.read": tls_read,
        "vthreads._calls.net.ssl.send": tls_send,
        "vthreads._calls.net.ssl.sendall": tls_sendall,
        "vthreads._calls.net.ssl.write": tls_write,
        "vthreads._calls.net.watches.Watch": Watch,
        "vthreads._calls.files.kinds.device_of_regular": device_of_regular,
        "vthreads._calls.files.reading.read": os_read,
        "vthreads._calls.files.reading.rest_in_cache": rest_in_cache,
        "vthreads._calls.files.writing.write": os_write,
        "vthreads._calls.files.raw._called_by_a_buffer": called_by_a_buffer,
        "vthreads._calls.files.raw.File.readall": file_readall,
        "vthreads._calls.files.raw.File._read_rest_at_once": rest_at_once,
        "vthreads._calls.files.raw.File.close": file_close,
        "vthreads._calls.files.buffers._Reading.read": read_through,
        "vthreads._calls.files.buffer_classes.in_turn": in_turn,
        "vthreads._calls.files.opening.open": open_file,
        "vthreads._calls.standard_locks.ConditionWaiterLock": ConditionWaiterLock,
        "vthreads._event_loops.running_loops.RunningLoops": RunningLoops,
        "vthreads._event_loops.first_steps.TaskStarter": TaskStarter,
        "vthreads._event_loops.guests.GuestFields": GuestFields,
        "vthreads._event_loops.guests.Guest.begin": guest_begin,
        "vthreads._event_loops.guests.Guest.create_task": guest_create_task,
        "vthreads._event_loops.guests.Guest.call": guest_call,
        "vthreads._event_loops.guests.Guest._call_soon": guest_call_soon,
        "vthreads._event_loops.guests.Guest._lend": guest_lend,
        "vthreads._event_loops.guests.Guest._turn": guest_turn,
        "vthreads.aio._calls.CallFields": CallFields,
        "vthreads.aio._calls.TaskCall._start": call_start,
        "vthreads.aio._calls.TaskCall.settle": call_settle,
        "vthreads.aio._calls.await_": await_,
        "vthreads._patching.holders.referents_of_kinds": referents_of_kinds,
        "vthreads._patching.holders.referrers": referrers,
        "vthreads._patching.holders.sorted_by_type": sorted_by_type,
        "vthreads._timeouts.sleep": sleep,
        "vthreads._timeouts.sleep_here": sleep_here,
    }
)
NAME_SETTERS.update(
    {
        "vthreads._core.runtime": set_core_names,
        "vthreads._calls.files.buffers": set_buffer_names,
        "vthreads._calls.files.kinds": set_kind_names,
        "vthreads._calls.files.opening": set_opening_names,
        "vthreads._calls.files.raw": set_raw_names,
        "vthreads._calls.files.reading": set_reading_names,
        "vthreads._calls.net.select": set_select_names,
        "vthreads._calls.net.ssl": set_tls_names,
        "vthreads._calls.standard_conditions": set_condition_names,
        "vthreads._event_loops.first_steps": set_task_names,
        "vthreads._event_loops.guests": set_guest_names,
        "vthreads._event_loops.running_loops": set_loop_names,
        "vthreads._sync.locks": set_lock_names,
        "vthreads._sync.queues": set_queue_names,
        "vthreads.aio._calls": set_call_names,
    }
)
