/* The guard as a Python module, for the fork server: `enter(arguments)` returns inside.
 *
 * The process that calls it stays outside, watches, reports and ends; the one that returns is its
 * child, holds no descriptor but 0, 1 and 2, and has no way back. Only for a process of one thread.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#define GUARD_MODULE
#include "guard.c"

static PyObject *enter_from_python(PyObject *self, PyObject *arguments) {
    (void)self;
    Py_ssize_t many = PyList_Size(arguments);
    if (many < 0) return NULL;
    for (Py_ssize_t i = 0; i < many; i++) {
        PyObject *bytes = PyUnicode_EncodeFSDefault(PyList_GetItem(arguments, i));
        if (!bytes) return NULL;
        parse(PyBytes_AsString(bytes)); /* `asked` points into it: it is never freed */
    }
    enter();
    if (syscall(436 /* close_range */, 3, ~0u, 0))
        for (int fd = 3; fd < 1024; fd++) close(fd); /* before Linux 5.9 */
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"enter", enter_from_python, METH_O, "Go inside, as the arguments of the guard say."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_guard", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__guard(void) { return PyModule_Create(&module); }
