/* One request, and what every request needs. */
#ifndef WASGI_REQUEST_H
#define WASGI_REQUEST_H

#include "block.h"

/* _wasgi.serve(), and the type of what start_response() and write() belong to. */
PyObject *request_serve(PyObject *module, PyObject *args);
extern PyTypeObject reply_type;

/* Takes the request of an environ block through the app. 0, or -1 when an exception left the app, which is then in the
   log. */
int request_run(struct bytes block);

#endif
