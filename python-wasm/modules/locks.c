#include "locks.h"

#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#undef fcntl

/* 0, or a positive WASI errno. kind: 0 unlock, 1 read, 2 write; a len of 0 reaches to the end, as in POSIX. */
__attribute__((import_module("wasgi"), import_name("file_lock")))
extern int32_t host_file_lock(int64_t dev, int64_t ino, int64_t start, int64_t len, int32_t kind);

/* 0 if the lock would be granted, 1 if another instance holds one in its way. */
__attribute__((import_module("wasgi"), import_name("file_lock_test")))
extern int32_t host_file_lock_test(int64_t dev, int64_t ino, int64_t start, int64_t len, int32_t kind);

/* Turns the range into one that starts at the beginning of the file and grows forwards. -1 with errno if it cannot be. */
static int
from_start(int fd, const struct stat *file, const struct flock *lock, int64_t *start, int64_t *len)
{
    int64_t base = 0;

    switch (lock->l_whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        base = lseek(fd, 0, SEEK_CUR);
        if (base < 0)
            return -1;
        break;
    case SEEK_END:
        base = file->st_size;
        break;
    default:
        errno = EINVAL;
        return -1;
    }
    *len = lock->l_len;
    if (__builtin_add_overflow(base, (int64_t)lock->l_start, start)
        || (*len < 0 && __builtin_add_overflow(*start, *len, start)) || *start < 0) {
        errno = EINVAL;
        return -1;
    }
    if (*len < 0)
        *len = -*len;
    return 0;
}

static int
lock_file(int fd, int command, struct flock *lock)
{
    struct stat file;
    int64_t start, len;
    int32_t kind, error;

    switch (lock->l_type) {
    case F_UNLCK: kind = 0; break;
    case F_RDLCK: kind = 1; break;
    case F_WRLCK: kind = 2; break;
    default:
        errno = EINVAL;
        return -1;
    }
    if (fstat(fd, &file) < 0 || from_start(fd, &file, lock, &start, &len) < 0)
        return -1;
    if (command == F_GETLK) {
        /* The holder has no process id that would mean anything here; POSIX callers only compare the type. */
        if (host_file_lock_test((int64_t)file.st_dev, (int64_t)file.st_ino, start, len, kind)) {
            lock->l_type = F_WRLCK;
            lock->l_pid = 0;
        }
        else {
            lock->l_type = F_UNLCK;
        }
        return 0;
    }
    for (useconds_t pause = 1000;; pause = pause < 50000 ? pause * 2 : pause) {
        error = host_file_lock((int64_t)file.st_dev, (int64_t)file.st_ino, start, len, kind);
        if (error == 0)
            return 0;
        if (command != F_SETLKW || error != EAGAIN)
            break;
        /* Waiting asks again and again: the host keeps no queue. A signal ends it, as POSIX says. */
        if (usleep(pause) < 0)
            return -1;
    }
    errno = error;
    return -1;
}

int
wasgi_fcntl(int fd, int command, ...)
{
    va_list rest;
    int result;

    va_start(rest, command);
    if (command == F_GETLK || command == F_SETLK || command == F_SETLKW)
        result = lock_file(fd, command, va_arg(rest, struct flock *));
    else
        result = fcntl(fd, command, va_arg(rest, int));
    va_end(rest);
    return result;
}
