/* Requests over a fixed set of keep-alive connections, one at a time on each.
 *
 *     publisher --port P --path /events/news [--method POST] [--connections 64] [--rate R]
 *               [--seconds S] [--count N] [--size 100] [--realtime 1]
 *
 * With a rate the load is open: request i is due at start + i / rate whether or not earlier ones
 * were answered, its mark bears the time it was due, and its latency counts from then. What is due
 * and finds no free connection waits: that is the backlog. Without a rate the load is closed: each
 * connection sends its next request as soon as the last one is answered. It ends after so many
 * seconds or requests, whichever is first, waits two seconds at most for the answers that are out,
 * and prints one line of JSON. `sum` mixes the numbers of all events that were acknowledged.
 */
#include "load.h"

enum { KEY_TIMER = 1 << 30 };
#define IN_BUFFER 8192
#define MAX_CONNECTIONS 1024
#define PATIENCE_NS (2 * BILLION)
#define SETTLE_NS (BILLION / 4)

struct connection {
    int fd, busy;
    size_t held;
    uint64_t due, n;
    char in[IN_BUFFER];
};

/* The free ones queue, so that all have their turn at low rates too. */
static struct connection connections[MAX_CONNECTIONS], *idle[MAX_CONNECTIONS];
static int port, total, idle_count, idle_first, poll_fd, timer_fd, size;
static const char *method, *path;
static double rate;
static uint64_t begun, ends, limit, sent, acked, failed, reconnects, backlog, sum, other_status;
static uint64_t last_answer;
static struct histogram latencies;

static void open_connection(struct connection *c) {
    struct sockaddr_in address = loopback(port);
    c->fd = open_socket();
    fcntl(c->fd, F_SETFL, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address))
        die("connect: %s", strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->held = 0;
    watch(poll_fd, EPOLL_CTL_ADD, c->fd, EPOLLIN, (uint64_t)(c - connections));
}

static void now_idle(struct connection *c) {
    c->busy = 0;
    idle[(idle_first + idle_count++) % total] = c;
}

static struct connection *take_idle(void) {
    struct connection *c = idle[idle_first];
    idle_first = (idle_first + 1) % total;
    idle_count--;
    return c;
}

static void reconnect(struct connection *c) {
    close(c->fd);
    reconnects++;
    open_connection(c);
}

static int format_request(char *out, size_t room, uint64_t due, uint64_t n) {
    int has_body = !strcmp(method, "POST");
    int used = snprintf(out, room,
                        "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: publisher\r\n"
                        "Accept: */*\r\n",
                        method, path, port);
    if (!has_body) return used + snprintf(out + used, room - (size_t)used, "\r\n");
    used += snprintf(out + used, room - (size_t)used,
                     "Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n", size);
    snprintf(out + used, room - (size_t)used, MARK_FORMAT, (unsigned long long)due,
             (unsigned long long)n);
    memset(out + used + MARK_SIZE, 'x', (size_t)(size - MARK_SIZE));
    return used + size;
}

static void send_request(struct connection *c, uint64_t due) {
    static char out[IN_BUFFER * 9];
    c->due = due;
    c->n = sent++;
    c->busy = 1;
    int length = format_request(out, sizeof out, due, c->n);
    /* On a connection without anything under way the kernel has room for all of it. */
    if (send(c->fd, out, (size_t)length, 0) == length) return;
    failed++;
    reconnect(c);
    now_idle(c);
}

/* -- answers */

static char *find_header(char *head, const char *name) {
    size_t length = strlen(name);
    for (char *line = head; (line = strstr(line, "\r\n")) && line[2] != '\r';) {
        line += 2;
        if (!strncasecmp(line, name, length)) return line + length;
    }
    return NULL;
}

/* Whether a whole response is there. Nothing is pipelined, so it is all there is. */
static int is_complete(struct connection *c) {
    c->in[c->held] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    char *length = find_header(c->in, "content-length:");
    if (length) return (size_t)(end + 4 - c->in) + strtoul(length, NULL, 10) <= c->held;
    if (find_header(c->in, "transfer-encoding:"))
        return c->held >= 5 && !memcmp(c->in + c->held - 5, "0\r\n\r\n", 5);
    return 1;
}

static void answered(struct connection *c) {
    last_answer = now_ns();
    if (c->in[9] == '2') {
        acked++;
        sum += mix(c->n);
        record(&latencies, last_answer - c->due);
    } else {
        if (!other_status++) fprintf(stderr, "not accepted: %.200s\n", c->in);
    }
    char *connection = find_header(c->in, "connection:");
    c->held = 0;
    if (connection && !strncasecmp(connection + strspn(connection, " "), "close", 5)) reconnect(c);
    now_idle(c);
}

static void receive(struct connection *c) {
    ssize_t got = recv(c->fd, c->in + c->held, IN_BUFFER - 1 - c->held, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        int was_busy = c->busy;
        failed += (uint64_t)was_busy;
        reconnect(c);
        if (was_busy) now_idle(c);
        return;
    }
    c->held += (size_t)got;
    if (is_complete(c)) answered(c);
    else if (c->held == IN_BUFFER - 1) die("a response is too long");
}

/* -- the load */

static uint64_t due_time(uint64_t i) {
    return begun + (uint64_t)((double)i / rate * 1e9);
}

static uint64_t due_by(uint64_t now) {
    uint64_t due = (uint64_t)((double)(now - begun) * rate / 1e9) + 1;
    return due < limit ? due : limit;
}

/* Send what is due; returns whether the load goes on. */
static int issue(uint64_t now) {
    if (now >= ends || sent >= limit) return 0;
    if (!rate) {
        while (idle_count && sent < limit) send_request(take_idle(), now_ns());
        return 1;
    }
    uint64_t due = due_by(now);
    while (idle_count && sent < due) send_request(take_idle(), due_time(sent));
    if (due > sent && due - sent > backlog) backlog = due - sent;
    /* With a backlog the next answer wakes us, not the clock. */
    if (due <= sent) set_timer(timer_fd, due_time(sent), 0);
    return 1;
}

static void print_result(uint64_t unsent) {
    double seconds = (double)((last_answer > begun ? last_answer : now_ns()) - begun) / 1e9;
    printf("{\"sent\": %llu, \"acked\": %llu, \"failed\": %llu, \"other_status\": %llu, "
           "\"reconnects\": %llu, \"unanswered\": %d, \"unsent\": %llu, \"backlog\": %llu, "
           "\"seconds\": %.6f, \"rate\": %.3f, \"sum\": %llu, ",
           (unsigned long long)sent, (unsigned long long)acked, (unsigned long long)failed,
           (unsigned long long)other_status, (unsigned long long)reconnects, total - idle_count,
           (unsigned long long)unsent, (unsigned long long)backlog, seconds,
           (double)acked / seconds, (unsigned long long)sum);
    print_latency(&latencies);
    printf("}\n");
}

static void turn(uint64_t until) {
    struct epoll_event happened[256];
    uint64_t now = now_ns(), ticks;
    int timeout = until > now ? (int)((until - now) / 1000000) + 1 : 0;
    int n = epoll_wait(poll_fd, happened, 256, timeout);
    for (int i = 0; i < n; i++) {
        if (happened[i].data.u64 != KEY_TIMER)
            receive(&connections[happened[i].data.u64]);
        else if (read(timer_fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
            die("timerfd: %s", strerror(errno));
    }
}

static void run(void) {
    begun = last_answer = now_ns();
    if (rate && rate * (double)ends / 1e9 < (double)limit)
        limit = (uint64_t)(rate * (double)ends / 1e9);
    ends += begun;
    while (issue(now_ns())) turn(ends);
    uint64_t due = rate ? due_by(ends < now_ns() ? ends : now_ns()) : sent;
    uint64_t give_up = now_ns() + PATIENCE_NS;
    while (idle_count < total && now_ns() < give_up) turn(give_up);
    print_result(due > sent ? due - sent : 0);
}

int main(int argc, char **argv) {
    port = (int)number(argc, argv, "--port", 0);
    total = (int)number(argc, argv, "--connections", 64);
    rate = number(argc, argv, "--rate", 0);
    size = (int)number(argc, argv, "--size", 100);
    limit = (uint64_t)number(argc, argv, "--count", 1e15);
    ends = (uint64_t)(number(argc, argv, "--seconds", 5) * 1e9);
    method = option(argc, argv, "--method", "POST");
    path = option(argc, argv, "--path", "/");
    if (total < 1 || total > MAX_CONNECTIONS) die("--connections: 1 to %d", MAX_CONNECTIONS);
    if (size < MARK_SIZE || size > IN_BUFFER * 8) die("--size: %d to %d", MARK_SIZE, IN_BUFFER * 8);
    prepare(number(argc, argv, "--realtime", 0) > 0);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(poll_fd, EPOLL_CTL_ADD, timer_fd, EPOLLIN, KEY_TIMER);
    for (int i = 0; i < total; i++) {
        open_connection(&connections[i]);
        now_idle(&connections[i]);
    }
    /* The server accepts them before the first request is due: what that takes is measured by
       `connects`, and here it would be the latency of the first event, one of a few dozen. */
    nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
    run();
    return 0;
}
