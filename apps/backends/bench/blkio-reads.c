/*
 * Random reads of 4 KiB with libblkio, for the comparison in vhost-user.bench.ts.
 *
 *   blkio-reads SOCKET DEPTH SECONDS eventfd|polling
 *
 * Prints how many reads a second there were.
 */
#include <blkio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK 4096
#define MAX_DEPTH 256

static void check(const char *what, int result)
{
    if (result == 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, strerror(-result), blkio_get_error_msg());
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* Xorshift. */
static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252ULL;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    struct blkio_completion done[MAX_DEPTH];
    struct blkio_mem_region region;
    struct blkioq *queue;
    struct blkio *disk;
    uint64_t capacity;
    long count = 0;

    if (argc != 5) {
        fprintf(stderr, "usage: %s SOCKET DEPTH SECONDS eventfd|polling\n", argv[0]);
        return 2;
    }
    int depth = atoi(argv[2]);
    double seconds = atof(argv[3]);
    int polling = strcmp(argv[4], "polling") == 0;
    if (depth < 1 || depth > MAX_DEPTH) {
        fprintf(stderr, "a depth is 1 to %d\n", MAX_DEPTH);
        return 2;
    }

    check("create", blkio_create("virtio-blk-vhost-user", &disk));
    check("path", blkio_set_str(disk, "path", argv[1]));
    check("connect", blkio_connect(disk));
    check("capacity", blkio_get_uint64(disk, "capacity", &capacity));
    if (polling) {
        check("num-queues", blkio_set_int(disk, "num-queues", 0));
        check("num-poll-queues", blkio_set_int(disk, "num-poll-queues", 1));
    }
    check("start", blkio_start(disk));
    check("alloc", blkio_alloc_mem_region(disk, &region, (size_t)depth * BLOCK));
    check("map", blkio_map_mem_region(disk, &region));
    queue = polling ? blkio_get_poll_queue(disk, 0) : blkio_get_queue(disk, 0);

    uint64_t blocks = capacity / BLOCK;
    for (long lane = 0; lane < depth; lane += 1)
        blkioq_read(queue, next_random() % blocks * BLOCK, (char *)region.addr + lane * BLOCK, BLOCK, (void *)lane, 0);

    double begin = now();
    while (now() - begin < seconds) {
        int n = blkioq_do_io(queue, done, 1, depth, NULL);
        if (n < 0)
            check("do_io", n);
        for (int i = 0; i < n; i += 1) {
            long lane = (long)done[i].user_data;
            check("read", done[i].ret);
            blkioq_read(queue, next_random() % blocks * BLOCK, (char *)region.addr + lane * BLOCK, BLOCK, (void *)lane, 0);
        }
        count += n;
    }
    printf("%.0f\n", count / (now() - begin));
    return 0;
}
