/* The part of Python's stable ABI (3.11 and later) that the kernel uses, declared here, so that the kernel compiles for
   a function's Linux on any machine: one of another system, or one without Python's own headers. What stands here is
   promised never to change (PEP 652); a test holds it against Python's headers where there are some. */

#ifndef FSD_PYTHON_H
#define FSD_PYTHON_H

#include <stddef.h>
#include <stdint.h>

#ifndef Py_PYTHON_H

typedef intptr_t Py_ssize_t;
typedef struct _object PyObject;
typedef struct _ts PyThreadState;
typedef PyObject *(*PyCFunction)(PyObject *, PyObject *);
typedef void (*PyCapsule_Destructor)(PyObject *);

struct _object {
    Py_ssize_t ob_refcnt;
    void *ob_type;
};

typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len, itemsize;
    int readonly, ndim;
    char *format;
    Py_ssize_t *shape, *strides, *suboffsets;
    void *internal;
} Py_buffer;

typedef struct PyMethodDef {
    const char *ml_name;
    PyCFunction ml_meth;
    int ml_flags;
    const char *ml_doc;
} PyMethodDef;

typedef struct PyModuleDef_Base {
    PyObject ob_base;
    PyObject *(*m_init)(void);
    Py_ssize_t m_index;
    PyObject *m_copy;
} PyModuleDef_Base;

typedef struct PyModuleDef {
    PyModuleDef_Base m_base;
    const char *m_name, *m_doc;
    Py_ssize_t m_size;
    PyMethodDef *m_methods;
    void *m_slots, *m_traverse, *m_clear, *m_free;
} PyModuleDef;

#define METH_VARARGS 0x0001
#define METH_NOARGS 0x0004
#define METH_O 0x0008
#define PyModuleDef_HEAD_INIT {{1, NULL}, NULL, 0, NULL}
#define PyModule_Create(definition) PyModule_Create2(definition, 3)
#define PyMODINIT_FUNC __attribute__((visibility("default"))) PyObject *
#define PyDoc_STRVAR(name, text) static const char name[] = text
#define Py_BEGIN_ALLOW_THREADS { PyThreadState *_save = PyEval_SaveThread();
#define Py_END_ALLOW_THREADS PyEval_RestoreThread(_save); }
#define Py_RETURN_NONE return Py_IncRef(&_Py_NoneStruct), &_Py_NoneStruct

#endif

/* Declared twice, these must agree with Python's own. */
extern PyObject _Py_NoneStruct, *PyExc_ValueError;

void Py_IncRef(PyObject *);
int PyArg_ParseTuple(PyObject *, const char *, ...);
PyObject *Py_BuildValue(const char *, ...);
PyObject *PyBool_FromLong(long);
PyObject *PyFloat_FromDouble(double);
PyObject *PyUnicode_FromString(const char *);
void PyBuffer_Release(Py_buffer *);
PyObject *PyCapsule_New(void *, const char *, PyCapsule_Destructor);
void *PyCapsule_GetPointer(PyObject *, const char *);
PyObject *PyErr_Format(PyObject *, const char *, ...);
PyObject *PyErr_NoMemory(void);
PyThreadState *PyEval_SaveThread(void);
void PyEval_RestoreThread(PyThreadState *);
unsigned long PyThread_start_new_thread(void (*)(void *), void *);
PyObject *PyModule_Create2(PyModuleDef *, int);

#endif
