/* clock_nanosleep that tells of interruption. wasi-libc's answers every failure of poll_oneoff with ENOTSUP, so the
   EINTR by which the time limit wakes a sleeper would never reach time.sleep() (PEP 475). The linker takes this one
   before looking into libc. */

#include <errno.h>
#include <time.h>
#include <wasi/api.h>

/* libc's clockid_t points to this. */
struct __clockid {
    __wasi_clockid_t id;
};

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *remaining)
{
    if ((flags & ~TIMER_ABSTIME) != 0 || request->tv_nsec < 0 || request->tv_nsec >= 1000000000)
        return EINVAL;
    __wasi_timestamp_t nanoseconds = 0;
    if (request->tv_sec >= 0 &&
        (__builtin_mul_overflow((uint64_t)request->tv_sec, 1000000000, &nanoseconds) ||
         __builtin_add_overflow(nanoseconds, (uint64_t)request->tv_nsec, &nanoseconds)))
        nanoseconds = UINT64_MAX;
    __wasi_subscription_t subscription = {
        .u.tag = __WASI_EVENTTYPE_CLOCK,
        .u.u.clock.id = clock->id,
        .u.u.clock.timeout = nanoseconds,
        .u.u.clock.flags = flags == TIMER_ABSTIME ? __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME : 0,
    };
    __wasi_event_t event;
    __wasi_size_t count;
    /* `remaining` is not filled in: CPython computes it from the clock. */
    __wasi_errno_t error = __wasi_poll_oneoff(&subscription, &event, 1, &count);
    return error != 0 ? error : event.error;
}
