/* What the upstream and the load generator share: the clock, the limit on descriptors, and epoll. */

#ifndef RIG_H
#define RIG_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define SECOND_NS 1000000000ull
#define MILLISECOND_NS 1000000ull

/* Each event of a stream carries the time it was sent as STAMP_MARK and STAMP_DIGITS digits: nanoseconds of CLOCK_MONOTONIC,
 * which both programs read on the same machine. The mark stands nowhere else in an answer. */
#define STAMP_MARK '@'
#define STAMP_DIGITS 19

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Take memory, or end: a rig that has none left has nothing to measure. */
static inline void *take(void *memory, size_t bytes) {
    memory = realloc(memory, bytes);
    if (memory == NULL) fail("realloc");
    return memory;
}

static inline void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline void send_at_once(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, void *owner) {
    struct epoll_event event = {.events = events, .data.ptr = owner};
    epoll_ctl(epoll, operation, fd, &event);
}

#endif
