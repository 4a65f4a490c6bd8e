/* The built-in module _wasgi, and what entry.c shares with it. */
#ifndef WASGI_MODULE_H
#define WASGI_MODULE_H

#include <Python.h>

/* Makes the module; given to PyImport_AppendInittab. */
PyObject *PyInit__wasgi(void);

/* The function that _wasgi.on_restore() was given: called with the secrets in each instance. Borrowed; NULL if there is none. */
PyObject *wasgi_restore_hook(void);

/* _wasgi.settle(), in settle.c. */
PyObject *wasgi_settle(PyObject *module, PyObject *objects);

/* Gives objects that are made from now on a place of their own, in arena.c; if there is no memory for it, none. */
void wasgi_use_arena(void);

#endif
