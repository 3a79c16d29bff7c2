/*
 * A vhost-user-blk back end that never sleeps and does no work: it writes the status of each request and nothing else, so that a
 * comparison of front ends measures the front ends. One queue, split or packed, one front end after the other.
 *
 *   null-backend SOCKET [packed]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Requests of vhost-user. */
enum {
    GET_FEATURES = 1, SET_FEATURES = 2, SET_MEM_TABLE = 5, SET_VRING_NUM = 8, SET_VRING_ADDR = 9, SET_VRING_BASE = 10,
    GET_VRING_BASE = 11, SET_VRING_KICK = 12, SET_VRING_CALL = 13, GET_PROTOCOL_FEATURES = 15, GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18, GET_CONFIG = 24, GET_MAX_MEM_SLOTS = 36, ADD_MEM_REG = 37, REM_MEM_REG = 38,
};
#define REPLY 5        /* version 1, and the flag of an answer */
#define NEED_REPLY 8

/* Features: of the disk, of the ring, of the protocol. */
#define SEG_MAX (1u << 2)
#define BLK_SIZE (1u << 6)
#define FLUSH (1u << 9)
#define INDIRECT_DESC (1u << 28)
#define EVENT_IDX (1u << 29)
#define PROTOCOL_FEATURES (1u << 30)
#define VERSION_1 (1ull << 32)
#define RING_PACKED (1ull << 34)
#define PROTOCOL_MQ (1u << 0)
#define PROTOCOL_REPLY_ACK (1u << 3)
#define PROTOCOL_CONFIG (1u << 9)
#define PROTOCOL_MEM_SLOTS (1u << 15)

/* Flags of descriptors. */
#define NEXT 1
#define WRITE 2
#define INDIRECT 4
#define AVAIL (1 << 7)
#define USED (1 << 15)

#define SLOTS 32
#define MAX_PAYLOAD 1024
#define MAX_FDS 16
/* So many looks at the ring go by between two at the socket. */
#define LOOKS 20000
/* Requests of a packed ring that are answered before the driver is told. */
#define BURST 256

struct header { uint32_t request, flags, size; };
struct region { uint64_t address, size, user, offset; };
struct mapping { struct region at; char *base; size_t length; };
struct split_descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct packed_descriptor { uint64_t address; uint32_t length; uint16_t id, flags; };

struct ring {
    uint32_t size;
    int kick, call, enabled, packed;
    uint64_t descriptor_area, driver_area, device_area;
    char *descriptors, *driver, *device;
    uint16_t available, used;
    int wrap;
};

static int peer;
static struct mapping mappings[SLOTS];
static int mapped;
static struct ring ring;
static uint64_t features, offered;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static char *at(uint64_t address)
{
    for (int i = 0; i < mapped; i += 1)
        if (address - mappings[i].at.address < mappings[i].at.size)
            return mappings[i].base + mappings[i].at.offset + (address - mappings[i].at.address);
    fprintf(stderr, "no memory at %#lx\n", (long)address);
    exit(1);
}

static char *at_user(uint64_t address)
{
    for (int i = 0; i < mapped; i += 1)
        if (address - mappings[i].at.user < mappings[i].at.size)
            return mappings[i].base + mappings[i].at.offset + (address - mappings[i].at.user);
    fprintf(stderr, "no ring at %#lx\n", (long)address);
    exit(1);
}

static void map_region(const struct region *region, int fd)
{
    struct mapping *mapping = &mappings[mapped];

    if (mapped == SLOTS) {
        fprintf(stderr, "more than %d regions\n", SLOTS);
        exit(1);
    }
    mapping->at = *region;
    mapping->length = region->size + region->offset;
    mapping->base = mmap(NULL, mapping->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (mapping->base == MAP_FAILED)
        fail("mmap");
    close(fd);
    mapped += 1;
}

static void unmap_region(const struct region *region)
{
    for (int i = 0; i < mapped; i += 1) {
        if (mappings[i].at.user != region->user)
            continue;
        munmap(mappings[i].base, mappings[i].length);
        mapped -= 1;
        mappings[i] = mappings[mapped];
        return;
    }
}

/* Reads `size` bytes and what descriptors come along. Returns 1, 0 if there is nothing and `flags` say not to wait, -1 at the end. */
static int receive(void *into, size_t size, int *fds, int *count, int flags)
{
    size_t got = 0;

    while (got < size) {
        char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct iovec part = { (char *)into + got, size - got };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        ssize_t n = recvmsg(peer, &message, got == 0 ? flags : 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (got == 0 && flags != 0)
                return 0;
            continue;
        }
        if (n <= 0)
            return -1;
        for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h != NULL; h = CMSG_NXTHDR(&message, h)) {
            if (h->cmsg_type != SCM_RIGHTS)
                continue;
            int found = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (int i = 0; i < found && *count < MAX_FDS; i += 1)
                memcpy(&fds[(*count)++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
        }
        got += n;
    }
    return 1;
}

static void reply(uint32_t request, const void *payload, uint32_t size)
{
    char bytes[sizeof(struct header) + MAX_PAYLOAD];
    struct header header = { request, REPLY, size };

    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, payload, size);
    if (write(peer, bytes, sizeof header + size) < 0)
        fail("write");
}

static void reply_number(uint32_t request, uint64_t value)
{
    reply(request, &value, sizeof value);
}

/* 1 TiB, blocks of 512 bytes, 126 segments. */
static void reply_config(const char *payload, const uint32_t *words)
{
    char config[256] = { 0 };
    char bytes[12 + sizeof config];
    uint64_t capacity = 1ull << 31;
    uint32_t segments = 126, block = 512, from = words[0], size = words[1];

    if (from > sizeof config || size > sizeof config - from)
        size = 0;
    memcpy(config, &capacity, 8);
    memcpy(config + 12, &segments, 4);
    memcpy(config + 20, &block, 4);
    memcpy(bytes, payload, 12);
    memcpy(bytes + 12, config + from, size);
    reply(GET_CONFIG, bytes, 12 + size);
}

/* Handles one message. Returns 0 if there was none, -1 at the end. */
static int handle(int flags)
{
    struct header header;
    union { char bytes[MAX_PAYLOAD]; uint64_t numbers[MAX_PAYLOAD / 8]; uint32_t words[MAX_PAYLOAD / 4]; } payload;
    int fds[MAX_FDS], count = 0;
    int got = receive(&header, sizeof header, fds, &count, flags);

    if (got <= 0)
        return got;
    if (header.size > MAX_PAYLOAD || (header.size > 0 && receive(payload.bytes, header.size, fds, &count, 0) < 0))
        return -1;
    switch (header.request) {
    case GET_FEATURES:
        reply_number(header.request, offered);
        return 1;
    case GET_PROTOCOL_FEATURES:
        reply_number(header.request, PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG | PROTOCOL_MEM_SLOTS);
        return 1;
    case GET_QUEUE_NUM:
        reply_number(header.request, 1);
        return 1;
    case GET_MAX_MEM_SLOTS:
        reply_number(header.request, SLOTS);
        return 1;
    case GET_CONFIG:
        reply_config(payload.bytes, payload.words);
        return 1;
    case GET_VRING_BASE: {
        uint32_t state[2] = { payload.words[0], ring.available };
        ring.enabled = 0;
        reply(header.request, state, sizeof state);
        return 1;
    }
    case SET_FEATURES:
        features = payload.numbers[0];
        break;
    case SET_MEM_TABLE:
        for (uint32_t i = 0; i < payload.words[0]; i += 1)
            map_region((struct region *)&payload.numbers[1 + 4 * i], fds[i]);
        break;
    case ADD_MEM_REG:
        map_region((struct region *)&payload.numbers[1], fds[0]);
        break;
    case REM_MEM_REG:
        unmap_region((struct region *)&payload.numbers[1]);
        for (int i = 0; i < count; i += 1)
            close(fds[i]);
        break;
    case SET_VRING_NUM:
        ring.size = payload.words[1];
        break;
    case SET_VRING_BASE:
        ring.available = payload.words[1] & 0x7fff;
        ring.wrap = 1;
        break;
    case SET_VRING_ADDR:
        ring.descriptor_area = payload.numbers[1];
        ring.device_area = payload.numbers[2];
        ring.driver_area = payload.numbers[3];
        break;
    case SET_VRING_CALL:
        ring.call = fds[0];
        break;
    case SET_VRING_KICK:
        ring.kick = fds[0];
        ring.packed = (features & RING_PACKED) != 0;
        ring.descriptors = at_user(ring.descriptor_area);
        ring.driver = at_user(ring.driver_area);
        ring.device = at_user(ring.device_area);
        ring.used = ring.packed ? 0 : *(uint16_t *)(ring.device + 2);
        break;
    case SET_VRING_ENABLE:
        ring.enabled = payload.words[1];
        break;
    default:
        for (int i = 0; i < count; i += 1)
            close(fds[i]);
        break;
    }
    if (header.flags & NEED_REPLY)
        reply_number(header.request, 0);
    return 1;
}

static uint16_t load(const void *at16)
{
    return __atomic_load_n((const uint16_t *)at16, __ATOMIC_ACQUIRE);
}

static void store(void *at16, uint16_t value)
{
    __atomic_store_n((uint16_t *)at16, value, __ATOMIC_RELEASE);
}

static void call_driver(void)
{
    uint64_t one = 1;

    if (write(ring.call, &one, sizeof one) < 0)
        fail("call");
}

/* The status is the last byte of a request. */
static void finish_request(uint64_t address, uint32_t length)
{
    *at(address + length - 1) = 0;
}

static int serve_split(void)
{
    struct split_descriptor *table = (struct split_descriptor *)ring.descriptors;
    uint16_t mask = ring.size - 1, before = ring.used, end = load(ring.driver + 2);
    int done = 0;

    for (; ring.available != end; ring.available += 1, done += 1) {
        uint16_t head = ((uint16_t *)(ring.driver + 4))[ring.available & mask];
        struct split_descriptor *last = &table[head];
        uint32_t written = 0;

        if (last->flags & INDIRECT) {
            struct split_descriptor *inner = (struct split_descriptor *)at(last->address);
            uint32_t count = last->length / sizeof *inner;
            for (uint32_t i = 0; i < count; i += 1)
                if (inner[i].flags & WRITE)
                    written += inner[i].length;
            last = &inner[count - 1];
        } else {
            for (;; last = &table[last->next]) {
                if (last->flags & WRITE)
                    written += last->length;
                if (!(last->flags & NEXT))
                    break;
            }
        }
        finish_request(last->address, last->length);
        uint32_t *used = (uint32_t *)(ring.device + 4) + 2 * (ring.used & mask);
        used[0] = head;
        used[1] = written;
        ring.used += 1;
    }
    if (done == 0)
        return 0;
    store(ring.device + 2, ring.used);
    /* It looks all the time, and never wants to be kicked. */
    if (features & EVENT_IDX)
        *(volatile uint16_t *)(ring.device + 4 + 8 * ring.size) = ring.available - 1;
    else
        *(volatile uint16_t *)ring.device = 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (features & EVENT_IDX) {
        uint16_t event = *(volatile uint16_t *)(ring.driver + 4 + 2 * ring.size);
        if ((uint16_t)(ring.used - event - 1) < (uint16_t)(ring.used - before))
            call_driver();
    } else if (!(*(volatile uint16_t *)ring.driver & 1)) {
        call_driver();
    }
    return done;
}

static void call_driver_packed(uint16_t before, int before_wrap)
{
    uint16_t flags, event;

    *(volatile uint16_t *)(ring.device + 2) = 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    flags = *(volatile uint16_t *)(ring.driver + 2) & 3;
    event = *(volatile uint16_t *)ring.driver;
    if (flags == 0) {
        call_driver();
    } else if (flags == 2) {
        uint16_t offset = event & 0x7fff, from = before;
        if (event >> 15 != ring.wrap)
            offset -= ring.size;
        if (before_wrap != ring.wrap)
            from -= ring.size;
        if ((uint16_t)(ring.available - offset - 1) < (uint16_t)(ring.available - from))
            call_driver();
    }
}

static int serve_packed(void)
{
    struct packed_descriptor *table = (struct packed_descriptor *)ring.descriptors;
    uint16_t before = ring.available;
    int before_wrap = ring.wrap, done = 0;

    for (; done < BURST; done += 1) {
        struct packed_descriptor *first = &table[ring.available], *last = first;
        uint16_t flags = load(&first->flags);
        uint32_t written = 0, held = 1;

        if (((flags & AVAIL) != 0) != ring.wrap || ((flags & USED) != 0) == ring.wrap)
            break;
        if (flags & INDIRECT) {
            struct packed_descriptor *inner = (struct packed_descriptor *)at(first->address);
            uint32_t count = first->length / sizeof *inner;
            for (uint32_t i = 0; i < count; i += 1)
                if (inner[i].flags & WRITE)
                    written += inner[i].length;
            finish_request(inner[count - 1].address, inner[count - 1].length);
        } else {
            uint32_t place = ring.available;
            for (;; held += 1) {
                last = &table[place];
                if (last->flags & WRITE)
                    written += last->length;
                if (!(last->flags & NEXT))
                    break;
                place = place + 1 == ring.size ? 0 : place + 1;
            }
            finish_request(last->address, last->length);
        }
        first->id = last->id;
        first->length = written;
        store(&first->flags, (ring.wrap ? AVAIL | USED : 0) | WRITE);
        ring.available += held;
        if (ring.available >= ring.size) {
            ring.available -= ring.size;
            ring.wrap ^= 1;
        }
    }
    if (done > 0)
        call_driver_packed(before, before_wrap);
    return done;
}

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static void serve(void)
{
    memset(&ring, 0, sizeof ring);
    ring.kick = ring.call = -1;
    for (;;) {
        int live = ring.enabled && ring.kick >= 0;
        for (int i = 0; live && i < LOOKS; i += 1)
            if ((ring.packed ? serve_packed() : serve_split()) == 0)
                relax();
        if (handle(live ? MSG_DONTWAIT : 0) < 0)
            break;
    }
    while (mapped > 0)
        unmap_region(&mappings[0].at);
    if (ring.kick >= 0)
        close(ring.kick);
    if (ring.call >= 0)
        close(ring.call);
    close(peer);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    if (argc < 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "usage: %s SOCKET [packed]\n", argv[0]);
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    unlink(argv[1]);
    offered = VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX | INDIRECT_DESC | FLUSH | BLK_SIZE | SEG_MAX;
    if (argc > 2)
        offered |= RING_PACKED;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4) < 0)
        fail(argv[1]);
    for (;;) {
        peer = accept(listener, NULL, NULL);
        if (peer < 0)
            fail("accept");
        serve();
    }
}
