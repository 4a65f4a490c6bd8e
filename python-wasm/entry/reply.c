/* Marshals the reply for the host; PEP 3333 lives in request.c. */

#include "reply.h"

#include <errno.h>
#include <string.h>

#include "abi.h"

PyObject *raise_errno(int32_t result)
{
    errno = -result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Grows by what a head needs; freed by the caller. */
struct block {
    char *bytes;
    size_t used, size;
};

/* Appends one string of a pair as latin-1. `what` names it for the message. */
static int block_add(struct block *block, PyObject *text, const char *what)
{
    if (!PyUnicode_CheckExact(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", what, Py_TYPE(text)->tp_name);
        return -1;
    }
    if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
        PyErr_Format(PyExc_ValueError, "%s %A cannot be sent: it holds characters outside latin-1", what, text);
        return -1;
    }
    size_t length = (size_t)PyUnicode_GET_LENGTH(text);
    if (length > UINT16_MAX) {
        PyErr_Format(PyExc_ValueError, "%s is longer than 65535 characters", what);
        return -1;
    }
    if (block->size - block->used < length + 2) {
        size_t size = block->size * 2 + length + 2;
        char *bytes = PyMem_Realloc(block->bytes, size);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        block->bytes = bytes;
        block->size = size;
    }
    char *at = block->bytes + block->used;
    at[0] = (char)(length & 0xff);
    at[1] = (char)(length >> 8);
    memcpy(at + 2, PyUnicode_1BYTE_DATA(text), length);
    block->used += length + 2;
    return 0;
}

/* Turns the host's refusal of a head into the exception that start_response() raises. */
static void raise_refusal(int32_t refusal, PyObject *status, PyObject *headers)
{
    Py_ssize_t index = (refusal >> 4) - 1;
    PyObject *name = NULL;
    if (index >= 0 && index < PyList_GET_SIZE(headers))
        name = PyTuple_GET_ITEM(PyList_GET_ITEM(headers, index), 0);
    switch (refusal & 15) {
    case WASGI_BAD_STATUS:
        PyErr_Format(PyExc_ValueError, "status %R is not three digits from 200 to 599, a space and a reason", status);
        break;
    case WASGI_BAD_NAME:
        PyErr_Format(PyExc_ValueError, "header name %R holds characters that a name may not have", name);
        break;
    case WASGI_BAD_VALUE:
        PyErr_Format(PyExc_ValueError, "value of header %R holds a line break or another control character", name);
        break;
    case WASGI_HOP_BY_HOP:
        PyErr_Format(PyExc_ValueError, "header %R belongs to the connection and is the server's to send", name);
        break;
    case WASGI_TOO_LARGE:
        PyErr_SetString(PyExc_ValueError, "status and headers are larger than the server sends");
        break;
    default:
        PyErr_SetString(PyExc_RuntimeError, "the reply's head has already been sent");
    }
}

int reply_head(PyObject *status, PyObject *headers)
{
    if (!PyList_CheckExact(headers)) {
        PyErr_Format(PyExc_TypeError, "headers must be a list, not %.100s", Py_TYPE(headers)->tp_name);
        return -1;
    }
    struct block block = {.bytes = PyMem_Malloc(512), .used = 2, .size = 512};
    if (block.bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    block.bytes[0] = block.bytes[1] = 0;
    if (block_add(&block, status, "status") < 0)
        goto failed;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *pair = PyList_GET_ITEM(headers, i);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_Format(PyExc_TypeError, "header must be a (name, value) tuple, not %.200R", pair);
            goto failed;
        }
        if (block_add(&block, PyTuple_GET_ITEM(pair, 0), "header name") < 0 ||
            block_add(&block, PyTuple_GET_ITEM(pair, 1), "header value") < 0)
            goto failed;
    }
    int32_t refusal = host_reply_head(block.bytes, (int32_t)block.used);
    if (refusal != 0) {
        raise_refusal(refusal, status, headers);
        goto failed;
    }
    PyMem_Free(block.bytes);
    return 0;
failed:
    PyMem_Free(block.bytes);
    return -1;
}

/* Says of the exception on its way where it came: there is no Python frame to tell. */
static void note_wait(void)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *noted = PyObject_CallMethod(error, "add_note", "s", "while waiting for the client to take more of the reply");
    if (noted == NULL)
        PyErr_Clear();
    Py_XDECREF(noted);
    PyErr_SetRaisedException(error);
}

/* What became of bytes that the host was to send: 0, or -1 and an exception. */
static int sent(int32_t result)
{
    if (PyErr_Occurred()) {
        note_wait();
        return -1;
    }
    if (result == 0)
        return 0;
    /* A client that has been told of the time limit takes no more, and the limit is what the app is to hear of. */
    if (PyErr_CheckSignals() == 0)
        raise_errno(result);
    return -1;
}

int reply_file(long long device, unsigned long long inode, long long offset, long long length)
{
    int32_t result;
    do {
        result = host_reply_file(device, (int64_t)inode, offset, length);
    } while (result == -EINTR && PyErr_CheckSignals() == 0);
    if (result == -ENOENT && !PyErr_Occurred())
        return 0;
    return sent(result) < 0 ? -1 : 1;
}

int reply_body(PyObject *data, int last)
{
    if (!PyBytes_Check(data)) {
        PyErr_Format(PyExc_TypeError, "the reply's body must be made of bytes, not %.100s", Py_TYPE(data)->tp_name);
        return -1;
    }
    int32_t result;
    do {
        result = host_reply_body(PyBytes_AS_STRING(data), (int32_t)PyBytes_GET_SIZE(data), last ? WASGI_REPLY_LAST : 0);
    } while (result == -EINTR && PyErr_CheckSignals() == 0);
    return sent(result);
}
