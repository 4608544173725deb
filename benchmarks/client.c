/* Many subscribers in one process, told what to do line by line.
 *
 *     client --port P --count N --path /events/news [--ramp 64] [--read-rate BYTES]
 *            [--rcvbuf BYTES] [--realtime 1] [--last-event-id ID]
 *
 * Connects N streams, at most `ramp` at a time; each `%d` in the path is the subscriber's number. One
 * line of JSON says when all are open. Then each line on standard input is a command:
 *
 *     mark                        forget all counts; latencies from events sent before now too
 *     wait EVENTS MS COUNT SUM    report once EVENTS arrived in all, or after MS; `complete` is
 *                                 the number of streams that got exactly the numbers whose count
 *                                 and sum are given
 *     end of input                reset all connections and exit
 *
 * A read rate makes slow clients: so many bytes a second and stream, 0 for none at all, ever (such
 * a stream counts as open when its request is out). What it reads at once is bounded by `rcvbuf`.
 */
#include "load.h"

enum { CONNECTING, HEAD, OPEN, CLOSED };
enum { KEY_INPUT = 1 << 30, KEY_TIMER };

#define BUFFER (256 * 1024)
#define TICKS_PER_SECOND 10

struct stream {
    int fd, state, carried, blank;
    char carry[MARK_SIZE];
    uint64_t count, sum, segments;
};

static struct stream *streams;
static int count, port, poll_fd, timer_fd, ramp, rcvbuf, started, opened, closed, refused;
static long read_rate;
static const char *path, *last_event_id;
static char buffer[MARK_SIZE + BUFFER];

static uint64_t events, bytes, reads, marked, first, last, begun;
static struct histogram latencies;
static uint64_t waited_events, waited_until, waited_count, waited_sum;
static int waiting;

static uint64_t segments_of(const struct stream *s) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (s->state == CLOSED || getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &size)) return 0;
    return info.tcpi_data_segs_in;
}

static void mark_now(void) {
    events = bytes = reads = first = last = 0;
    marked = now_ns();
    memset(&latencies, 0, sizeof latencies);
    for (int i = 0; i < count; i++) {
        streams[i].count = streams[i].sum = 0;
        streams[i].segments = segments_of(&streams[i]);
    }
}

static void report(uint64_t want_count, uint64_t want_sum) {
    uint64_t segments = 0, least = UINT64_MAX, most = 0;
    int complete = 0;
    for (int i = 0; i < count; i++) {
        struct stream *s = &streams[i];
        uint64_t seen = segments_of(s);
        segments += seen > s->segments ? seen - s->segments : 0;
        least = s->count < least ? s->count : least;
        most = s->count > most ? s->count : most;
        complete += s->count == want_count && s->sum == want_sum;
    }
    printf("{\"events\": %llu, \"bytes\": %llu, \"reads\": %llu, \"segments\": %llu, "
           "\"seconds\": %.6f, \"since_start\": %.6f, \"open\": %d, \"closed\": %d, \"complete\": %d, \"least\": %llu, "
           "\"most\": %llu, ",
           (unsigned long long)events, (unsigned long long)bytes, (unsigned long long)reads,
           (unsigned long long)segments, (double)(last - first) / 1e9,
           (double)(last > begun ? last - begun : 0) / 1e9, opened - closed, closed,
           complete, (unsigned long long)least, (unsigned long long)most);
    print_latency(&latencies);
    printf("}\n");
}

static void end_wait(void) {
    waiting = 0;
    report(waited_count, waited_sum);
}

static void obey(char *line) {
    unsigned long long a = 0, b = 0, c = 0, d = 0;
    if (!strncmp(line, "mark", 4)) {
        mark_now();
        printf("{}\n");
    } else if (sscanf(line, "wait %llu %llu %llu %llu", &a, &b, &c, &d) == 4) {
        waited_events = a;
        waited_until = now_ns() + b * 1000000;
        waited_count = c;
        waited_sum = d;
        waiting = 1;
        if (events >= waited_events) end_wait();
    } else {
        die("unknown command: %s", line);
    }
}

static void read_commands(void) {
    static char input[4096];
    static size_t held;
    ssize_t got = read(0, input + held, sizeof input - held - 1);
    if (got <= 0) {
        struct linger now = {1, 0};
        for (int i = 0; i < started; i++)
            if (streams[i].state != CLOSED)
                setsockopt(streams[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        exit(0);
    }
    held += (size_t)got;
    input[held] = 0;
    for (char *end; (end = strchr(input, '\n'));) {
        *end = 0;
        obey(input);
        held -= (size_t)(end + 1 - input);
        memmove(input, end + 1, held + 1);
    }
}

/* -- one stream */

static void start_one(void) {
    struct stream *s = &streams[started];
    s->fd = open_socket();
    if (rcvbuf) setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    s->state = CONNECTING;
    begin_connect(s->fd, port);
    watch(poll_fd, EPOLL_CTL_ADD, s->fd, EPOLLOUT, (uint64_t)started++);
}

static void now_open(struct stream *s) {
    s->state = OPEN;
    opened++;
    /* Slow ones are read by the timer; the poll only tells of their end. */
    if (read_rate >= 0)
        watch(poll_fd, EPOLL_CTL_MOD, s->fd, EPOLLRDHUP, (uint64_t)(s - streams));
}

static void now_closed(struct stream *s) {
    if (s->state != OPEN) refused++, opened++;
    s->state = CLOSED;
    closed++;
    close(s->fd);
}

/* The path of one subscriber: each `%d` in it is its number. */
static void expand_path(char *out, size_t room, int number) {
    size_t used = 0;
    for (const char *at = path; *at; at++) {
        int is_number = at[0] == '%' && at[1] == 'd';
        int size = is_number ? snprintf(out + used, room - used, "%d", number) : 1;
        if (!is_number) out[used] = *at;
        used += (size_t)size;
        at += is_number;
        if (used + 16 > room) die("the path is too long");
    }
    out[used] = 0;
}

/* As a browser asks. */
static void send_request(struct stream *s) {
    static char request[20480], place[16384], resume[256];
    int number = (int)(s - streams);
    expand_path(place, sizeof place, number);
    if (last_event_id) snprintf(resume, sizeof resume, "Last-Event-ID: %s\r\n", last_event_id);
    int size = snprintf(
        request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: keep-alive\r\n"
        "sec-ch-ua-platform: \"Linux\"\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/140.0.0.0 Safari/537.36\r\nAccept: text/event-stream\r\n"
        "sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
        "Referer: http://127.0.0.1:%d/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: en-US,en;q=0.9\r\nCache-Control: no-cache\r\n%s\r\n",
        place, port, port, resume);
    if (size >= (int)sizeof request) die("the path is too long");
    if (send(s->fd, request, (size_t)size, 0) != size) {
        now_closed(s);
        return;
    }
    s->state = HEAD;
    watch(poll_fd, EPOLL_CTL_MOD, s->fd, EPOLLIN, (uint64_t)number);
    if (read_rate == 0) now_open(s);
}

/* Skip the head; its status must be 200. Returns the first byte behind it, or NULL. */
static char *skip_head(struct stream *s, char *at, char *end) {
    static const char blank[] = "\r\n\r\n";
    for (; at < end; at++) {
        s->blank = *at == blank[s->blank] ? s->blank + 1 : *at == '\r';
        if (s->blank == 4) {
            now_open(s);
            return at + 1;
        }
    }
    return NULL;
}

static void take_event(struct stream *s, const char *at, uint64_t now) {
    uint64_t sent = strtoull(at + 3, NULL, 10), n = strtoull(at + 25, NULL, 10);
    events++;
    s->count++;
    s->sum += mix(n);
    first = first ? first : now;
    last = now;
    if (sent && sent >= marked) record(&latencies, now > sent ? now - sent : 0);
}

/* Find marks; what may be the start of one that is cut off is kept for the next read. */
static void scan(struct stream *s, char *at, char *end, uint64_t now) {
    s->carried = 0;
    while ((at = memchr(at, '~', (size_t)(end - at)))) {
        if (end - at < MARK_SIZE) {
            s->carried = (int)(end - at);
            memcpy(s->carry, at, (size_t)s->carried);
            return;
        }
        if (at[1] == 't' && at[2] == '=') {
            take_event(s, at, now);
            at += MARK_SIZE;
        } else {
            at++;
        }
    }
}

/* Read once; returns how many bytes that gave, 0 when there are none for now. */
static long read_some(struct stream *s, size_t most) {
    char *body = buffer + MARK_SIZE;
    ssize_t got = recv(s->fd, body, most < BUFFER ? most : BUFFER, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) now_closed(s);
        return 0;
    }
    char *at = body, *end = body + got;
    if (s->state == HEAD) {
        if (s->blank == 0 && got >= 12 && memcmp(body + 8, " 200", 4)) {
            fprintf(stderr, "refused: %.*s\n", (int)(got < 200 ? got : 200), body);
            now_closed(s);
            return 0;
        }
        at = skip_head(s, at, end);
        if (!at) return got;
    }
    reads++;
    bytes += (uint64_t)(end - at);
    at -= s->carried;
    memcpy(at, s->carry, (size_t)s->carried);
    scan(s, at, end, now_ns());
    return got;
}

static void read_slowly(void) {
    uint64_t ticks;
    if (read(timer_fd, &ticks, sizeof ticks) < 0 || read_rate <= 0) return;
    for (int i = 0; i < started; i++)
        if (streams[i].state == OPEN) read_some(&streams[i], (size_t)read_rate / TICKS_PER_SECOND);
}

static void serve(struct stream *s, uint32_t happened) {
    if (s->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            now_closed(s);
        else
            send_request(s);
    } else if (s->state == HEAD || read_rate < 0) {
        read_some(s, BUFFER);
    } else if (s->state == OPEN && happened & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
        now_closed(s);
    }
}

static void turn(void) {
    struct epoll_event happened[512];
    int n = epoll_wait(poll_fd, happened, 512, waiting ? 5 : -1);
    for (int i = 0; i < n; i++) {
        uint64_t key = happened[i].data.u64;
        if (key == KEY_INPUT)
            read_commands();
        else if (key == KEY_TIMER)
            read_slowly();
        else if (streams[key].state != CLOSED)
            serve(&streams[key], happened[i].events);
    }
    if (waiting && (events >= waited_events || now_ns() >= waited_until)) end_wait();
}

int main(int argc, char **argv) {
    port = (int)number(argc, argv, "--port", 0);
    count = (int)number(argc, argv, "--count", 1);
    ramp = (int)number(argc, argv, "--ramp", 64);
    rcvbuf = (int)number(argc, argv, "--rcvbuf", 0);
    read_rate = (long)number(argc, argv, "--read-rate", -1);
    path = option(argc, argv, "--path", "/events");
    last_event_id = option(argc, argv, "--last-event-id", NULL);
    prepare(number(argc, argv, "--realtime", 0) > 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    streams = calloc((size_t)count, sizeof *streams);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!streams || poll_fd < 0 || timer_fd < 0) die("no memory or no files left");
    watch(poll_fd, EPOLL_CTL_ADD, 0, EPOLLIN, KEY_INPUT);
    watch(poll_fd, EPOLL_CTL_ADD, timer_fd, EPOLLIN, KEY_TIMER);
    if (read_rate > 0) set_timer(timer_fd, now_ns(), BILLION / TICKS_PER_SECOND);
    begun = now_ns();
    while (opened < count) {
        while (started < count && started - opened < ramp) start_one();
        turn();
    }
    printf("{\"open\": %d, \"refused\": %d, \"seconds\": %.6f}\n", count - refused, refused,
           (double)(now_ns() - begun) / 1e9);
    /* Nothing is forgotten: a stream may have begun to send at once. */
    for (;;) turn();
}
