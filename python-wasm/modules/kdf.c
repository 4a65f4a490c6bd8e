#include "Python.h"
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "_wasgi_kdf", NULL, 0, NULL};
PyMODINIT_FUNC PyInit__wasgi_kdf(void) { return PyModuleDef_Init(&def); }
