/* What compiled decoders are to Python: a type `Decoder` of a module `MODULE`, which the including file names.

That file says what `decoder_decode` is, and has the function that Python looks for. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "_kept_series.h"

typedef struct {
    PyObject_HEAD
    Kept kept;
    int64_t first_us, last_us;
    uint64_t calls;
    int busy;
} Decoder;

static PyObject *decoder_decode(Decoder *self, PyObject *args);

static PyObject *column(const Rows *rows, size_t size)
{
    return PyByteArray_FromStringAndSize(rows->items, (Py_ssize_t)(rows->count * size));
}

static PyObject *decoder_kept(Decoder *self, PyObject *Py_UNUSED(none))
{
    return Py_BuildValue("nn", (Py_ssize_t)self->kept.series.count, (Py_ssize_t)self->kept.bytes);
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {"parse_key", "name_series", "seed", "bytes_max", "first_us", "last_us", NULL};
    PyObject *parse_key, *name_series;
    const char *seed;
    Py_ssize_t seed_length, bytes_max;
    long long first_us, last_us;
    if (!PyArg_ParseTupleAndKeywords(args, named, "OOy#nLL:Decoder", names, &parse_key, &name_series, &seed,
                                     &seed_length, &bytes_max, &first_us, &last_us))
        return NULL;
    if (seed_length != sizeof(uint64_t[2]) || bytes_max < 0) {
        PyErr_SetString(PyExc_ValueError, "the seed has 16 bytes, and bytes_max is not negative");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Decoder *self = (Decoder *)allocate(type, 0); /* zeroed */
    if (self == NULL)
        return NULL;
    self->kept.parse_key = Py_NewRef(parse_key);
    self->kept.name_series = Py_NewRef(name_series);
    memcpy(self->kept.seed, seed, sizeof self->kept.seed);
    self->kept.bytes_max = (size_t)bytes_max;
    self->first_us = first_us;
    self->last_us = last_us;
    self->kept.last_key = NONE;
    self->kept.numbers = PyDict_New();
    if (self->kept.numbers == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void decoder_dealloc(Decoder *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    forget(&self->kept);
    Py_CLEAR(self->kept.numbers);
    Py_CLEAR(self->kept.parse_key);
    Py_CLEAR(self->kept.name_series);
    freefunc release_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release_object(self);
    Py_DECREF(type);
}

static PyMethodDef decoder_methods[] = {
    {"decode", (PyCFunction)decoder_decode, METH_VARARGS,
     "The keys and columns of a body, or None where in doubt; see the stub."},
    {"kept", (PyCFunction)decoder_kept, METH_NOARGS, "How many series are kept, and what all costs in bytes."},
    {0},
};

static PyType_Slot decoder_slots[] = {
    {Py_tp_doc, "Decodes bodies, and keeps the series that it has seen."},
    {Py_tp_new, decoder_new},
    {Py_tp_dealloc, decoder_dealloc},
    {Py_tp_methods, decoder_methods},
    {0},
};

static PyType_Spec decoder_spec = {
    .name = MODULE ".Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = decoder_slots,
};

static int add_decoder(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &decoder_spec, NULL);
    int failed = type == NULL || PyModule_AddObjectRef(module, "Decoder", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_decoder}, {0}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = MODULE,
    .m_slots = module_slots,
};
