/* Bounds the open files of an instance. The host stops an instance that has more than it allows; an app should rather get
   the OSError it knows. The linker puts this between libc and WASI (--wrap). */

#include <wasi/api.h>

/* Descriptors from here on are not given out. The host's own bound lies above it: MAX_OPEN in crates/engine/src/wasi.rs. */
#define MAX_DESCRIPTOR 1000

__wasi_errno_t __real___wasi_path_open(__wasi_fd_t folder, __wasi_lookupflags_t lookup, const char *path,
                                       __wasi_oflags_t how, __wasi_rights_t rights, __wasi_rights_t inherited,
                                       __wasi_fdflags_t flags, __wasi_fd_t *opened);

__wasi_errno_t __wrap___wasi_path_open(__wasi_fd_t folder, __wasi_lookupflags_t lookup, const char *path,
                                       __wasi_oflags_t how, __wasi_rights_t rights, __wasi_rights_t inherited,
                                       __wasi_fdflags_t flags, __wasi_fd_t *opened)
{
    __wasi_errno_t error =
        __real___wasi_path_open(folder, lookup, path, how, rights, inherited, flags, opened);
    /* WASI gives the lowest free number, so a high one means that all below are taken. */
    if (error == 0 && *opened >= MAX_DESCRIPTOR) {
        (void)__wasi_fd_close(*opened);
        return __WASI_ERRNO_MFILE;
    }
    return error;
}
