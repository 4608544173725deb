/* What the load programs share: time, options, marks, histograms, epoll.
 *
 * Every event carries a mark that needs no parser of HTTP or of event streams:
 *
 *     ~t=<19 digits: CLOCK_MONOTONIC in ns> n=<10 digits: number>
 *
 * so one scan of the bytes counts events, times them, and tells which arrived. A time of zero
 * means "not timed". Sets of numbers are compared by their count and the sum of a mixing function
 * over them: equal sums of the same count are, but for luck of 1 in 2^64, equal sets.
 *
 * Everything here talks to 127.0.0.1 only.
 */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h> /* glibc's tcp_info ends too early */
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MARK_SIZE 35
#define MARK_FORMAT "~t=%019llu n=%010llu"
#define BILLION 1000000000ull

static inline void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * BILLION + (uint64_t)t.tv_nsec;
}

/* splitmix64's finaliser. */
static inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* -- options: `--name value`, each known name asked for once */

static inline const char *option(int argc, char **argv, const char *name, const char *fallback) {
    for (int i = 1; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], name)) return argv[i + 1];
    return fallback;
}

static inline double number(int argc, char **argv, const char *name, double fallback) {
    const char *text = option(argc, argv, name, NULL);
    char *end;
    if (!text) return fallback;
    double value = strtod(text, &end);
    if (end == text || *end) die("%s: %s is not a number", name, text);
    return value;
}

/* -- latencies: a histogram with 64 steps for each power of two, so within 1.6 % */

#define STEPS 64
#define BUCKETS (STEPS * 40)

struct histogram {
    uint64_t counts[BUCKETS], total, max;
};

static inline void record(struct histogram *h, uint64_t ns) {
    uint64_t us = ns / 1000;
    int shift = us < STEPS ? 0 : 63 - __builtin_clzll(us) - 5;
    uint64_t index = (uint64_t)shift * (STEPS / 2) + (us >> shift);
    if (index >= BUCKETS) index = BUCKETS - 1;
    h->counts[index]++;
    h->total++;
    if (ns > h->max) h->max = ns;
}

/* Upper edge of a bucket, in milliseconds. */
static inline double upper_edge(uint64_t i) {
    uint64_t shift = i < STEPS ? 0 : i / (STEPS / 2) - 1;
    return (double)((i - shift * (STEPS / 2) + 1) << shift) / 1e3;
}

/* Upper edge of the bucket that holds the quantile, in milliseconds. */
static inline double quantile(const struct histogram *h, double q) {
    uint64_t rank = (uint64_t)(q * (double)h->total), seen = 0;
    for (uint64_t i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > rank) {
            double ms = upper_edge(i), most = (double)h->max / 1e6;
            return ms < most ? ms : most;
        }
    }
    return (double)h->max / 1e6;
}

/* The quantiles, and the buckets for those who pool several runs. */
static inline void print_latency(const struct histogram *h) {
    if (!h->total) {
        printf("\"latency\": null");
        return;
    }
    printf("\"latency\": {\"count\": %llu, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, "
           "\"max\": %.3f, \"buckets\": [",
           (unsigned long long)h->total, quantile(h, .5), quantile(h, .9), quantile(h, .99),
           (double)h->max / 1e6);
    const char *comma = "";
    for (uint64_t i = 0; i < BUCKETS; i++)
        if (h->counts[i]) {
            printf("%s[%.3f, %llu]", comma, upper_edge(i), (unsigned long long)h->counts[i]);
            comma = ", ";
        }
    printf("]}");
}

/* -- the process */

/* Take all files we may have, and, if asked, go before everything else on the core. */
static inline void prepare(int realtime) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    struct sched_param priority = {.sched_priority = 1};
    if (realtime && sched_setscheduler(0, SCHED_FIFO, &priority))
        fprintf(stderr, "no real-time priority (%s): latencies include the wait for the core\n",
                strerror(errno));
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data.u64 = key};
    if (epoll_ctl(epoll, operation, fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline int open_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* Connect; the socket becomes writable when that is done. */
static inline void begin_connect(int fd, int port) {
    struct sockaddr_in address = loopback(port);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
}

static inline void set_timer(int fd, uint64_t first_ns, uint64_t every_ns) {
    struct itimerspec spec = {
        .it_value = {(time_t)(first_ns / BILLION), (long)(first_ns % BILLION)},
        .it_interval = {(time_t)(every_ns / BILLION), (long)(every_ns % BILLION)},
    };
    if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL)) die("timerfd: %s", strerror(errno));
}

#endif
