/* SQLite takes its random numbers from /dev/urandom, which the guest lacks, and would otherwise do with the time. */

#include <sqlite3.h>
#include <unistd.h>

static int
randomness(sqlite3_vfs *vfs, int size, char *bytes)
{
    int done = 0;

    while (done < size) {
        int part = size - done < 256 ? size - done : 256; /* getentropy's own limit */

        if (getentropy(bytes + done, (size_t)part) < 0)
            break;
        done += part;
    }
    return done;
}

/* Called by sqlite3_initialize(), see SQLITE_EXTRA_INIT in libs.sh. */
int
wasgi_sqlite_init(const char *unused)
{
    for (sqlite3_vfs *vfs = sqlite3_vfs_find(NULL); vfs != NULL; vfs = vfs->pNext)
        vfs->xRandomness = randomness;
    return SQLITE_OK;
}
