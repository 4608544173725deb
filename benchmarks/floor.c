/* The least a server can do: one `send()` per event and subscriber, and nothing else.
 *
 *     floor --port P
 *
 *     GET  /events/…      subscribe to everything
 *     POST /…             send the body to all as one event; answered 200 afterwards
 *     POST /events/quiet  the same without the sending: what the request alone costs
 *     GET  /stream?n=N    N events of 100 bytes, a send each, then the end
 *     GET  /…             a small answer
 *
 * It trusts its clients: no timeouts, no limits, no HTTP beyond what ours say, and one that does
 * not read is dropped. Not a server to use; a mark on the wall to measure others against.
 */
#include "load.h"

enum { KEY_LISTENER = 1 << 30 };
#define MAX_FD 65536
#define IN_BUFFER 4096

static char *input[MAX_FD];
static size_t held[MAX_FD];
static int subscribers[MAX_FD], subscriber_count, poll_fd;

static const char stream_head[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    "Transfer-Encoding: chunked\r\n\r\n2\r\n:\n\r\n";
static const char small_answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

static void forget(int fd) {
    for (int i = 0; i < subscriber_count; i++)
        if (subscribers[i] == fd) subscribers[i--] = subscribers[--subscriber_count];
    free(input[fd]);
    input[fd] = NULL;
    close(fd);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        int on = 1;
        if (fd >= MAX_FD) die("too many connections");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        input[fd] = malloc(IN_BUFFER);
        held[fd] = 0;
        watch(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, (uint64_t)fd);
    }
}

static size_t as_chunk(char *out, size_t room, const char *data, size_t size) {
    /* "data: " and the blank line around the data */
    int head = snprintf(out, room, "%zx\r\ndata: ", size + 8);
    memcpy(out + head, data, size);
    memcpy(out + head + size, "\n\n\r\n", 4);
    return (size_t)head + size + 4;
}

static void publish(const char *data, size_t size) {
    char out[IN_BUFFER + 64];
    size_t length = as_chunk(out, sizeof out, data, size);
    for (int i = 0; i < subscriber_count; i++)
        if (send(subscribers[i], out, length, 0) != (ssize_t)length) forget(subscribers[i--]);
}

static void stream(int fd, long events) {
    char data[101], out[256];
    int done = 0;
    fcntl(fd, F_SETFL, 0);
    send(fd, stream_head, sizeof stream_head - 1, 0);
    memset(data, 'x', sizeof data);
    for (long i = 0; i < events && !done; i++) {
        snprintf(data, sizeof data, MARK_FORMAT, 0ull, (unsigned long long)i);
        data[MARK_SIZE] = 'x';
        size_t length = as_chunk(out, sizeof out, data, 100);
        done = send(fd, out, length, 0) < 0;
    }
    send(fd, "0\r\n\r\n", 5, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void answer(int fd, const char *request, const char *body, size_t size) {
    if (!strncmp(request, "POST", 4)) {
        if (strncmp(request, "POST /events/quiet ", 19)) publish(body, size);
    } else if (!strncmp(request, "GET /events", 11)) {
        subscribers[subscriber_count++] = fd;
        send(fd, stream_head, sizeof stream_head - 1, 0);
        return;
    } else if (!strncmp(request, "GET /stream?n=", 14)) {
        stream(fd, atol(request + 14));
        return;
    }
    send(fd, small_answer, sizeof small_answer - 1, 0);
}

static void receive(int fd) {
    char *in = input[fd];
    ssize_t got = recv(fd, in + held[fd], IN_BUFFER - 1 - held[fd], 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        forget(fd);
        return;
    }
    held[fd] += (size_t)got;
    in[held[fd]] = 0;
    char *end = strstr(in, "\r\n\r\n"), *length = strcasestr(in, "content-length:");
    if (!end) return;
    size_t size = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    if ((size_t)(end + 4 - in) + size > held[fd]) return;
    held[fd] = 0;
    answer(fd, in, end + 4, size);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = loopback((int)number(argc, argv, "--port", 0));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    prepare(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        die("listen: %s", strerror(errno));
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(poll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, KEY_LISTENER);
    for (;;) {
        struct epoll_event happened[256];
        int n = epoll_wait(poll_fd, happened, 256, -1);
        for (int i = 0; i < n; i++) {
            uint64_t key = happened[i].data.u64;
            if (key == KEY_LISTENER)
                accept_all(listener);
            else if (input[key])
                receive((int)key);
        }
    }
}
