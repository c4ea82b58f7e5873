/* Read an HTTP/1.1 answer as its bytes come in, cut anywhere. */

#ifndef ANSWER_H
#define ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_BYTES 4096
#define TAIL_BYTES 32

enum answer_state { HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE, COMPLETE, MALFORMED };

struct answer {
    enum answer_state state;
    int status;               /* 0 before the head is there. */
    bool closes;              /* The server closes the connection after it. */
    uint64_t remaining;       /* Of the body or of the chunk. */
    size_t line_bytes;        /* Of the trailer's line that is being read. */
    size_t head_bytes, tail_bytes;
    char head[HEAD_BYTES];
    char tail[TAIL_BYTES];    /* The last bytes of the body. */
};

/* What takes the body, piece by piece. */
typedef void payload_taker(void *owner, const char *bytes, size_t count);

void answer_begin(struct answer *answer);

/* Take bytes of an answer; `answer->state` tells whether it is COMPLETE or MALFORMED. Bytes after its end are malformed. */
void answer_feed(struct answer *answer, const char *bytes, size_t count, payload_taker *take_payload, void *owner);

/* Take note that the server closed: that ends an answer that says no length. */
void answer_closed(struct answer *answer);

#endif
