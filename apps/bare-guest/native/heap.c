/*
 * The C heap of the engine: blocks with boundary tags, free ones in lists by size class (four to a power of two).
 * One processor, no interrupts handlers that allocate: no lock.
 */
#include <errno.h>
#include <string.h>
#include "machine.h"

typedef struct block {
	size_t size;            /* of the whole block, a multiple of 16; bit 0: in use */
	size_t previous;        /* size of the block before it in memory, 0: none */
	struct block *next, *back; /* only while free */
} block;

#define HEADER 16
#define USED 1u
#define CLASSES 256

static block *lists[CLASSES];
static uint64_t occupied[CLASSES / 64];
static block *last; /* the tag at the end of memory */
static size_t in_use, peak;

static unsigned class_of(size_t size)
{
	unsigned log = 63 - (unsigned)__builtin_clzl(size);
	return log * 4 + (unsigned)((size >> (log - 2)) & 3);
}

static block *after(block *b) { return (block *)((char *)b + (b->size & ~(size_t)USED)); }
static block *before(block *b) { return (block *)((char *)b - b->previous); }

static void list_add(block *b)
{
	unsigned c = class_of(b->size);
	b->back = NULL;
	b->next = lists[c];
	if (b->next) b->next->back = b;
	lists[c] = b;
	occupied[c / 64] |= (uint64_t)1 << (c % 64);
}

static void list_remove(block *b)
{
	unsigned c = class_of(b->size);
	if (b->next) b->next->back = b->back;
	if (b->back) b->back->next = b->next;
	else lists[c] = b->next;
	if (!lists[c]) occupied[c / 64] &= ~((uint64_t)1 << (c % 64));
}

void heap_init(void *from, void *to)
{
	uintptr_t start = ((uintptr_t)from + 15) & ~(uintptr_t)15;
	uintptr_t end = ((uintptr_t)to & ~(uintptr_t)15) - HEADER;
	block *first = (block *)start;
	first->size = end - start;
	first->previous = 0;
	last = (block *)end;
	last->size = USED;
	last->previous = first->size;
	list_add(first);
}

size_t heap_peak(void) { return peak; }

static block *find(size_t size)
{
	unsigned c = class_of(size);
	for (block *b = lists[c]; b; b = b->next)
		if (b->size >= size) return b;
	/* Any block of a higher class is large enough. */
	for (unsigned i = c + 1; i < CLASSES;) {
		uint64_t word = occupied[i / 64] >> (i % 64);
		if (word) return lists[i + (unsigned)__builtin_ctzl(word)];
		i = (i / 64 + 1) * 64;
	}
	return NULL;
}

/* Cuts what is not needed off a used block and frees it. */
static void trim(block *b, size_t size)
{
	size_t rest = (b->size & ~(size_t)USED) - size;
	if (rest < 2 * HEADER) return;
	b->size = size | USED;
	block *cut = after(b);
	cut->size = rest;
	cut->previous = size;
	block *next = after(cut);
	if (!(next->size & USED)) {
		list_remove(next);
		cut->size += next->size;
	}
	after(cut)->previous = cut->size;
	list_add(cut);
}

static size_t whole(size_t bytes)
{
	size_t size = (bytes + HEADER + 15) & ~(size_t)15;
	return size < 2 * HEADER ? 2 * HEADER : size;
}

void *malloc(size_t bytes)
{
	if (bytes > (size_t)1 << 40) { errno = ENOMEM; return NULL; }
	size_t size = whole(bytes);
	block *b = find(size);
	if (!b) { errno = ENOMEM; return NULL; }
	list_remove(b);
	b->size |= USED;
	trim(b, size);
	in_use += b->size & ~(size_t)USED;
	if (in_use > peak) peak = in_use;
	return (char *)b + HEADER;
}

void free(void *pointer)
{
	if (!pointer) return;
	block *b = (block *)((char *)pointer - HEADER);
	b->size &= ~(size_t)USED;
	in_use -= b->size;
	block *next = after(b);
	if (!(next->size & USED)) {
		list_remove(next);
		b->size += next->size;
	}
	if (b->previous && !(before(b)->size & USED)) {
		block *front = before(b);
		list_remove(front);
		front->size += b->size;
		b = front;
	}
	after(b)->previous = b->size;
	list_add(b);
}

size_t malloc_usable_size(void *pointer)
{
	return pointer ? (((block *)((char *)pointer - HEADER))->size & ~(size_t)USED) - HEADER : 0;
}

void *calloc(size_t count, size_t bytes)
{
	size_t all;
	if (__builtin_mul_overflow(count, bytes, &all)) { errno = ENOMEM; return NULL; }
	void *pointer = malloc(all);
	if (pointer) memset(pointer, 0, all);
	return pointer;
}

void *realloc(void *pointer, size_t bytes)
{
	if (!pointer) return malloc(bytes);
	if (bytes > (size_t)1 << 40) { errno = ENOMEM; return NULL; }
	block *b = (block *)((char *)pointer - HEADER);
	size_t old = b->size & ~(size_t)USED, size = whole(bytes);
	if (size <= old) {
		trim(b, size);
		in_use -= old - (b->size & ~(size_t)USED);
		return pointer;
	}
	block *next = after(b);
	if (!(next->size & USED) && old + next->size >= size) {
		list_remove(next);
		b->size += next->size;
		after(b)->previous = b->size & ~(size_t)USED;
		trim(b, size);
		in_use += (b->size & ~(size_t)USED) - old;
		if (in_use > peak) peak = in_use;
		return pointer;
	}
	void *moved = malloc(bytes);
	if (!moved) return NULL;
	memcpy(moved, pointer, old - HEADER);
	free(pointer);
	return moved;
}
