/* PEP 3333's server side: one request, from its environ to the last byte of the reply.

   Function names are those of wsgiref.handlers. In C because each request pays for it; what only some need is in
   lib/wasgi/. */

#include "request.h"

#include "internal/pycore_modsupport.h"
#include "internal/pycore_runtime.h"

#include "abi.h"
#include "environ.h"
#include "module.h"
#include "reply.h"

/* What _wasgi.serve() was given. */
static PyObject *application, *base_environ, *input_type, *log_exception, *file_wrapper;

PyObject *request_serve(PyObject *module, PyObject *args)
{
    PyObject *given[5];
    if (!PyArg_ParseTuple(args, "OO!OOO", &given[0], &PyDict_Type, &given[1], &given[2], &given[3], &given[4]))
        return NULL;
    if (environ_prepare() < 0)
        return NULL;
    Py_XSETREF(application, Py_NewRef(given[0]));
    Py_XSETREF(base_environ, Py_NewRef(given[1]));
    Py_XSETREF(input_type, Py_NewRef(given[2]));
    Py_XSETREF(log_exception, Py_NewRef(given[3]));
    Py_XSETREF(file_wrapper, Py_NewRef(given[4]));
    Py_RETURN_NONE;
}

/* How far the reply has come: what start_response() and write() know of their request. */
struct reply {
    PyObject_HEAD
    int started, head_sent, peer_gone;
};

static void reply_dealloc(PyObject *self) { PyObject_Free(self); }

PyTypeObject reply_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "_wasgi.reply",
    .tp_basicsize = sizeof(struct reply),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = reply_dealloc,
};

static int send_data(struct reply *reply, PyObject *data, int last)
{
    int empty = PyBytes_Check(data) && PyBytes_GET_SIZE(data) == 0;
    /* "start_response() must be called before the iterable yields its first body bytestring." */
    if (!reply->started && (!empty || last)) {
        PyErr_SetString(PyExc_AssertionError, "the app sent data without calling start_response() first");
        return -1;
    }
    if (reply_body(data, last) < 0) {
        reply->peer_gone = PyErr_ExceptionMatches(PyExc_BrokenPipeError);
        return -1;
    }
    /* "The start_response callable must not actually transmit the response headers": the first bytes take them along. */
    if (!empty)
        reply->head_sent = 1;
    return 0;
}

static PyObject *write_data(PyObject *self, PyObject *data)
{
    if (send_data((struct reply *)self, data, 0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef write_method = {
    "write",
    write_data,
    METH_O,
    PyDoc_STR("write(data)\n\nSends bytes of the reply at once, before what the app returns."),
};

/* Raises the exception of an exc_info tuple again, as it was. */
static void reraise(PyObject *exc_info)
{
    PyObject *type, *value, *traceback;
    if (!PyTuple_Check(exc_info))
        PyErr_Format(PyExc_TypeError, "exc_info must be a tuple, not %.100s", Py_TYPE(exc_info)->tp_name);
    else if (PyArg_ParseTuple(exc_info, "OOO;exc_info must be (type, value, traceback)", &type, &value, &traceback)) {
        if (!PyExceptionInstance_Check(value))
            PyErr_Format(PyExc_TypeError, "exc_info holds no exception but %.100s", Py_TYPE(value)->tp_name);
        else if (PyException_SetTraceback(value, traceback) == 0)
            PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    }
}

static PyObject *start_response(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static const char *const keywords[] = {"status", "headers", "exc_info", NULL};
    static _PyArg_Parser parser = {.format = "OO|O:start_response", .keywords = keywords};
    struct reply *reply = (struct reply *)self;
    PyObject *status, *headers, *exc_info = Py_None;
    if (!_PyArg_ParseStackAndKeywords(args, count, names, &parser, &status, &headers, &exc_info))
        return NULL;
    /* "If exc_info is provided, and the HTTP headers have already been sent, start_response must raise an error", that
       one; without it a second call is "a fatal error". */
    if (exc_info != Py_None) {
        if (reply->head_sent) {
            reraise(exc_info);
            return NULL;
        }
    }
    else if (reply->started) {
        PyErr_SetString(PyExc_AssertionError, "start_response() was called a second time without exc_info");
        return NULL;
    }
    if (reply_head(status, headers) < 0)
        return NULL;
    reply->started = 1;
    return PyCFunction_New(&write_method, self);
}

static PyMethodDef start_response_method = {
    "start_response",
    (PyCFunction)(void (*)(void))start_response,
    METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("start_response(status, headers, exc_info=None)\n\nPEP 3333, \"The start_response() Callable\"."),
};

/* "Optional Platform-Specific File Handling": has the host send what is left of an ordinary file. 1 if it does, 0 if the
   wrapper is to be iterated, or -1. */
static int send_file(struct reply *reply, PyObject *wrapper)
{
    PyObject *place = PyObject_CallMethod(wrapper, "place", NULL);
    if (place == NULL)
        return -1;
    int sent = 0;
    if (place != Py_None && reply->started) {
        long long device, offset, length;
        unsigned long long inode;
        sent = -1;
        if (PyArg_ParseTuple(place, "LKLL", &device, &inode, &offset, &length)) {
            sent = reply_file(device, inode, offset, length);
            if (sent < 0)
                reply->peer_gone = PyErr_ExceptionMatches(PyExc_BrokenPipeError);
            else if (sent)
                reply->head_sent = 1;
        }
    }
    Py_DECREF(place);
    return sent;
}

static int finish_response(struct reply *reply, PyObject *result)
{
    /* "If the iterable returned by the application has a len() of 1, the server can work out the Content-Length." */
    if ((PyList_CheckExact(result) || PyTuple_CheckExact(result)) && PySequence_Fast_GET_SIZE(result) == 1 &&
        !reply->head_sent) {
        PyObject *data = Py_NewRef(PySequence_Fast_GET_ITEM(result, 0));
        int sent = send_data(reply, data, 1);
        Py_DECREF(data);
        return sent;
    }
    if ((PyObject *)Py_TYPE(result) == file_wrapper) {
        int sent = send_file(reply, result);
        if (sent != 0)
            return sent < 0 ? -1 : 0;
    }
    PyObject *iterator = PyObject_GetIter(result), *data;
    if (iterator == NULL)
        return -1;
    while ((data = PyIter_Next(iterator)) != NULL) {
        int sent = send_data(reply, data, 0);
        Py_DECREF(data);
        /* An iterable in C runs no bytecode, where else the time limit would be seen. */
        if (sent < 0 || PyErr_CheckSignals() < 0)
            break;
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred())
        return -1;
    PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0);
    int sent = nothing == NULL ? -1 : send_data(reply, nothing, 1);
    Py_XDECREF(nothing);
    return sent;
}

/* "close() must be called upon completion of the request, whether it completed normally or not." Keeps an exception that
   is on its way. */
static void close_result(PyObject *result)
{
    PyObject *raised = PyErr_GetRaisedException(), *close;
    if (PyObject_GetOptionalAttr(result, &_Py_ID(close), &close) > 0 && close != Py_None)
        Py_XDECREF(PyObject_CallNoArgs(close));
    Py_XDECREF(close);
    _PyErr_ChainExceptions1(raised);
}

/* Logs the exception that left the app. 0 if it is only that nobody takes the reply any more, or -1. */
static int app_failed(struct reply *reply)
{
    PyObject *error = PyErr_GetRaisedException();
    int failed = !(reply->peer_gone && PyErr_GivenExceptionMatches(error, PyExc_BrokenPipeError));
    if (failed) {
        PyObject *logged = PyObject_CallOneArg(log_exception, error);
        if (logged == NULL)
            PyErr_WriteUnraisable(log_exception);
        Py_XDECREF(logged);
    }
    Py_DECREF(error);
    return failed ? -1 : 0;
}

static int run(PyObject *environ)
{
    struct reply *reply = PyObject_New(struct reply, &reply_type);
    if (reply == NULL) {
        PyErr_WriteUnraisable(application);
        return -1;
    }
    reply->started = reply->head_sent = reply->peer_gone = 0;
    PyObject *start = PyCFunction_New(&start_response_method, (PyObject *)reply);
    if (start != NULL) {
        PyObject *result = PyObject_CallFunctionObjArgs(application, environ, start, NULL);
        if (result != NULL) {
            finish_response(reply, result);
            close_result(result);
            Py_DECREF(result);
        }
    }
    int outcome = PyErr_Occurred() ? app_failed(reply) : 0;
    Py_XDECREF(start);
    Py_DECREF(reply);
    return outcome;
}

int request_run(struct bytes block)
{
    PyObject *input = PyObject_CallNoArgs(input_type);
    PyObject *environ = input == NULL ? NULL : environ_make(base_environ, block, input);
    int outcome = -1;
    if (environ == NULL)
        PyErr_WriteUnraisable(application);
    else
        outcome = run(environ);
    Py_XDECREF(environ);
    /* Whoever kept it reads nothing any more, least of all the next request's body. */
    if (input != NULL && Py_REFCNT(input) > 1) {
        PyObject *ended = PyObject_CallMethod(input, "end", NULL);
        if (ended == NULL)
            PyErr_WriteUnraisable(input);
        Py_XDECREF(ended);
    }
    Py_XDECREF(input);
    return outcome;
}
