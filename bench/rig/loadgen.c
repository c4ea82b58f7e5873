/* Load for a gateway: one thread, epoll, HTTP/1.1 with keep-alive, loopback only. Prints one JSON object.
 *
 *     loadgen closed|open|stream PORT PATH BODY_FILE [options]
 *         -c N     connections                            -H 'Name: value'  a header; may be repeated
 *         -d S     seconds that are measured              -w S  seconds before them that are not
 *         -g S     seconds over which connections start   -r N  calls a second (open)
 *         -K FILE  keys of one length, a line each: the first stands in a header, and each call shows the next one
 *
 *     closed   each connection calls again as soon as it is answered
 *     open     calls arrive at random, -r a second on average, whether earlier ones were answered or not; one that finds no
 *              idle connection waits, and its latency counts from its arrival
 *     stream   closed, and each answer is a stream whose events tell when they were sent (rig.h)
 *
 * Only what ends inside the measured seconds counts. Latencies are in microseconds, of good answers only: status 200, all
 * there and, for a stream, with its end mark. A connection that failed rests for up to 50 ms. */

#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "answer.h"
#include "rig.h"

#define READ_BYTES 65536
#define REST_MS 50
#define MOST_WAITING (1 << 20)
#define MOST_HEADERS 16

enum mode { CLOSED_LOOP, OPEN_LOOP, STREAMS };
enum connection_state { UNCONNECTED, CONNECTING, IDLE, BUSY };

struct connection {
    enum connection_state state;
    int fd;
    bool used_before;         /* An answer came over this connection: the next request may meet its end. */
    uint64_t call_began_ns;   /* For the open loop: when the call arrived. */
    size_t sent_bytes;        /* Of the request. */
    bool first_event_seen;
    int stamp_digits;         /* Of an event's time that is being read; -1 outside of one. */
    uint64_t stamp_ns;
    struct connection *next;  /* Of those that are idle, or of those that rest. */
    struct answer answer;
};

/* Durations in units of 100 ns, at most seven minutes. */
struct samples {
    uint32_t *values;
    size_t count, capacity;
};

static enum mode mode;
static int epoll, timer, connection_count = 1;
static double rate_per_second, measured_seconds = 2, warm_up_seconds = 0.5, ramp_seconds;
static struct sockaddr_in address;
static char *request;
static size_t request_bytes;
static char *keys, *key_in_request;
static size_t key_bytes, key_count, next_key;

static struct connection *connections, *idle, *resting;
static uint64_t begins_ns, measured_from_ns, ends_ns, rested_ns;
static uint64_t next_arrival_ns;
static unsigned long long arrived;
static uint64_t *waiting; /* A ring of the arrivals that found no idle connection. */
static unsigned long long waiting_first, waiting_last;

static struct samples latencies, first_events, event_delays;
static unsigned long long good, failed, reconnects, events_seen, bad_stamps;

/* -- Samples -- */

static bool is_measured(uint64_t now) {
    return now >= measured_from_ns && now < ends_ns;
}

static void add(struct samples *samples, uint64_t duration_ns) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? 2 * samples->capacity : 1 << 16;
        samples->values = take(samples->values, samples->capacity * sizeof *samples->values);
    }
    uint64_t value = duration_ns / 100;
    samples->values[samples->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static void print_samples(const char *name, struct samples *samples) {
    printf(",\"%s\":", name);
    if (!samples->count) {
        printf("null");
        return;
    }
    static const struct { const char *name; double quantile; } quantiles[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"max", 1}};
    qsort(samples->values, samples->count, sizeof *samples->values, compare);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        size_t at = (size_t)(quantiles[i].quantile * (double)(samples->count - 1) + .5);
        printf("%c\"%s\":%.1f", i ? ',' : '{', quantiles[i].name, samples->values[at] / 10.0);
    }
    printf("}");
}

/* -- Calls -- */

static void send_request(struct connection *connection) {
    ssize_t sent = send(connection->fd, request + connection->sent_bytes, request_bytes - connection->sent_bytes, MSG_NOSIGNAL);
    if (sent > 0) connection->sent_bytes += (size_t)sent; /* An error is told again by the next read. */
    bool all = connection->sent_bytes == request_bytes;
    if (!all || (size_t)sent != request_bytes)
        watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLRDHUP | (all ? 0 : EPOLLOUT), connection);
}

static void begin_exchange(struct connection *connection) {
    connection->state = BUSY;
    connection->sent_bytes = 0;
    connection->first_event_seen = false;
    connection->stamp_digits = -1;
    answer_begin(&connection->answer);
    if (key_count) memcpy(key_in_request, keys + next_key++ % key_count * (key_bytes + 1), key_bytes);
    send_request(connection);
}

static void dial(struct connection *connection) {
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->fd < 0) fail("loadgen: socket");
    send_at_once(connection->fd);
    connection->state = CONNECTING;
    connection->used_before = false;
    answer_begin(&connection->answer);
    connect(connection->fd, (void *)&address, sizeof address); /* What came of it is told by epoll. */
    watch(epoll, EPOLL_CTL_ADD, connection->fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT, connection);
}

static void begin_call(struct connection *connection, uint64_t began_ns) {
    connection->call_began_ns = began_ns;
    if (connection->state == IDLE) begin_exchange(connection);
    else dial(connection);
}

static void hang_up(struct connection *connection) {
    close(connection->fd);
    connection->state = UNCONNECTED;
    reconnects++;
}

static void next_call(struct connection *connection, uint64_t now) {
    if (mode != OPEN_LOOP) begin_call(connection, now);
    else if (waiting_first < waiting_last) begin_call(connection, waiting[waiting_first++ % MOST_WAITING]);
    else {
        connection->next = idle;
        idle = connection;
    }
}

static void show_first_failure(const struct answer *answer) {
    if (!failed)
        fprintf(stderr, "loadgen: first failure: status %d, state %d: %.*s ... %.*s\n", answer->status, answer->state,
                (int)answer->head_bytes, answer->head, (int)answer->tail_bytes, answer->tail);
}

static void end_call(struct connection *connection) {
    struct answer *answer = &connection->answer;
    uint64_t now = now_ns();
    bool is_good = answer->state == COMPLETE && answer->status == 200 &&
                   (mode != STREAMS || memmem(answer->tail, answer->tail_bytes, "data: [DONE]", 12));
    if (!is_good) {
        show_first_failure(answer);
        failed++; /* Also before the measured seconds: a failure is never left out. */
    } else if (is_measured(now)) {
        good++;
        add(&latencies, now - connection->call_began_ns);
    }
    connection->state = IDLE;
    connection->used_before = true;
    if (answer->closes || answer->state == MALFORMED) hang_up(connection);
    if (is_good) next_call(connection, now);
    else {
        connection->next = resting;
        resting = connection;
    }
}

/* -- What comes in -- */

static void take_event(struct connection *connection, uint64_t now) {
    if (!connection->first_event_seen) {
        connection->first_event_seen = true;
        if (is_measured(now)) add(&first_events, now - connection->call_began_ns);
    }
    if (!is_measured(now)) return;
    events_seen++;
    if (connection->stamp_ns > now) bad_stamps++;
    else add(&event_delays, now - connection->stamp_ns);
}

/* Look for events' times in a piece of a body, which may begin or end inside of one. */
static void take_payload(void *owner, const char *bytes, size_t count) {
    struct connection *connection = owner;
    if (mode != STREAMS) return;
    uint64_t now = now_ns();
    for (const char *end = bytes + count; bytes < end;) {
        if (connection->stamp_digits < 0) {
            const char *mark = memchr(bytes, STAMP_MARK, (size_t)(end - bytes));
            if (!mark) return;
            bytes = mark + 1;
            connection->stamp_digits = 0;
            connection->stamp_ns = 0;
        } else if (*bytes < '0' || *bytes > '9') {
            bad_stamps++;
            connection->stamp_digits = -1;
        } else {
            connection->stamp_ns = connection->stamp_ns * 10 + (uint64_t)(*bytes++ - '0');
            if (++connection->stamp_digits < STAMP_DIGITS) continue;
            connection->stamp_digits = -1;
            take_event(connection, now);
        }
    }
}

static void on_closed(struct connection *connection) {
    struct answer *answer = &connection->answer;
    bool untouched = answer->state == HEAD && !answer->head_bytes;
    if (connection->state == IDLE) {
        hang_up(connection); /* It stays among the idle, and dials when it is needed. */
    } else if (connection->used_before && untouched) {
        hang_up(connection); /* The server closed an idle connection just then: what a client retries. */
        dial(connection);
    } else {
        answer_closed(answer);
        answer->closes = true;
        end_call(connection);
    }
}

static void on_bytes(struct connection *connection) {
    static char bytes[READ_BYTES];
    ssize_t count = recv(connection->fd, bytes, sizeof bytes, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
        on_closed(connection);
        return;
    }
    if (connection->state != BUSY) {
        hang_up(connection);
        return;
    }
    answer_feed(&connection->answer, bytes, (size_t)count, take_payload, connection);
    if (connection->answer.state >= COMPLETE) end_call(connection);
}

static void on_ready(struct connection *connection, uint32_t events) {
    if (connection->state == UNCONNECTED) return;
    if (connection->state == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP)) on_closed(connection);
        else if (events & EPOLLOUT) {
            watch(epoll, EPOLL_CTL_MOD, connection->fd, EPOLLIN | EPOLLRDHUP, connection);
            begin_exchange(connection);
        }
        return;
    }
    if (events & EPOLLOUT && connection->state == BUSY && connection->sent_bytes < request_bytes) send_request(connection);
    if (events & ~(uint32_t)EPOLLOUT) on_bytes(connection);
}

/* -- Arrivals: of calls in the open loop, of connections in the others -- */

static uint64_t random_interval_ns(void) {
    static uint64_t state = 88172645463325252ull; /* The same arrivals in every run, by xorshift64. */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    double uniform = (double)((state >> 11) + 1) / 9007199254740992.0;
    return (uint64_t)(-log(uniform) / rate_per_second * SECOND_NS);
}

static void arrive(uint64_t now) {
    while (next_arrival_ns <= now) {
        if (mode != OPEN_LOOP) {
            begin_call(&connections[arrived++], now);
            next_arrival_ns = arrived == (unsigned)connection_count
                                  ? UINT64_MAX
                                  : begins_ns + (uint64_t)(ramp_seconds * SECOND_NS * (double)arrived / connection_count);
            continue;
        }
        arrived++;
        if (idle) {
            struct connection *connection = idle;
            idle = connection->next;
            begin_call(connection, next_arrival_ns);
        } else if (waiting_last - waiting_first < MOST_WAITING) waiting[waiting_last++ % MOST_WAITING] = next_arrival_ns;
        next_arrival_ns += random_interval_ns();
    }
    if (next_arrival_ns == UINT64_MAX) return;
    struct itimerspec at = {.it_value = {(time_t)(next_arrival_ns / SECOND_NS), (long)(next_arrival_ns % SECOND_NS)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void end_rests(uint64_t now) {
    if (now - rested_ns < REST_MS * MILLISECOND_NS) return;
    rested_ns = now;
    struct connection *connection = resting;
    for (resting = NULL; connection;) {
        struct connection *next = connection->next;
        next_call(connection, now);
        connection = next;
    }
}

static void run(void) {
    struct epoll_event events[1024];
    begins_ns = next_arrival_ns = rested_ns = now_ns();
    measured_from_ns = begins_ns + (uint64_t)(warm_up_seconds * SECOND_NS);
    ends_ns = measured_from_ns + (uint64_t)(measured_seconds * SECOND_NS);
    arrive(begins_ns);
    for (uint64_t now; (now = now_ns()) < ends_ns;) {
        int ready = epoll_wait(epoll, events, 1024, REST_MS);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) {
                on_ready(events[i].data.ptr, events[i].events);
                continue;
            }
            uint64_t expirations;
            if (read(timer, &expirations, sizeof expirations) > 0) arrive(now_ns());
        }
        end_rests(now);
    }
}

/* -- The command -- */

static void usage(void) {
    fprintf(stderr, "usage: loadgen closed|open|stream PORT PATH BODY_FILE [-c N] [-d S] [-w S] [-g S] [-r N] [-H 'Name: value']...\n");
    exit(2);
}

static void write_request(const char *port, const char *path, const char *body_file, char **headers, int header_count) {
    static char body[1 << 20];
    FILE *file = fopen(body_file, "r");
    if (!file) fail(body_file);
    size_t body_bytes = fread(body, 1, sizeof body, file);
    fclose(file);
    FILE *out = open_memstream(&request, &request_bytes);
    fprintf(out, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n", path, port);
    for (int i = 0; i < header_count; i++) fprintf(out, "%s\r\n", headers[i]);
    fprintf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", body_bytes);
    fwrite(body, 1, body_bytes, out);
    fclose(out);
}

static void read_keys(const char *key_file) {
    static char content[1 << 21];
    FILE *file = fopen(key_file, "r");
    if (!file) fail(key_file);
    size_t bytes = fread(content, 1, sizeof content, file);
    fclose(file);
    keys = content;
    key_bytes = strcspn(content, "\n");
    key_count = bytes / (key_bytes + 1);
    key_in_request = memmem(request, request_bytes, keys, key_bytes);
    if (!key_count || !key_in_request) fail("the first key stands in no header");
}

static void read_arguments(int count, char **arguments) {
    char *headers[MOST_HEADERS];
    int header_count = 0;
    const char *key_file = NULL;
    if (count < 5) usage();
    mode = !strcmp(arguments[1], "open") ? OPEN_LOOP : !strcmp(arguments[1], "stream") ? STREAMS : CLOSED_LOOP;
    for (int option; (option = getopt(count - 4, arguments + 4, "c:d:w:g:r:H:K:")) != -1;) switch (option) {
        case 'c': connection_count = atoi(optarg); break;
        case 'd': measured_seconds = atof(optarg); break;
        case 'w': warm_up_seconds = atof(optarg); break;
        case 'g': ramp_seconds = atof(optarg); break;
        case 'r': rate_per_second = atof(optarg); break;
        case 'H': if (header_count < MOST_HEADERS) headers[header_count++] = optarg; break;
        case 'K': key_file = optarg; break;
        default: usage();
    }
    if (connection_count < 1 || (mode == OPEN_LOOP && rate_per_second <= 0)) usage();
    write_request(arguments[2], arguments[3], arguments[4], headers, header_count);
    if (key_file) read_keys(key_file);
    address = loopback(atoi(arguments[2]));
}

static void print_result(void) {
    unsigned long long unanswered = waiting_last - waiting_first;
    for (int i = 0; i < connection_count; i++) unanswered += connections[i].state == BUSY || connections[i].state == CONNECTING;
    printf("{\"calls\":%llu,\"calls_per_second\":%.1f,\"failed\":%llu,\"reconnects\":%llu,\"waiting_at_end\":%llu,\"unanswered_at_end\":%llu",
           good, (double)good / measured_seconds, failed, reconnects, waiting_last - waiting_first, unanswered);
    print_samples("latency_us", &latencies);
    if (mode == STREAMS) {
        printf(",\"events\":%llu,\"events_per_second\":%.1f,\"bad_stamps\":%llu", events_seen, (double)events_seen / measured_seconds, bad_stamps);
        print_samples("first_event_us", &first_events);
        print_samples("event_delay_us", &event_delays);
    }
    printf("}\n");
}

int main(int count, char **arguments) {
    read_arguments(count, arguments);
    raise_descriptor_limit();
    epoll = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(epoll, EPOLL_CTL_ADD, timer, EPOLLIN, NULL);
    connections = calloc((size_t)connection_count, sizeof *connections);
    if (!connections) fail("calloc");
    if (mode == OPEN_LOOP) {
        waiting = take(NULL, MOST_WAITING * sizeof *waiting);
        for (int i = connection_count; i-- > 0; idle = &connections[i]) connections[i].next = idle;
    }
    run();
    print_result();
    return 0;
}
