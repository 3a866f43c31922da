# The constants of `states.py`, as C variables.

from math import inf

from vthreads._core.engine import states
from vthreads._core.engine.states import ABORTED as _ABORTED
from vthreads._core.engine.states import LONGEST_WAIT as _LONGEST_WAIT
from vthreads._core.engine.states import NOTHING as _NOTHING
from vthreads._core.engine.states import SLICE as _SLICE
from vthreads._core.engine.states import DEADLOCK_AGAIN_AFTER as _DEADLOCK_AGAIN_AFTER
from vthreads._core.engine.states import SWITCHES_PER_POLL as _SWITCHES_PER_POLL
from vthreads._core.engine.states import TIMED_OUT as _TIMED_OUT
from vthreads._core.engine.states import State, carriers as _carriers, contended as _contended

cdef object ABORTED = _ABORTED
cdef object TIMED_OUT = _TIMED_OUT
cdef object NOTHING = _NOTHING
cdef object carriers = _carriers
cdef list contended = _contended
cdef object NEW = State.NEW
cdef object READY = State.READY
cdef object RUNNING = State.RUNNING
cdef object PARKED = State.PARKED
cdef object ENDED = State.ENDED
cdef double INF = inf
cdef double SLICE = _SLICE
cdef double LONGEST_WAIT = _LONGEST_WAIT
cdef double DEADLOCK_AGAIN_AFTER = _DEADLOCK_AGAIN_AFTER
cdef int ROOM = states.ROOM
cdef object refuse_to_wait = states.refuse_to_wait
cdef int SWITCHES_PER_POLL = _SWITCHES_PER_POLL
cdef Py_ssize_t SHRINK_BY = states.SHRINK_BY
cdef double SHRINK_PAUSE = states.SHRINK_PAUSE
