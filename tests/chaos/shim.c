/* Faults at the n-th call of a library function, and a movable wall clock.
 *
 * Preloaded into the server process alone (its tools get an environment of their own). The file
 * named by CHAOS_SHIM is mapped, so that a test may arm a fault before the start or at any time:
 * the armed call counts `left` down, and at zero the action is done. Layout: see shim.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { NONE, KILL_BEFORE, KILL_AFTER, TORN, FAIL };
enum { PWRITE = 1, FDATASYNC, FSYNC, FTRUNCATE, UNLINK, WRITE, SEND, OPEN };

struct control {
    volatile int64_t clock_ns;  /* added to every reading of the wall clock */
    volatile int64_t left;      /* calls until the action */
    volatile int32_t call;
    volatile int32_t action;
    volatile int32_t error;     /* errno of FAIL */
    volatile int32_t again;     /* FAIL: every further call too */
    volatile int64_t fired;     /* how often the action was done */
};

static struct control *control;
static int64_t bystander; /* the process that only forks servers: nothing counts in it */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_SHIM");
    if (getenv("CHAOS_ZYGOTE") != NULL) bystander = syscall(SYS_getpid);
    if (path == NULL) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) control = found;
    syscall(SYS_close, fd);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

/* The action that this call has met, or NONE. */
static int met(int call) {
    if (control == NULL || control->call != call || control->action == NONE) return NONE;
    if (bystander && syscall(SYS_getpid) == bystander) return NONE;
    int64_t left = __sync_sub_and_fetch(&control->left, 1);
    if (left > 0 || (left < 0 && !control->again)) return NONE;
    __sync_add_and_fetch(&control->fired, 1);
    if (control->action == KILL_BEFORE) die();
    return control->action;
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (next == NULL) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define PLAIN(type, name, number, parameters, arguments) \
    type name parameters { \
        NEXT(name); \
        int action = met(number); \
        if (action == FAIL) { errno = control->error; return -1; } \
        type result = next arguments; \
        if (action == KILL_AFTER || action == TORN) die(); \
        return result; \
    }

/* One that writes: torn, half of it reaches the file, if it is more than one sector. */
#define WRITING(name, number, parameters, arguments, half) \
    ssize_t name parameters { \
        NEXT(name); \
        int action = met(number); \
        if (action == FAIL) { errno = control->error; return -1; } \
        if (action == TORN && size > 512) { next half; die(); } \
        ssize_t result = next arguments; \
        if (action == KILL_AFTER || action == TORN) die(); \
        return result; \
    }

WRITING(pwrite, PWRITE, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
        (fd, data, size / 2, at))
WRITING(pwrite64, PWRITE, (int fd, const void *data, size_t size, off64_t at),
        (fd, data, size, at), (fd, data, size / 2, at))
WRITING(write, WRITE, (int fd, const void *data, size_t size), (fd, data, size),
        (fd, data, size / 2))
WRITING(send, SEND, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags),
        (fd, data, size / 2, flags))
PLAIN(int, fdatasync, FDATASYNC, (int fd), (fd))
PLAIN(int, fsync, FSYNC, (int fd), (fd))
PLAIN(int, ftruncate, FTRUNCATE, (int fd, off_t size), (fd, size))
PLAIN(int, ftruncate64, FTRUNCATE, (int fd, off64_t size), (fd, size))
PLAIN(int, unlink, UNLINK, (const char *path), (path))
PLAIN(int, unlinkat, UNLINK, (int fd, const char *path, int flags), (fd, path, flags))

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); \
        } \
        int action = met(OPEN); \
        if (action == FAIL) { errno = control->error; return -1; } \
        int result = next(path, flags, mode); \
        if (action == KILL_AFTER || action == TORN) die(); \
        return result; \
    }
OPENING(open)
OPENING(open64)

/* --- the wall clock --------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int result = next(clock, now);
    if (result == 0 && control != NULL && clock == CLOCK_REALTIME) {
        int64_t ns = now->tv_nsec + control->clock_ns % 1000000000;
        now->tv_sec += control->clock_ns / 1000000000;
        if (ns < 0) { ns += 1000000000; now->tv_sec -= 1; }
        if (ns >= 1000000000) { ns -= 1000000000; now->tv_sec += 1; }
        now->tv_nsec = ns;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now != NULL) *now = precise.tv_sec;
    return precise.tv_sec;
}
