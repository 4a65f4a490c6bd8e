/* Where a request's own objects lie, in an instance that goes back to its snapshot after each.

   CPython keeps blocks of each size in pages of their own, so that even a small request writes to some of every size.
   Here all sizes lie together, in the order in which they were first asked for, and a freed block is the next one of its
   size to be given out again: the pages that are written are few, and the same ones again and again. Memory is not given
   back, nor joined to larger blocks; the rewind does that. What is larger, or finds no room, goes to CPython's own
   allocator, as does all that was there before. */

#include "module.h"

#include <string.h>

/* Most bytes that are handed out here in one block, and in all. */
#define LARGEST 4096
#define ROOM (1 << 20)

/* A block is four bytes, its class, and then what the caller gets, aligned to eight as CPython's own allocator does.
   Blocks of one class have one length: a multiple of 8 up to 512, then of an eighth of the power of two below. */
#define HEADER 4
#define SMALL 512
#define SMALL_CLASSES (SMALL / 8)
#define CLASSES (SMALL_CLASSES + 32)

struct arena {
    char *next, *end;
    /* Freed blocks of each class, by their first word. */
    char *freed[CLASSES];
};

static struct arena *arena;
/* What was in charge before, of both domains: CPython's own. */
static PyMemAllocatorEx others;

/* The class whose blocks are the shortest that hold `size` bytes. */
static unsigned class_of(size_t size)
{
    unsigned last = (unsigned)size + HEADER - 1;
    if (last < SMALL)
        return last / 8;
    unsigned log = 31 - (unsigned)__builtin_clz(last);
    return SMALL_CLASSES + (log - 9) * 8 + (last >> (log - 3)) - 8;
}

static size_t length_of(unsigned class)
{
    if (class < SMALL_CLASSES)
        return (class + 1) * 8;
    unsigned log = 9 + (class - SMALL_CLASSES) / 8;
    return (size_t)((class - SMALL_CLASSES) % 8 + 9) << (log - 3);
}

static int is_ours(const void *block) { return (char *)block > (char *)arena && (char *)block < arena->end; }

static unsigned class_at(const void *block) { return *(const unsigned *)((const char *)block - HEADER); }

static void *arena_malloc(void *context, size_t size)
{
    if (size <= LARGEST) {
        unsigned class = class_of(size);
        char *block = arena->freed[class];
        if (block != NULL) {
            arena->freed[class] = *(char **)block;
            return block;
        }
        size_t length = length_of(class);
        if ((size_t)(arena->end - arena->next) >= length) {
            block = arena->next + HEADER;
            arena->next += length;
            *(unsigned *)(block - HEADER) = class;
            return block;
        }
    }
    return others.malloc(others.ctx, size);
}

static void *arena_calloc(void *context, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > LARGEST)
        return others.calloc(others.ctx, count, size);
    void *block = arena_malloc(context, bytes);
    return block == NULL ? NULL : memset(block, 0, bytes);
}

static void arena_free(void *context, void *block)
{
    if (block == NULL)
        return;
    if (!is_ours(block)) {
        others.free(others.ctx, block);
        return;
    }
    unsigned class = class_at(block);
    *(char **)block = arena->freed[class];
    arena->freed[class] = block;
}

static void *arena_realloc(void *context, void *block, size_t size)
{
    if (block == NULL)
        return arena_malloc(context, size);
    if (!is_ours(block))
        return others.realloc(others.ctx, block, size);
    size_t room = length_of(class_at(block)) - HEADER;
    /* What shrinks by little stays where it is, as with CPython's own allocator. */
    if (size <= room && size >= room - room / 4)
        return block;
    void *moved = arena_malloc(context, size);
    if (moved == NULL)
        return size <= room ? block : NULL;
    memcpy(moved, block, size < room ? size : room);
    arena_free(context, block);
    return moved;
}

void wasgi_use_arena(void)
{
    arena = PyMem_RawCalloc(1, ROOM);
    if (arena == NULL)
        return;
    arena->next = (char *)(arena + 1);
    /* Such that what follows a header is aligned. */
    arena->next += (HEADER - (uintptr_t)arena->next) & 7;
    arena->end = (char *)arena + ROOM;
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &others);
    PyMemAllocatorEx ours = {NULL, arena_malloc, arena_calloc, arena_realloc, arena_free};
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &ours);
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &ours);
}
