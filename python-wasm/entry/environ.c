/* Makes a request's environ of the host's block.

   Most keys are the same in every request. Their strings are made once and interned: no memory, no hash to compute, and
   what an app looks up by a name in its source is found by identity. */

#include "environ.h"

#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_unicodeobject.h"

static const char *const NAMES[] = {
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "SERVER_PROTOCOL", "REQUEST_SCHEME",
    "REMOTE_ADDR", "REMOTE_PORT", "REMOTE_USER", "SERVER_NAME", "SERVER_PORT", "CONTENT_LENGTH", "CONTENT_TYPE",
    "DOCUMENT_ROOT", "HTTPS", "HTTP_ACCEPT", "HTTP_ACCEPT_CHARSET", "HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE",
    "HTTP_AUTHORIZATION", "HTTP_CACHE_CONTROL", "HTTP_CONNECTION", "HTTP_COOKIE", "HTTP_DNT", "HTTP_FORWARDED",
    "HTTP_HOST", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_ORIGIN", "HTTP_PRAGMA", "HTTP_PRIORITY",
    "HTTP_RANGE", "HTTP_REFERER", "HTTP_SEC_CH_UA", "HTTP_SEC_CH_UA_MOBILE", "HTTP_SEC_CH_UA_PLATFORM",
    "HTTP_SEC_FETCH_DEST", "HTTP_SEC_FETCH_MODE", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_USER", "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE_INSECURE_REQUESTS", "HTTP_USER_AGENT", "HTTP_VIA", "HTTP_X_CSRFTOKEN", "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PROTO", "HTTP_X_REAL_IP", "HTTP_X_REQUESTED_WITH",
    "HTTP_X_REQUEST_ID", "wsgi.input", "wsgi.url_scheme",
};

/* The names by their bytes; what does not lie where its hash says lies in the next free slot. Never full, so a search
   ends. */
#define SLOTS 256
static PyObject *known[SLOTS];
_Static_assert(sizeof NAMES / sizeof *NAMES <= SLOTS / 2, "the table of names is too small");

/* The slot of a name, or the free one where it would be. */
static PyObject **slot_of(struct bytes name)
{
    uint32_t hash = 0;
    for (Py_ssize_t i = 0; i < name.length; i++)
        hash = hash * 31 + name.at[i];
    for (;; hash++) {
        PyObject **slot = &known[hash % SLOTS];
        if (*slot == NULL || (PyUnicode_GET_LENGTH(*slot) == name.length &&
                              memcmp(PyUnicode_1BYTE_DATA(*slot), name.at, name.length) == 0))
            return slot;
    }
}

static struct bytes literal(const char *text) { return (struct bytes){(const unsigned char *)text, strlen(text)}; }

int environ_prepare(void)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        PyObject *name = PyUnicode_FromString(NAMES[i]);
        if (name == NULL)
            return -1;
        /* Immortal: using one writes no reference count into a page of the snapshot. */
        _PyUnicode_InternImmortal(_PyInterpreterState_GET(), &name);
        *slot_of(literal(NAMES[i])) = name;
    }
    return 0;
}

static PyObject *latin1(struct bytes text) { return PyUnicode_DecodeLatin1((const char *)text.at, text.length, NULL); }

static int add(PyObject *environ, struct bytes key, PyObject *value)
{
    PyObject *known_name = *slot_of(key), *name = known_name == NULL ? latin1(key) : Py_NewRef(known_name);
    int failed = name == NULL || value == NULL || PyDict_SetItem(environ, name, value) < 0;
    Py_XDECREF(name);
    return failed ? -1 : 0;
}

static int add_text(PyObject *environ, struct bytes key, struct bytes value)
{
    PyObject *text = latin1(value);
    int added = add(environ, key, text);
    Py_XDECREF(text);
    return added;
}

PyObject *environ_make(PyObject *base, struct bytes block, PyObject *input)
{
    int https = 0, on = 0, failed = 0;
    PyObject *environ = PyDict_Copy(base);
    if (environ == NULL)
        return NULL;
    while (!failed && block.length > 0) {
        struct bytes key = take(&block), value = take(&block);
        if (is(key, "REQUEST_SCHEME"))
            https = is(value, "https");
        else if (is(key, "HTTPS"))
            on = is(value, "on") || is(value, "1");
        failed = add_text(environ, key, value) < 0;
    }
    failed = failed || ((https || on) && add_text(environ, literal("wsgi.url_scheme"), literal("https")) < 0) ||
             add(environ, literal("wsgi.input"), input) < 0;
    if (failed)
        Py_CLEAR(environ);
    return environ;
}
