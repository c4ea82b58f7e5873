#define _GNU_SOURCE
#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void answer_begin(struct answer *answer) {
    answer->state = HEAD;
    answer->status = 0;
    answer->closes = false;
    answer->remaining = 0;
    answer->line_bytes = answer->head_bytes = answer->tail_bytes = 0;
}

void answer_closed(struct answer *answer) {
    answer->state = answer->state == UNTIL_CLOSE ? COMPLETE : MALFORMED;
}

static size_t least(size_t one, size_t other) {
    return one < other ? one : other;
}

static void keep_tail(struct answer *answer, const char *bytes, size_t count) {
    size_t taken = least(count, TAIL_BYTES), kept = least(answer->tail_bytes, TAIL_BYTES - taken);
    memmove(answer->tail, answer->tail + answer->tail_bytes - kept, kept);
    memcpy(answer->tail + kept, bytes + count - taken, taken);
    answer->tail_bytes = kept + taken;
}

static void read_head(struct answer *answer) {
    bool chunked = false, sized = false;
    answer->status = atoi(answer->head + 9);
    for (char *line = strchr(answer->head, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
        if (!strncasecmp(line, "content-length:", 15)) {
            answer->remaining = strtoull(line + 15, NULL, 10);
            sized = true;
        } else if (!strncasecmp(line, "transfer-encoding:", 18)) chunked = true;
        else if (!strncasecmp(line, "connection: close", 17)) answer->closes = true;
    }
    if (answer->status / 100 == 1) answer_begin(answer);
    else if (chunked) answer->state = CHUNK_SIZE;
    else if (sized) answer->state = answer->remaining ? LENGTH : COMPLETE;
    else answer->state = UNTIL_CLOSE;
    if (chunked) answer->remaining = 0;
}

/* Take bytes up to the end of the head; return how many. */
static size_t feed_head(struct answer *answer, const char *bytes, size_t count) {
    size_t before = answer->head_bytes, taken = least(count, HEAD_BYTES - 1 - before);
    memcpy(answer->head + before, bytes, taken);
    char *end = memmem(answer->head, before + taken, "\r\n\r\n", 4);
    answer->head_bytes = end ? (size_t)(end + 4 - answer->head) : before + taken;
    if (!end) {
        if (answer->head_bytes == HEAD_BYTES - 1) answer->state = MALFORMED;
        return taken;
    }
    taken = answer->head_bytes - before;
    end[2] = 0; /* The line feed before it ends the last header, so every line ends with one. */
    if (answer->head_bytes < 16 || strncmp(answer->head, "HTTP/1.", 7)) answer->state = MALFORMED;
    else read_head(answer);
    return taken;
}

static void feed_chunk_size(struct answer *answer, char byte) {
    if (byte == '\n') {
        answer->state = answer->remaining ? CHUNK : TRAILER;
        answer->line_bytes = 0;
    } else if (byte >= '0' && byte <= '9') answer->remaining = answer->remaining * 16 + (uint64_t)(byte - '0');
    else if ((byte | 32) >= 'a' && (byte | 32) <= 'f') answer->remaining = answer->remaining * 16 + (uint64_t)((byte | 32) - 'a' + 10);
    else if (byte != '\r') answer->state = MALFORMED;
}

static void feed_trailer(struct answer *answer, char byte) {
    if (byte != '\n') answer->line_bytes += byte != '\r';
    else if (answer->line_bytes == 0) answer->state = COMPLETE;
    else answer->line_bytes = 0;
}

void answer_feed(struct answer *answer, const char *bytes, size_t count, payload_taker *take_payload, void *owner) {
    for (const char *end = bytes + count; bytes < end;) {
        switch (answer->state) {
        case HEAD:
            bytes += feed_head(answer, bytes, (size_t)(end - bytes));
            break;
        case LENGTH:
        case CHUNK:
        case UNTIL_CLOSE: {
            size_t piece = (size_t)(end - bytes);
            if (answer->state != UNTIL_CLOSE) answer->remaining -= piece = least(piece, answer->remaining);
            keep_tail(answer, bytes, piece);
            take_payload(owner, bytes, piece);
            bytes += piece;
            if (answer->state == LENGTH && !answer->remaining) answer->state = COMPLETE;
            if (answer->state == CHUNK && !answer->remaining) answer->state = CHUNK_END;
            break;
        }
        case CHUNK_SIZE:
            feed_chunk_size(answer, *bytes++);
            break;
        case CHUNK_END:
            if (*bytes == '\n') answer->state = CHUNK_SIZE;
            else if (*bytes != '\r') answer->state = MALFORMED;
            bytes++;
            break;
        case TRAILER:
            feed_trailer(answer, *bytes++);
            break;
        case COMPLETE:
        case MALFORMED:
            answer->state = MALFORMED;
            return;
        }
    }
}
