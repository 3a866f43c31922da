/* --- frame stacks

   CPython maps 16 KiB for the frames of each greenlet and unmaps them when it ends. That costs more than the rest of
   a short greenlet. So the chunks are kept here: warm ones with their pages, and cold ones whose pages were returned
   to the kernel. Chunks that were not used for a second become cold, except VT_ALWAYS_WARM of them. The method:
   PyObject_SetArenaAllocator is public, and CPython requests blocks of exactly this size for frames only. */
#if defined(__linux__) && !defined(Py_GIL_DISABLED)
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#define VT_CHUNK ((size_t)16384)
#define VT_SLAB (128 * VT_CHUNK)
#define VT_ALWAYS_WARM ((size_t)1024)

static PyObjectArenaAllocator vt_others;
static struct {
    void **warm, **cold;
    size_t warm_count, cold_count, room, all, unwanted;
    char *slab;
    size_t left;
    /* A lock, because interpreters with separate GILs share the allocator. */
    atomic_flag busy;
} vt_stacks = {.busy = ATOMIC_FLAG_INIT};

static void vt_lock(void) { while (atomic_flag_test_and_set_explicit(&vt_stacks.busy, memory_order_acquire)); }
static void vt_unlock(void) { atomic_flag_clear_explicit(&vt_stacks.busy, memory_order_release); }

/* Make room in both lists for all chunks, so that keeping one never allocates. */
static int vt_make_room(size_t more) {
    size_t room = vt_stacks.room;
    void **larger;
    if (vt_stacks.all + more <= room) return 1;
    room = 2 * (vt_stacks.all + more);
    if ((larger = realloc(vt_stacks.warm, room * sizeof(void *))) == NULL) return 0;
    vt_stacks.warm = larger;
    if ((larger = realloc(vt_stacks.cold, room * sizeof(void *))) == NULL) return 0;
    vt_stacks.cold = larger;
    vt_stacks.room = room;
    return 1;
}
static void *vt_carve(void) {
    void *chunk;
    if (vt_stacks.left < VT_CHUNK) {
        if (!vt_make_room(VT_SLAB / VT_CHUNK)) return NULL;
        chunk = mmap(NULL, VT_SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED) return NULL;
        vt_stacks.slab = chunk;
        vt_stacks.left = VT_SLAB;
        vt_stacks.all += VT_SLAB / VT_CHUNK;
    }
    chunk = vt_stacks.slab;
    vt_stacks.slab += VT_CHUNK;
    vt_stacks.left -= VT_CHUNK;
    return chunk;
}
static void *vt_take(void *context, size_t size) {
    void *chunk;
    if (size != VT_CHUNK) return vt_others.alloc(vt_others.ctx, size);
    vt_lock();
    if (vt_stacks.warm_count) {
        chunk = vt_stacks.warm[--vt_stacks.warm_count];
        if (vt_stacks.warm_count < vt_stacks.unwanted) vt_stacks.unwanted = vt_stacks.warm_count;
    }
    else chunk = vt_stacks.cold_count ? vt_stacks.cold[--vt_stacks.cold_count] : vt_carve();
    vt_unlock();
    return chunk != NULL ? chunk : vt_others.alloc(vt_others.ctx, size);
}
static void vt_give(void *context, void *chunk, size_t size) {
    int kept = 0;
    if (size == VT_CHUNK) {
        vt_lock();
        /* A chunk that was allocated before `vt_keep_stacks` is kept too: it was mapped in the same way. */
        if (vt_stacks.warm_count + vt_stacks.cold_count < vt_stacks.room) {
            vt_stacks.warm[vt_stacks.warm_count++] = chunk;
            kept = 1;
        }
        vt_unlock();
    }
    if (!kept) vt_others.free(vt_others.ctx, chunk, size);
}
static void vt_keep_stacks(void) {
    PyObjectArenaAllocator ours = {NULL, vt_take, vt_give}, present;
    PyObject_GetArenaAllocator(&present);
    if (present.alloc == vt_take || !vt_make_room(VT_SLAB / VT_CHUNK)) return;
    /* Otherwise the child of a fork could find the lock held by a thread that exists only in its parent. */
    if (pthread_atfork(vt_lock, vt_unlock, vt_unlock)) return;
    vt_others = present;
    PyObject_SetArenaAllocator(&ours);
}
/* Return the pages of chunks that were not used since the last call. Returns whether more than VT_ALWAYS_WARM are
   left warm. */
static int vt_cool_stacks(void) {
    size_t spare, i;
    vt_lock();
    spare = vt_stacks.warm_count > VT_ALWAYS_WARM ? vt_stacks.warm_count - VT_ALWAYS_WARM : 0;
    if (spare > vt_stacks.unwanted) spare = vt_stacks.unwanted;
    for (i = 0; i < spare; i++) {
        madvise(vt_stacks.warm[i], VT_CHUNK, MADV_DONTNEED);
        vt_stacks.cold[vt_stacks.cold_count++] = vt_stacks.warm[i];
    }
    vt_stacks.warm_count -= spare;
    if (spare) memmove(vt_stacks.warm, vt_stacks.warm + spare, vt_stacks.warm_count * sizeof(void *));
    vt_stacks.unwanted = vt_stacks.warm_count;
    vt_unlock();
    return vt_stacks.warm_count > VT_ALWAYS_WARM;
}
static int vt_many_warm(void) { return vt_stacks.warm_count > VT_ALWAYS_WARM; }
#else
static void vt_keep_stacks(void) {}
static int vt_cool_stacks(void) { return 0; }
static int vt_many_warm(void) { return 0; }
#endif
