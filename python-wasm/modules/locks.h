/*
 * File locks for WASI, which has none: the host arbitrates between the instances that have a file open.
 *
 * SQLite is compiled with this file included first, so that its calls of fcntl() come to wasgi_fcntl(). wasi-libc has
 * struct flock but not the lock commands, so they are defined here; the numbers are ours and stay inside the guest.
 */
#ifndef WASGI_LOCKS_H
#define WASGI_LOCKS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>

#ifndef F_RDLCK
#define F_RDLCK 0
#define F_WRLCK 1
#define F_UNLCK 2
#endif
#ifndef F_SETLK
#define F_GETLK 1005
#define F_SETLK 1006
#define F_SETLKW 1007
#endif

/* fcntl(), with F_GETLK, F_SETLK and F_SETLKW answered by the host; every other command goes on to wasi-libc. */
int wasgi_fcntl(int fd, int command, ...);

#ifdef SQLITE_OS_UNIX
#define fcntl wasgi_fcntl
/* On WASI SQLite would lock whole databases with a folder beside them, readers included. */
#define SQLITE_DEFAULT_UNIX_VFS "unix"
#endif

#endif
