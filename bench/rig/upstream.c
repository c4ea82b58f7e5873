/* An OpenAI-compatible upstream for measurements: one thread, epoll, HTTP/1.1 with keep-alive, loopback only.
 *
 *     upstream PORT
 *
 *     POST anything      a whole answer of 1 KB or, when the body says "stream": true, a stream of events
 *     GET /profile?events=N&interval_us=N&padding=N
 *                        sets what a stream is: how many events, one every so often (0: as fast as the socket takes
 *                        them), with so many bytes of text; holds for streams that begin later
 *     GET /stats         {"calls", "events", "streams_open", "connections"}, the first two since the start
 *     GET anything else  a list with one model
 *
 * Every event is a write of its own and carries the time it was sent (rig.h), so that a reader can tell how long it took. */

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "rig.h"

#define NOT_SCHEDULED SIZE_MAX
#define READ_BYTES 16384
#define MAX_PADDING 4000

struct connection {
    int fd;
    bool closed, closing, waits_for_room, streaming;
    char *in, *out; /* What is not yet understood, and what the socket did not take. */
    size_t in_bytes, in_capacity, out_bytes;
    long events_left;
    uint64_t interval_ns, due_ns;
    size_t place; /* In the schedule, or NOT_SCHEDULED. */
    struct connection *next_closed;
};

static int epoll;
static struct connection *closed_connections; /* Freed after the round: events of theirs may still be in the queue. */
static unsigned long long calls, events_sent, streams_open, connections;

static long events_per_stream = 100, interval_us = 20000, padding = 60;
static char whole_answer[4096], stream_event[MAX_PADDING + 1024], stream_end[2048];
static size_t whole_answer_bytes, stream_event_bytes, stream_end_bytes, stamp_offset;
static const char stream_head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\nx-request-id: req_bench\r\n\r\n";

/* -- The schedule: a binary heap of streams by the time their next event is due. -- */

static struct connection **heap;
static size_t heap_size, heap_capacity;

static void put(size_t place, struct connection *connection) {
    heap[place] = connection;
    connection->place = place;
}

static void sift(size_t place, struct connection *connection) {
    while (place > 0 && heap[(place - 1) / 2]->due_ns > connection->due_ns) {
        put(place, heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (size_t child; (child = 2 * place + 1) < heap_size; place = child) {
        if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= connection->due_ns) break;
        put(place, heap[child]);
    }
    put(place, connection);
}

static void schedule(struct connection *connection) {
    if (connection->place != NOT_SCHEDULED) return;
    if (heap_size == heap_capacity) {
        heap_capacity = heap_capacity ? 2 * heap_capacity : 1024;
        heap = take(heap, heap_capacity * sizeof *heap);
    }
    sift(heap_size++, connection);
}

static void unschedule(struct connection *connection) {
    size_t place = connection->place;
    if (place == NOT_SCHEDULED) return;
    connection->place = NOT_SCHEDULED;
    struct connection *last = heap[--heap_size];
    if (last != connection) sift(place, last);
}

/* -- Connections -- */

static void close_connection(struct connection *connection) {
    if (connection->closed) return;
    connection->closed = true;
    unschedule(connection);
    if (connection->streaming) streams_open--;
    connections--;
    close(connection->fd);
    connection->next_closed = closed_connections;
    closed_connections = connection;
}

static void free_closed(void) {
    while (closed_connections) {
        struct connection *connection = closed_connections;
        closed_connections = connection->next_closed;
        free(connection->in);
        free(connection->out);
        free(connection);
    }
}

static void wait_for_room(struct connection *connection, bool waits) {
    if (connection->waits_for_room == waits) return;
    connection->waits_for_room = waits;
    watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLRDHUP | (waits ? EPOLLOUT : 0), connection);
}

/* Send what the socket takes and return how many bytes that was. */
static size_t send_some(struct connection *connection, const char *bytes, size_t count) {
    ssize_t sent = send(connection->fd, bytes, count, MSG_NOSIGNAL);
    if (sent >= 0) return (size_t)sent;
    if (errno != EAGAIN && errno != EINTR) close_connection(connection);
    return 0;
}

static void send_all(struct connection *connection, const char *bytes, size_t count) {
    size_t sent = connection->out_bytes ? 0 : send_some(connection, bytes, count);
    if (connection->closed || sent == count) return;
    connection->out = take(connection->out, connection->out_bytes + count - sent);
    memcpy(connection->out + connection->out_bytes, bytes + sent, count - sent);
    connection->out_bytes += count - sent;
    wait_for_room(connection, true);
}

static void on_room(struct connection *connection) {
    size_t sent = send_some(connection, connection->out, connection->out_bytes);
    if (connection->closed) return;
    connection->out_bytes -= sent;
    memmove(connection->out, connection->out + sent, connection->out_bytes);
    if (connection->out_bytes) return;
    wait_for_room(connection, false);
    if (connection->streaming) schedule(connection);
    else if (connection->closing) close_connection(connection);
}

static void end_answer(struct connection *connection) {
    if (!connection->closed && connection->closing && !connection->out_bytes) close_connection(connection);
}

/* -- Answers -- */

static void write_answers(void) {
    char text[641] = "", body[2048];
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = "The quick brown fox jumps over the lazy dog. "[i % 45];
    int count = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"mock\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":142,\"total_tokens\":262,\"prompt_tokens_details\":{\"cached_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0}},\"system_fingerprint\":\"fp_bench\"}", text);
    whole_answer_bytes = (size_t)snprintf(whole_answer, sizeof whole_answer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_bench\r\nContent-Length: %d\r\n\r\n%s", count, body);
}

/* Write down what the profile makes of an event and of a stream's end, each as one HTTP chunk. */
static void write_events(void) {
    static const char start[] = "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"mock\",";
    static char text[MAX_PADDING + 1], payload[sizeof stream_event];
    memset(text, 'x', (size_t)padding);
    text[padding] = 0;
    int count = snprintf(payload, sizeof payload,
        "data: %s\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%c%0*d%s\"},\"finish_reason\":null}]}\n\n",
        start, STAMP_MARK, STAMP_DIGITS, 0, text);
    stream_event_bytes = (size_t)snprintf(stream_event, sizeof stream_event, "%x\r\n%s\r\n", count, payload);
    stamp_offset = (size_t)(strchr(stream_event, STAMP_MARK) + 1 - stream_event);
    count = snprintf(payload, sizeof payload,
        "data: %s\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
        "data: %s\"choices\":[],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\ndata: [DONE]\n\n",
        start, start, events_per_stream, events_per_stream + 120);
    stream_end_bytes = (size_t)snprintf(stream_end, sizeof stream_end, "%x\r\n%s\r\n0\r\n\r\n", count, payload);
}

/* Send the event that is due, or the end, and say when the next one is. */
static void send_event(struct connection *connection, uint64_t now) {
    if (connection->events_left-- == 0) {
        connection->streaming = false;
        streams_open--;
        send_all(connection, stream_end, stream_end_bytes);
        end_answer(connection);
        return;
    }
    uint64_t stamp = now_ns();
    for (size_t digit = STAMP_DIGITS; digit-- > 0; stamp /= 10) stream_event[stamp_offset + digit] = (char)('0' + stamp % 10);
    send_all(connection, stream_event, stream_event_bytes);
    events_sent++;
    if (connection->closed) return;
    connection->due_ns = connection->interval_ns ? connection->due_ns + connection->interval_ns : now + 1;
    if (!connection->out_bytes) schedule(connection); /* Else when there is room. */
}

static void begin_stream(struct connection *connection) {
    streams_open++;
    connection->streaming = true;
    connection->events_left = events_per_stream;
    connection->interval_ns = (uint64_t)interval_us * 1000;
    connection->due_ns = now_ns();
    send_all(connection, stream_head, sizeof stream_head - 1);
    if (!connection->closed) send_event(connection, connection->due_ns);
}

static long parameter(const char *query, const char *name, long otherwise, long most) {
    const char *found = strstr(query, name);
    long value = found ? strtol(found + strlen(name), NULL, 10) : otherwise;
    return value < 0 ? 0 : value > most ? most : value;
}

static void answer_get(struct connection *connection, const char *line) {
    char body[512], answer[1024];
    int count;
    if (!strncmp(line, "GET /profile", 12)) {
        events_per_stream = parameter(line, "events=", events_per_stream, 1000000000);
        interval_us = parameter(line, "interval_us=", interval_us, 1000000000);
        padding = parameter(line, "padding=", padding, MAX_PADDING);
        write_events();
    }
    if (!strncmp(line, "GET /profile", 12) || !strncmp(line, "GET /stats", 10))
        count = snprintf(body, sizeof body, "{\"calls\":%llu,\"events\":%llu,\"streams_open\":%llu,\"connections\":%llu}",
                         calls, events_sent, streams_open, connections);
    else
        count = snprintf(body, sizeof body,
                         "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}");
    count = snprintf(answer, sizeof answer,
                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", count, body);
    send_all(connection, answer, (size_t)count);
    end_answer(connection);
}

static bool asks_for_stream(const char *body, size_t count) {
    const char *found = memmem(body, count, "\"stream\":", 9);
    if (!found) return false;
    for (found += 9; found < body + count && *found == ' '; found++) continue;
    return body + count - found >= 4 && !memcmp(found, "true", 4);
}

/* -- Requests -- */

/* Return how many bytes a chunked body takes, or 0 while it is not all there. */
static size_t chunked_bytes(const char *body, size_t count) {
    for (size_t at = 0;;) {
        const char *line_end = memmem(body + at, count - at, "\r\n", 2);
        if (!line_end) return 0;
        size_t size = strtoul(body + at, NULL, 16);
        at = (size_t)(line_end + 2 - body) + size + 2;
        if (at > count) return 0;
        if (size == 0) return at;
    }
}

/* Answer the request at the start of what came in; return its length, or 0 while it is not all there. */
static size_t answer_request(struct connection *connection) {
    char *head = connection->in, *head_end = memmem(head, connection->in_bytes, "\r\n\r\n", 4);
    if (!head_end) return 0;
    size_t length = 0;
    bool chunked = false, closing = false;
    for (char *line = strchr(head, '\n') + 1; line < head_end; line = strchr(line, '\n') + 1) {
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18)) chunked = true;
        else if (!strncasecmp(line, "connection: close", 17)) closing = true;
    }
    char *body = head_end + 4;
    size_t there = connection->in_bytes - (size_t)(body - head);
    if (chunked && (length = chunked_bytes(body, there)) == 0) return 0;
    if (length > there) return 0;
    calls++;
    connection->closing = closing;
    if (!strncmp(head, "GET ", 4)) {
        *strchr(head, '\r') = 0;
        answer_get(connection, head);
    } else if (asks_for_stream(body, length)) { /* Of a chunked body the raw bytes are looked at: it comes in one chunk. */
        begin_stream(connection);
    } else {
        send_all(connection, whole_answer, whole_answer_bytes);
        end_answer(connection);
    }
    return (size_t)(body - head) + length;
}

static void answer_requests(struct connection *connection) {
    while (!connection->closed && !connection->streaming && connection->in_bytes) {
        size_t used = answer_request(connection);
        if (!used || connection->closed) return;
        connection->in_bytes -= used;
        memmove(connection->in, connection->in + used, connection->in_bytes + 1);
    }
}

static void on_bytes(struct connection *connection) {
    if (connection->in_bytes + READ_BYTES + 1 > connection->in_capacity) {
        connection->in_capacity = connection->in_bytes + READ_BYTES + 1;
        connection->in = take(connection->in, connection->in_capacity);
    }
    ssize_t count = recv(connection->fd, connection->in + connection->in_bytes, READ_BYTES, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
        close_connection(connection);
        return;
    }
    connection->in_bytes += (size_t)count;
    connection->in[connection->in_bytes] = 0;
    answer_requests(connection);
}

/* -- The loop -- */

static int listen_on(int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = loopback(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 16384)) fail("upstream: listen");
    return listener;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection) fail("calloc");
        connection->fd = fd;
        connection->place = NOT_SCHEDULED;
        connections++;
        send_at_once(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, connection);
    }
}

/* Send the events that are due by now; those they make due come in the next round, after the sockets had their turn. */
static void send_due_events(void) {
    uint64_t now = now_ns();
    while (heap_size && heap[0]->due_ns <= now) {
        struct connection *connection = heap[0];
        unschedule(connection);
        send_event(connection, now);
        if (!connection->closed && !connection->streaming) answer_requests(connection);
    }
}

static int milliseconds_to_next_event(void) {
    if (!heap_size) return -1;
    uint64_t now = now_ns(), due = heap[0]->due_ns;
    return due <= now ? 0 : (int)((due - now + MILLISECOND_NS - 1) / MILLISECOND_NS);
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    write_answers();
    write_events();
    epoll = epoll_create1(0);
    int listener = listen_on(atoi(arguments[1]));
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (struct epoll_event events[1024];;) {
        int ready = epoll_wait(epoll, events, 1024, milliseconds_to_next_event());
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) accept_all(listener);
            else if (!connection->closed) {
                if (events[i].events & EPOLLOUT) on_room(connection);
                if (!connection->closed && events[i].events & ~(uint32_t)EPOLLOUT) on_bytes(connection);
            }
        }
        send_due_events();
        free_closed();
    }
}
