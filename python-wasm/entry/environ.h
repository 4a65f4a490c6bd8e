/* The environ of a request. */
#ifndef WASGI_ENVIRON_H
#define WASGI_ENVIRON_H

#include "block.h"

/* Makes the strings of the names that most requests have. To be called once, before any environ is made. */
int environ_prepare(void);

/* A new dict: what is in `base`; the block's pairs as latin-1 native strings (PEP 3333, "Unicode Issues"); wsgi.input;
   and wsgi.url_scheme, if the pairs say https. */
PyObject *environ_make(PyObject *base, struct bytes block, PyObject *input);

#endif
