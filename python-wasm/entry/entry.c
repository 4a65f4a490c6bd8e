/* What the host calls: start Python, take a request, or run as a command. ABI.md describes each. */

#include <Python.h>

#include "internal/pycore_ceval.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"

#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "block.h"
#include "module.h"
#include "request.h"

PyObject *PyInit_markupsafe_speedups(void);

/* Where the host puts the standard library. */
#define STDLIB L"/lib/python3.13"

/* The running call's block, as a bytes object. */
static PyObject *read_block(int32_t length)
{
    PyObject *block = PyBytes_FromStringAndSize(NULL, length);
    if (block != NULL)
        host_block_read(PyBytes_AS_STRING(block), length);
    return block;
}

static struct bytes contents(PyObject *block)
{
    return (struct bytes){(const unsigned char *)PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block)};
}

/* Fails the way Py_InitializeFromConfig does: a message on standard error, then the end of the instance. */
static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* Settings both kinds of start share. Nothing is read from the environment or from files beside the program. */
static void configure(PyConfig *config)
{
    PyPreConfig preconfig;
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    check(Py_PreInitialize(&preconfig));
    /* MarkupSafe imports its extension module if it is there. An app's package finds this one, unless it is one of before
       3.0: that looks for other names in it, and does with its Python code. */
    if (PyImport_AppendInittab("_wasgi", PyInit__wasgi) < 0 ||
        PyImport_AppendInittab("markupsafe._speedups", PyInit_markupsafe_speedups) < 0)
        Py_FatalError("no memory for the module table");

    PyConfig_InitIsolatedConfig(config);
    check(PyConfig_SetString(config, &config->program_name, L"python3"));
    check(PyConfig_SetString(config, &config->executable, L""));
    check(PyConfig_SetString(config, &config->prefix, L"/"));
    check(PyConfig_SetString(config, &config->exec_prefix, L"/"));
    check(PyConfig_SetString(config, &config->base_prefix, L"/"));
    check(PyConfig_SetString(config, &config->base_exec_prefix, L"/"));
    check(PyConfig_SetString(config, &config->stdlib_dir, STDLIB));
    check(PyWideStringList_Append(&config->module_search_paths, STDLIB));
    check(PyWideStringList_Append(&config->module_search_paths, STDLIB L"/site-packages"));
    config->module_search_paths_set = 1;
    config->write_bytecode = 0;
    /* The host assembles lines; a request's output must not wait in a buffer for the next request. */
    config->buffered_stdio = 0;
}

/* Tells the host where it may raise SIGXCPU. The handler is lib/wasgi/limit.py's. */
static void give_interrupt_words(void)
{
    host_interrupt_words(&_PyRuntime.signals.handlers[SIGXCPU].tripped, &_PyRuntime.signals.is_tripped,
                         &PyThreadState_Get()->eval_breaker, _PY_SIGNALS_PENDING_BIT);
}

/* A list of (key, value) str pairs. */
static PyObject *block_to_list(struct bytes block)
{
    PyObject *list = PyList_New(0);
    while (list != NULL && block.length > 0) {
        struct bytes key = take(&block), value = take(&block);
        PyObject *pair = Py_BuildValue("s#s#", key.at, key.length, value.at, value.length);
        if (pair == NULL || PyList_Append(list, pair) < 0)
            Py_CLEAR(list);
        Py_XDECREF(pair);
    }
    return list;
}

int32_t wasgi_start(int32_t block_length)
{
    PyConfig config;
    configure(&config);
    config.user_site_directory = 0;
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    give_interrupt_words();

    PyObject *block = read_block(block_length);
    PyObject *settings = block == NULL ? NULL : block_to_list(contents(block));
    PyObject *module = settings == NULL ? NULL : PyImport_ImportModule("wasgi.start");
    PyObject *result = module == NULL ? NULL : PyObject_CallMethod(module, "start", "O", settings);
    int32_t failed = result == NULL || result != Py_True;
    if (result == NULL)
        PyErr_Print();
    Py_XDECREF(block);
    Py_XDECREF(settings);
    Py_XDECREF(module);
    Py_XDECREF(result);
    return failed ? WASGI_FAILED : WASGI_OK;
}

int32_t wasgi_seal(int32_t rewinds)
{
    /* Forget SQLite's random state: each copy asks for a new one when it first needs it. */
    sqlite3_randomness(0, NULL);
    PyObject *module = PyImport_ImportModule("wasgi.seal");
    PyObject *result = module == NULL ? NULL : PyObject_CallMethod(module, "seal", "i", rewinds);
    int32_t outcome = result == NULL ? WASGI_FAILED : result == Py_True ? WASGI_OK : WASGI_FILES_OPEN;
    if (result == NULL)
        PyErr_Print();
    Py_XDECREF(module);
    Py_XDECREF(result);
    return outcome;
}

int32_t wasgi_restored(int32_t block_length)
{
    /* Where there are secrets, there is a hook. */
    if (wasgi_restore_hook() == NULL)
        return WASGI_OK;
    PyObject *block = read_block(block_length);
    PyObject *secrets = block == NULL ? NULL : block_to_list(contents(block));
    PyObject *result = secrets == NULL ? NULL : PyObject_CallOneArg(wasgi_restore_hook(), secrets);
    int32_t failed = result == NULL;
    if (failed)
        PyErr_Print();
    Py_XDECREF(block);
    Py_XDECREF(secrets);
    Py_XDECREF(result);
    return failed ? WASGI_FAILED : WASGI_OK;
}

int32_t wasgi_handle(int32_t block_length)
{
    PyObject *block = read_block(block_length);
    if (block == NULL) {
        PyErr_WriteUnraisable(NULL);
        return WASGI_FAILED;
    }
    int outcome = request_run(contents(block));
    Py_DECREF(block);
    return outcome < 0 ? WASGI_FAILED : WASGI_OK;
}

int32_t wasgi_main(int32_t block_length)
{
    char *copy = PyMem_RawMalloc(block_length);
    if (copy == NULL)
        Py_FatalError("no memory for the arguments");
    host_block_read(copy, block_length);

    PyConfig config;
    configure(&config);
    config.parse_argv = 1;
    config.use_environment = 1;
    config.safe_path = 0;
    check(PyWideStringList_Append(&config.argv, L"python3"));
    struct bytes block = {(const unsigned char *)copy, block_length};
    while (block.length > 0) {
        struct bytes key = take(&block), value = take(&block);
        char *narrow = PyMem_RawMalloc(value.length + 1);
        if (narrow == NULL)
            Py_FatalError("no memory for the arguments");
        memcpy(narrow, value.at, value.length);
        narrow[value.length] = 0;
        wchar_t *wide = Py_DecodeLocale(narrow, NULL);
        if (wide == NULL)
            Py_FatalError("an argument cannot be decoded");
        if (is(key, "arg"))
            check(PyWideStringList_Append(&config.argv, wide));
        else if (is(key, "sys.path"))
            check(PyWideStringList_Append(&config.module_search_paths, wide));
        else if (is(key, "working-dir") && chdir(narrow) < 0)
            Py_FatalError("the working directory is not there");
        PyMem_RawFree(wide);
        PyMem_RawFree(narrow);
    }
    PyMem_RawFree(copy);
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return Py_RunMain();
}
