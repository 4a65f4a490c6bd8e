/* The built-in module _wasgi: the host's functions as Python sees them. It marshals, nothing more; PEP 3333 lives in
   lib/wasgi/handler.py. */

#include "module.h"

#include <errno.h>
#include <string.h>

#include "abi.h"

static PyObject *handler;
static PyObject *base_environ;
static PyObject *restore_hook;

PyObject *wasgi_handler(void) { return handler; }

PyObject *wasgi_base_environ(void) { return base_environ; }

PyObject *wasgi_restore_hook(void) { return restore_hook; }

PyDoc_STRVAR(serve_doc,
             "serve(handler, environ)\n\n"
             "Calls handler(environ) for each request; the environ is a copy of the one given here plus the request's.");

static PyObject *serve(PyObject *module, PyObject *args)
{
    PyObject *new_handler, *new_environ;
    if (!PyArg_ParseTuple(args, "OO!", &new_handler, &PyDict_Type, &new_environ))
        return NULL;
    Py_XSETREF(handler, Py_NewRef(new_handler));
    Py_XSETREF(base_environ, Py_NewRef(new_environ));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(on_restore_doc, "on_restore(function)\n\nCalls function() in each copy of the snapshot, before any request.");

static PyObject *on_restore(PyObject *module, PyObject *function)
{
    Py_XSETREF(restore_hook, Py_NewRef(function));
    Py_RETURN_NONE;
}

/* The state of Modules/_randommodule.c's generator; a number out of it is drawn when index has come to the end. */
#define RANDOM_WORDS 624
struct random {
    PyObject_HEAD
    int index;
    uint32_t words[RANDOM_WORDS];
};

PyDoc_STRVAR(own_entropy_doc,
             "own_entropy(generator)\n\n"
             "Has the host fill the state of a random.Random with random bytes in each copy of the snapshot.");

static PyObject *own_entropy(PyObject *module, PyObject *generator)
{
    if (Py_TYPE(generator)->tp_basicsize < (Py_ssize_t)sizeof(struct random)) {
        PyErr_Format(PyExc_TypeError, "%.100s is not a random.Random", Py_TYPE(generator)->tp_name);
        return NULL;
    }
    struct random *state = (struct random *)generator;
    state->index = RANDOM_WORDS;
    host_entropy(state->words, sizeof state->words);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(settle_doc,
             "settle(objects)\n\n"
             "Makes the objects of a list and all they refer to immortal, and fills the holes between them, so that what\n"
             "comes after lies together. For good: what is dropped later is never freed.");

/* The host answers with a negative errno; the rest of the guest knows errno as libc has it, which on WASI is the same. */
static PyObject *raise_errno(int32_t result)
{
    errno = -result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyDoc_STRVAR(body_readinto_doc,
             "body_readinto(buffer) -> int\n\n"
             "Reads what there is of the request's body into the buffer, waiting for at least one byte; 0 at its end.");

static PyObject *body_readinto(PyObject *module, PyObject *target)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(target, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    int32_t result;
    do {
        result = host_body_read(buffer.buf, (int32_t)buffer.len);
    } while (result == -EINTR && PyErr_CheckSignals() == 0);
    PyBuffer_Release(&buffer);
    if (PyErr_Occurred())
        return NULL;
    return result < 0 ? raise_errno(result) : PyLong_FromLong(result);
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

PyDoc_STRVAR(reply_head_doc,
             "reply_head(status, headers)\n\n"
             "Gives the host the head of the reply, which goes out with the first bytes of the body. May be called again\n"
             "until then. headers is a list of (str, str) tuples.\n\n"
             "Raises TypeError or ValueError, naming the header, for what PEP 3333 or HTTP do not allow.");

static PyObject *reply_head(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "reply_head() takes a status and a list of headers");
        return NULL;
    }
    PyObject *status = args[0], *headers = args[1];
    if (!PyList_CheckExact(headers)) {
        PyErr_Format(PyExc_TypeError, "headers must be a list, not %.100s", Py_TYPE(headers)->tp_name);
        return NULL;
    }
    struct block block = {.bytes = PyMem_Malloc(512), .used = 2, .size = 512};
    if (block.bytes == NULL)
        return PyErr_NoMemory();
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
    Py_RETURN_NONE;
failed:
    PyMem_Free(block.bytes);
    return NULL;
}

PyDoc_STRVAR(reply_body_doc,
             "reply_body(data, last)\n\n"
             "Sends bytes of the reply's body, waiting while the client is slow; last says that nothing follows.\n\n"
             "Raises BrokenPipeError when nobody takes the reply any more.");

static PyObject *reply_body(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "reply_body() takes bytes and a flag");
        return NULL;
    }
    if (!PyBytes_CheckExact(args[0]) && !PyBytes_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "the reply's body must be made of bytes, not %.100s", Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    int32_t flags = args[1] == Py_True ? WASGI_REPLY_LAST : 0;
    int32_t result;
    do {
        result = host_reply_body(PyBytes_AS_STRING(args[0]), (int32_t)PyBytes_GET_SIZE(args[0]), flags);
    } while (result == -EINTR && PyErr_CheckSignals() == 0);
    if (PyErr_Occurred())
        return NULL;
    if (result < 0)
        return raise_errno(result);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_VARARGS, serve_doc},
    {"on_restore", on_restore, METH_O, on_restore_doc},
    {"own_entropy", own_entropy, METH_O, own_entropy_doc},
    {"settle", wasgi_settle, METH_O, settle_doc},
    {"body_readinto", body_readinto, METH_O, body_readinto_doc},
    {"reply_head", (PyCFunction)(void (*)(void))reply_head, METH_FASTCALL, reply_head_doc},
    {"reply_body", (PyCFunction)(void (*)(void))reply_body, METH_FASTCALL, reply_body_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_wasgi",
    .m_doc = "The host's side of a request.",
    .m_size = -1,
    .m_methods = methods,
};

PyObject *PyInit__wasgi(void) { return PyModule_Create(&definition); }
