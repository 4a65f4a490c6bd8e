/* The built-in module _wasgi: the host's functions as Python sees them. It marshals, nothing more; PEP 3333 lives in
   request.c. */

#include "module.h"

#include <errno.h>

#include "abi.h"
#include "reply.h"
#include "request.h"

static PyObject *restore_hook;

PyObject *wasgi_restore_hook(void) { return restore_hook; }

PyDoc_STRVAR(serve_doc,
             "serve(application, environ, input, log_exception, file_wrapper)\n\n"
             "Has requests answered by application from now on. Each gets a copy of environ with what is its own, an input()\n"
             "as wsgi.input, and log_exception(error) for what leaves the application. What it returns of type file_wrapper\n"
             "tells with place() which file the host may send.");

PyDoc_STRVAR(on_restore_doc, "on_restore(function)\n\n"
             "Calls function(secrets) in each instance, before any request; they are (name, value) pairs.");

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

PyDoc_STRVAR(interrupt_reason_doc,
             "interrupt_reason() -> int\n\n"
             "Why the host has raised SIGXCPU: one of the reasons in abi.h.");

static PyObject *interrupt_reason(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(host_interrupt_reason());
}

PyDoc_STRVAR(is_news_doc,
             "is_news(failure) -> bool\n\n"
             "Whether a failure, named by its kind and place, is to be told with its traceback. If not, the host counts it.");

static PyObject *is_news(PyObject *module, PyObject *failure)
{
    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(failure, &length);
    if (name == NULL)
        return NULL;
    return PyBool_FromLong(host_is_news(name, (int32_t)length));
}

static PyMethodDef methods[] = {
    {"serve", request_serve, METH_VARARGS, serve_doc},
    {"on_restore", on_restore, METH_O, on_restore_doc},
    {"own_entropy", own_entropy, METH_O, own_entropy_doc},
    {"settle", wasgi_settle, METH_O, settle_doc},
    {"interrupt_reason", interrupt_reason, METH_NOARGS, interrupt_reason_doc},
    {"is_news", is_news, METH_O, is_news_doc},
    {"body_readinto", body_readinto, METH_O, body_readinto_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_wasgi",
    .m_doc = "The host's side of a request.",
    .m_size = -1,
    .m_methods = methods,
};

PyObject *PyInit__wasgi(void)
{
    if (PyType_Ready(&reply_type) < 0)
        return NULL;
    return PyModule_Create(&definition);
}
