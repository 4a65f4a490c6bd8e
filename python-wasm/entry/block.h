/* The host's blocks: strings, each behind its length (ABI.md). */
#ifndef WASGI_BLOCK_H
#define WASGI_BLOCK_H

#include <Python.h>

#include <string.h>

struct bytes {
    const unsigned char *at;
    Py_ssize_t length;
};

/* Takes one length-prefixed string off the front. The host has checked the block, so a short one is our own mistake. */
static inline struct bytes take(struct bytes *block)
{
    struct bytes text = {block->at + 2, block->at[0] | block->at[1] << 8};
    if (text.length + 2 > block->length)
        Py_FatalError("a block from the host is shorter than it says");
    block->at += text.length + 2;
    block->length -= text.length + 2;
    return text;
}

static inline int is(struct bytes text, const char *name)
{
    return (size_t)text.length == strlen(name) && memcmp(text.at, name, strlen(name)) == 0;
}

#endif
