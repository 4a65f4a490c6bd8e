/* Makes a loaded app settle in its memory, so that a request writes to few of its pages.

   Whatever one request writes is copied when it is first touched and taken back after the reply. CPython writes
   everywhere: each use of an object counts references in it, and new objects fill the holes between old ones. So what is
   there is made immortal, whose counts are never written, and the holes are filled: what a request allocates then lies
   together, behind everything else. */

#include "module.h"

#include "internal/pycore_backoff.h"
#include "internal/pycore_code.h"
#include "internal/pycore_object.h"
#include "internal/pycore_opcode_metadata.h"

#include <stdlib.h>

/* Objects found but not yet looked into. Grows; on failure `full` says that some were left as they were. */
struct work {
    PyObject **objects;
    size_t count, room;
    int full;
};

static int is_immortal(PyObject *object) { return object->ob_refcnt == _Py_IMMORTAL_REFCNT; }

static int found(PyObject *object, void *argument)
{
    struct work *work = argument;
    if (object == NULL || is_immortal(object))
        return 0;
    object->ob_refcnt = _Py_IMMORTAL_REFCNT;
    if (work->count == work->room) {
        size_t room = work->room * 2 + 1024;
        PyObject **objects = PyMem_RawRealloc(work->objects, room * sizeof *objects);
        if (objects == NULL) {
            work->full = 1;
            return 0;
        }
        work->objects = objects;
        work->room = room;
    }
    work->objects[work->count++] = object;
    return 0;
}

/* An instruction that has failed to be specialised so often, in terms of its counter's backoff, is left as it is. */
#define GIVEN_UP 3

/* Has a code object's instructions no longer count towards the next attempt to specialise them, where none is likely to
   succeed: counting writes to the code's page. See patches/wasgi/quiet-code.patch. */
static void stop_counters(PyCodeObject *code)
{
    _Py_CODEUNIT *instructions = _PyCode_CODE(code);
    for (int i = 0; i < Py_SIZE(code); i++) {
        int opcode = _Py_GetBaseOpcode(code, i);
        int caches = _PyOpcode_Caches[opcode];
        if (caches == 0)
            continue;
        _Py_BackoffCounter *counter = &instructions[i + 1].counter;
        int counts = opcode != JUMP_BACKWARD && opcode != POP_JUMP_IF_FALSE && opcode != POP_JUMP_IF_TRUE &&
                     opcode != POP_JUMP_IF_NONE && opcode != POP_JUMP_IF_NOT_NONE;
        if (counts && counter->backoff >= GIVEN_UP)
            *counter = initial_unreachable_backoff_counter();
        i += caches;
    }
}

/* Everything an object refers to. tp_traverse leaves out what cannot be in a cycle: a dict's string keys, all of a code
   object. */
static void look_into(PyObject *object, struct work *work)
{
    found((PyObject *)Py_TYPE(object), work);
    if (PyDict_Check(object)) {
        PyObject *key, *value;
        Py_ssize_t position = 0;
        while (PyDict_Next(object, &position, &key, &value))
            found(key, work);
    }
    else if (PyCode_Check(object)) {
        PyCodeObject *code = (PyCodeObject *)object;
        stop_counters(code);
        found(code->co_consts, work);
        found(code->co_names, work);
        found(code->co_exceptiontable, work);
        found(code->co_localsplusnames, work);
        found(code->co_localspluskinds, work);
        found(code->co_filename, work);
        found(code->co_name, work);
        found(code->co_qualname, work);
        found(code->co_linetable, work);
        if (code->_co_cached != NULL) {
            found(code->_co_cached->_co_code, work);
            found(code->_co_cached->_co_varnames, work);
            found(code->_co_cached->_co_cellvars, work);
            found(code->_co_cached->_co_freevars, work);
        }
    }
    else if (PyType_Check(object)) {
        PyTypeObject *type = (PyTypeObject *)object;
        if (type->tp_flags & Py_TPFLAGS_HEAPTYPE) {
            found(((PyHeapTypeObject *)type)->ht_name, work);
            found(((PyHeapTypeObject *)type)->ht_qualname, work);
        }
    }
    else if (PyFunction_Check(object)) {
        PyFunctionObject *function = (PyFunctionObject *)object;
        found(function->func_code, work);
        found(function->func_name, work);
        found(function->func_qualname, work);
    }
    if (Py_TYPE(object)->tp_traverse != NULL)
        Py_TYPE(object)->tp_traverse(object, found, work);
}

/* Makes all of `objects`, a list, and what they refer to immortal. */
static int make_immortal(PyObject *objects)
{
    struct work work = {0};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects); i++)
        found(PyList_GET_ITEM(objects, i), &work);
    while (work.count > 0)
        look_into(work.objects[--work.count], &work);
    PyMem_RawFree(work.objects);
    return work.full ? -1 : 0;
}

/* Takes every free block of Python's own allocator below `end`, and of libc's, for good. */
static void fill_holes(void)
{
    char *end = malloc(1 << 20);
    if (end == NULL)
        return;
    free(end);
    for (size_t size = 16; size <= 512; size += 8) {
        /* A new pool is begun only when no other of this size has room, and in a new arena only when no old one has a
           free pool, so one block behind `end` shows that no others are left. */
        for (;;) {
            char *block = PyMem_Malloc(size);
            if (block == NULL)
                break;
            if (block >= end) {
                PyMem_Free(block);
                break;
            }
        }
    }
    for (size_t size = 1 << 20; size > 512; size -= size / 8) {
        for (;;) {
            char *block = malloc(size);
            if (block == NULL)
                break;
            if (block >= end) {
                free(block);
                break;
            }
        }
    }
}

PyObject *wasgi_settle(PyObject *module, PyObject *objects)
{
    if (!PyList_CheckExact(objects)) {
        PyErr_SetString(PyExc_TypeError, "settle() takes a list of objects");
        return NULL;
    }
    if (make_immortal(objects) < 0)
        return PyErr_NoMemory();
    fill_holes();
    wasgi_use_arena();
    Py_RETURN_NONE;
}
