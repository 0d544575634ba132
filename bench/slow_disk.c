/* A disk whose commits take longer: fdatasync and fsync first sleep SLOW_DISK_US microseconds.
 *
 * Preloaded into Postgres (LD_PRELOAD), so that pgbench, the peers and the gateway meet the same
 * disk. Unlike commit_delay, it changes nothing in Postgres's own way to group commits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static long delay_us = -1;

static void wait_for_disk(void) {
    if (delay_us < 0) {
        const char *text = getenv("SLOW_DISK_US");
        delay_us = text ? atol(text) : 0;
    }
    struct timespec left = {delay_us / 1000000, (delay_us % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0) {
    }
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_disk();
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_disk();
    return real(fd);
}
