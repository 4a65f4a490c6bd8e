/* The reply as the host takes it. */
#ifndef WASGI_REPLY_H
#define WASGI_REPLY_H

#include <Python.h>

/* Gives the host the head of the reply, which goes out with the first bytes of the body. May be called again until then.
   headers is a list of (str, str) tuples. -1 and a TypeError or ValueError, naming the header, for what PEP 3333 or HTTP do
   not allow. */
int reply_head(PyObject *status, PyObject *headers);

/* Sends bytes of the reply's body, waiting while the client is slow; last says that nothing follows. -1 and a TypeError for
   what is not bytes, a BrokenPipeError when nobody takes the reply any more. */
int reply_body(PyObject *data, int last);

/* Has the host send bytes of a file that is open, to which nothing is added. 1 if it does, 0 if it knows no such file, -1 and
   an exception as reply_body(). */
int reply_file(long long device, unsigned long long inode, long long offset, long long length);

/* The host answers with a negative errno; the rest of the guest knows errno as libc has it, which on WASI is the same. */
PyObject *raise_errno(int32_t result);

#endif
