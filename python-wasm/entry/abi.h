/* The interface between host and guest, as ABI.md has it; a test compares the two. */
#ifndef WASGI_ABI_H
#define WASGI_ABI_H

#include <stdint.h>

#define WASGI_IMPORT(name) __attribute__((import_module("wasgi"), import_name(name)))
#define WASGI_EXPORT(name) __attribute__((export_name(name)))

/* Imports. */
WASGI_IMPORT("block_read") void host_block_read(void *to, int32_t length);
WASGI_IMPORT("interrupt_words")
void host_interrupt_words(void *tripped, void *is_tripped, void *eval_breaker, int32_t bit);
WASGI_IMPORT("interrupt_reason") int32_t host_interrupt_reason(void);
WASGI_IMPORT("is_news") int32_t host_is_news(const void *failure, int32_t length);
WASGI_IMPORT("entropy") void host_entropy(void *at, int32_t length);
WASGI_IMPORT("body_read") int32_t host_body_read(void *to, int32_t length);
WASGI_IMPORT("reply_head") int32_t host_reply_head(const void *block, int32_t length);
WASGI_IMPORT("reply_body") int32_t host_reply_body(const void *data, int32_t length, int32_t flags);
WASGI_IMPORT("reply_file") int32_t host_reply_file(int64_t device, int64_t inode, int64_t offset, int64_t length);
WASGI_IMPORT("tick") int32_t host_tick(void);
WASGI_IMPORT("file_lock")
int32_t host_file_lock(int64_t device, int64_t inode, int64_t start, int64_t length, int32_t kind);
WASGI_IMPORT("file_lock_test")
int32_t host_file_lock_test(int64_t device, int64_t inode, int64_t start, int64_t length, int32_t kind);

/* Results of interrupt_reason. */
#define WASGI_TIME_LIMIT 0
#define WASGI_KILLED 1
#define WASGI_CPU_LIMIT 2

/* Flags of reply_body. */
#define WASGI_REPLY_LAST 1

/* Reasons of a refusal by reply_head: (index << 4) | reason. */
#define WASGI_BAD_STATUS 1
#define WASGI_BAD_NAME 2
#define WASGI_BAD_VALUE 3
#define WASGI_HOP_BY_HOP 4
#define WASGI_TOO_LARGE 5
#define WASGI_ALREADY_SENT 6

/* Results of wasgi_start, wasgi_seal, wasgi_restored and wasgi_handle. */
#define WASGI_OK 0
#define WASGI_FAILED 1
#define WASGI_FILES_OPEN 2

/* Exports. */
WASGI_EXPORT("wasgi_start") int32_t wasgi_start(int32_t block_length);
WASGI_EXPORT("wasgi_seal") int32_t wasgi_seal(int32_t rewinds);
WASGI_EXPORT("wasgi_restored") int32_t wasgi_restored(int32_t block_length);
WASGI_EXPORT("wasgi_handle") int32_t wasgi_handle(int32_t block_length);
WASGI_EXPORT("wasgi_main") int32_t wasgi_main(int32_t block_length);

#endif
