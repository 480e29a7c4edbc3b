/* Faults a process cannot be given from outside without privilege: disk errors and a wrong clock.
 *
 * Preloaded into a node (LD_PRELOAD). It maps the file named by CHAOS_SHIM, which the test writes
 * while the node runs, so a fault begins and ends without a restart. It changes CLOCK_REALTIME
 * only: timeouts run on CLOCK_MONOTONIC, as on a machine whose clock is set by hand.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t clock_offset_ns;  /* added to CLOCK_REALTIME */
    volatile int64_t clock_rate_ppm;   /* drift since clock_base_ns */
    volatile int64_t clock_base_ns;    /* true CLOCK_REALTIME from which the drift counts */
    volatile int64_t sync_errno;       /* what fsync and fdatasync fail with */
    volatile int64_t sync_failures;    /* how many of them fail; negative is for ever */
    volatile int64_t sync_delay_us;    /* how much longer one takes */
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_SHIM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *place = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place != MAP_FAILED) control = place;
}

static int sync_with(const char *name, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (control) {
        if (control->sync_delay_us > 0) usleep((useconds_t)control->sync_delay_us);
        int64_t left = control->sync_failures;
        if (left) {
            if (left > 0) __sync_fetch_and_sub(&control->sync_failures, 1);
            errno = (int)control->sync_errno;
            return -1;
        }
    }
    return real(file);
}

int fsync(int file) { return sync_with("fsync", file); }
int fdatasync(int file) { return sync_with("fdatasync", file); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result || !control || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
    int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec;
    int64_t drift = (ns - control->clock_base_ns) / 1000000 * control->clock_rate_ppm;
    ns += control->clock_offset_ns + (control->clock_rate_ppm ? drift : 0);
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
