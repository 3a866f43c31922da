# The methods of shared buffers: each acquires the turn, which is a compiled lock, without Python calls.


def in_turn(original):
    @cython.binding(True)
    def call(self, /, *arguments, **options):
        cdef RLock turn = self._turn
        turn._acquire(None, True)
        try:
            return original(self, *arguments, **options)
        finally:
            turn._release()

    return call
