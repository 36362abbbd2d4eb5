/* A commit's readings against limits, in one pass over them. What limits mean, and the states they lead to, are
limits.py's; this is its `walk` for series whose next state follows from their readings' sides alone.

What this file guarantees: a series is judged as `walk` would judge it, or not at all. Not judged, and left as they were,
are those with something held, pending, untold or muted, and those of which a reading outside or behind one is late or
not finite: their places are answered, and the caller walks them. Nothing is read or written outside the buffers: each
index is compared with what it points into. The time is linear in the readings and the series. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TIME_NONE INT64_MIN
#define TIME_UNKNOWN INT64_MAX
#define SERIES_ORDINAL_BITS 32

/* Flags of a rule, as standing.py has them. */
enum { EVERY = 1, HELD = 2 };
/* A state, and the bit of the event that tells of it. */
enum { OK, ABOVE, BELOW, SIDES };
static const uint8_t KINDS[SIDES] = {4, 1, 2};

/* standing.CALM */
typedef struct {
    double low, high;
    int64_t newest;
} Calm;
_Static_assert(sizeof(Calm) == 24, "as numpy lays it out");

/* standing.WATCHED */
typedef struct {
    int64_t series;
    double low, high;
    int64_t mute_until, since, pending_since;
    uint8_t state, pending, told, flags, alarmed, unused[3];
} Watched;
_Static_assert(sizeof(Watched) == 56, "as numpy lays it out");

/* limits.TRANSITION, without gaps. */
#pragma pack(push, 1)
typedef struct {
    int64_t series;
    uint8_t kind, flags, state, pending, told;
    uint32_t count;
    int64_t since, pending_since;
    double low, high;
    int64_t first_at;
    double first;
    int64_t last_at;
    double last;
    int64_t extreme_at;
    double extreme;
} Transition;
#pragma pack(pop)
_Static_assert(sizeof(Transition) == 97, "as numpy lays it out");

/* What an event sums up. */
typedef struct {
    int64_t first_at, last_at, extreme_at;
    double first, last, extreme;
    uint32_t count;
    size_t raised; /* by which reading, from 1; 0 for never */
} Sum;

/* A series with a reading outside, or an alarm that isn't at rest. */
typedef struct {
    Watched now;
    int64_t newest;
    int odd;
    Sum sums[SIDES];
} Case;

typedef struct {
    const uint32_t *index;
    const int64_t *at_us;
    const double *values;
    size_t readings;
    const int64_t *slots;
    size_t series;
    Calm *calm;
    Watched *rows;
    size_t rows_count;
    int64_t now_us;
    Calm *places; /* a copy, a series of the batch each */
    uint32_t *numbers; /* of their cases, from 1; 0 for none; NULL while there is no case */
    Case *cases;
    size_t cases_count, unknown, odd;
} Call;

static int learn_places(Call *call)
{
    for (size_t p = 0; p < call->series; p++) {
        if (call->slots[p] < 0 || (uint64_t)call->slots[p] >= call->rows_count) {
            PyErr_SetString(PyExc_ValueError, "a slot beyond the rows");
            return -1;
        }
        call->places[p] = call->calm[call->slots[p]];
    }
    return 0;
}

/* A reading that isn't calm makes a case of its series, unless the series is at rest and it isn't a number. */
static int note(Call *call, uint32_t p, double value)
{
    const Watched *row = &call->rows[call->slots[p]];
    if (!row->alarmed && !(value > row->high || value < row->low))
        return 0;
    if (call->numbers == NULL) {
        call->numbers = PyMem_Calloc(call->series, sizeof(uint32_t));
        if (call->numbers == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    if (!call->numbers[p])
        call->numbers[p] = (uint32_t)++call->cases_count;
    return 0;
}

/* Finds cases; and the newest readings of what is none. */
static int look(Call *call)
{
    for (size_t n = 0; n < call->readings; n++) {
        uint32_t p = call->index[n];
        if (p >= call->series) {
            PyErr_SetString(PyExc_ValueError, "a reading of no series");
            return -1;
        }
        Calm *place = &call->places[p];
        double value = call->values[n];
        if (value >= place->low && value <= place->high) {
            if (call->at_us[n] > place->newest)
                place->newest = call->at_us[n];
        } else if (note(call, p, value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int is_odd(const Call *call, const Watched *row)
{
    return row->pending || row->told != row->state || row->flags & HELD || call->now_us < row->mute_until;
}

static int open_cases(Call *call)
{
    call->cases = PyMem_Calloc(call->cases_count, sizeof(Case));
    if (call->cases == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t p = 0; p < call->series; p++) {
        if (call->numbers[p]) {
            Case *one = &call->cases[call->numbers[p] - 1];
            one->now = call->rows[call->slots[p]];
            one->newest = call->calm[call->slots[p]].newest;
            one->odd = is_odd(call, &one->now);
            call->unknown += one->newest == TIME_UNKNOWN;
        }
    }
    return 0;
}

static void add(Sum *sum, int side, int64_t at_us, double value)
{
    if (!sum->count++) {
        sum->first_at = sum->extreme_at = at_us;
        sum->first = sum->extreme = value;
    } else if (side == ABOVE ? value > sum->extreme : value < sum->extreme) {
        sum->extreme_at = at_us;
        sum->extreme = value;
    }
    sum->last_at = at_us;
    sum->last = value;
}

static void step(Case *one, int64_t at_us, double value, size_t number)
{
    Watched *now = &one->now;
    if (one->odd)
        return;
    if (at_us < one->newest || !isfinite(value)) {
        one->odd = 1;
        return;
    }
    one->newest = at_us;
    uint8_t side = value > now->high ? ABOVE : value < now->low ? BELOW : OK;
    Sum *sum = &one->sums[side];
    int crossed = side != now->state;
    if (crossed) {
        now->state = now->told = side;
        now->since = side == OK ? TIME_NONE : at_us;
        if (side == OK)
            sum->count = 0; /* of several clearings the last one is told */
    }
    if (crossed || side != OK)
        add(sum, side, at_us, value);
    if (crossed || (side != OK && now->flags & EVERY))
        sum->raised = number;
}

static void walk(Call *call)
{
    for (size_t n = 0; n < call->readings; n++) {
        uint32_t number = call->numbers[call->index[n]];
        if (number)
            step(&call->cases[number - 1], call->at_us[n], call->values[n], n + 1);
    }
}

static void write_event(char *into, const Watched *now, int side, const Sum *sum)
{
    Transition made = {
        .series = now->series, .kind = KINDS[side], .state = now->state, .told = now->told, .count = sum->count,
        .since = now->since, .pending_since = TIME_NONE, .low = now->low, .high = now->high,
        .first_at = sum->first_at, .first = sum->first, .last_at = sum->last_at, .last = sum->last,
        .extreme_at = sum->extreme_at, .extreme = sum->extreme,
    };
    memcpy(into, &made, sizeof made);
}

/* The case's events, in the order in which they were raised last; how many. */
static size_t tell(const Case *one, char *into)
{
    size_t told = 0, after = 0;
    for (;;) {
        int next = SIDES;
        for (int side = 0; side < SIDES; side++)
            if (one->sums[side].raised > after && (next == SIDES || one->sums[side].raised < one->sums[next].raised))
                next = side;
        if (next == SIDES)
            return told;
        after = one->sums[next].raised;
        if (into != NULL)
            write_event(into + told * sizeof(Transition), &one->now, next, &one->sums[next]);
        told++;
    }
}

static Calm calm_of(const Watched *row, int64_t newest)
{
    if (row->alarmed)
        return (Calm){NAN, NAN, newest};
    return (Calm){fmax(row->low, -DBL_MAX), fmin(row->high, DBL_MAX), newest};
}

/* What is known of all events together. */
typedef struct {
    PyObject *metrics;
    int64_t metric;
    long types;
} Known;

static int know(Known *known, const Case *one)
{
    for (int side = 0; side < SIDES; side++)
        if (one->sums[side].raised)
            known->types |= KINDS[side];
    int64_t metric = one->now.series >> SERIES_ORDINAL_BITS;
    if (metric == known->metric)
        return 0;
    known->metric = metric;
    PyObject *number = PyLong_FromLongLong(metric);
    int failed = number == NULL || PyList_Append(known->metrics, number) < 0;
    Py_XDECREF(number);
    return failed ? -1 : 0;
}

/* A case's events, or its place; what it came to is the series' own from now on. */
static int end_case(Call *call, size_t p, char **events, char **odd, Known *known)
{
    Case *one = &call->cases[call->numbers[p] - 1];
    if (one->odd) {
        uint32_t place = (uint32_t)p;
        memcpy(*odd, &place, sizeof place);
        *odd += sizeof place;
        return 0;
    }
    size_t told = tell(one, *events);
    *events += told * sizeof(Transition);
    if (told && know(known, one) < 0)
        return -1;
    one->now.alarmed = one->now.state != OK;
    call->rows[call->slots[p]] = one->now;
    call->calm[call->slots[p]] = calm_of(&one->now, one->newest);
    return 0;
}

/* All move on; events, and the places of what is odd, are written. */
static int settle(Call *call, PyObject *found, PyObject *odd, Known *known)
{
    char *into = PyBytes_AsString(found), *odd_into = PyBytes_AsString(odd);
    for (size_t p = 0; p < call->series; p++) {
        if (call->numbers == NULL || !call->numbers[p])
            call->calm[call->slots[p]].newest = call->places[p].newest;
        else if (end_case(call, p, &into, &odd_into, known) < 0)
            return -1;
    }
    return 0;
}

static PyObject *answer_of(Call *call)
{
    size_t events = 0;
    for (size_t n = 0; n < call->cases_count; n++) {
        if (call->cases[n].odd)
            call->odd++;
        else
            events += tell(&call->cases[n], NULL);
    }
    PyObject *found = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(events * sizeof(Transition)));
    PyObject *odd = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(call->odd * sizeof(uint32_t)));
    Known known = {PyList_New(0), TIME_NONE, 0};
    PyObject *answer = NULL;
    if (found != NULL && odd != NULL && known.metrics != NULL && settle(call, found, odd, &known) == 0)
        answer = Py_BuildValue("(OOlO)", found, known.metrics, known.types, odd);
    Py_XDECREF(found);
    Py_XDECREF(odd);
    Py_XDECREF(known.metrics);
    return answer;
}

static PyObject *judge_call(Call *call)
{
    call->places = PyMem_Malloc((call->series + 1) * sizeof(Calm));
    if (call->places == NULL)
        return PyErr_NoMemory();
    PyObject *answer = NULL;
    if (learn_places(call) == 0 && look(call) == 0 && (!call->cases_count || open_cases(call) == 0)) {
        if (call->unknown) {
            answer = Py_NewRef(Py_None);
        } else {
            if (call->cases_count)
                walk(call);
            answer = answer_of(call);
        }
    }
    PyMem_Free(call->cases);
    PyMem_Free(call->numbers);
    PyMem_Free(call->places);
    return answer;
}

static PyObject *judge(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer index, at_us, values, slots, calm, rows;
    long long now_us;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*L:judge", &index, &at_us, &values, &slots, &calm, &rows, &now_us))
        return NULL;
    Call call = {
        .index = index.buf, .at_us = at_us.buf, .values = values.buf, .slots = slots.buf, .calm = calm.buf,
        .rows = rows.buf,
        .readings = (size_t)index.len / sizeof(uint32_t),
        .series = (size_t)slots.len / sizeof(int64_t),
        .rows_count = (size_t)rows.len / sizeof(Watched),
        .now_us = now_us,
    };
    PyObject *answer = NULL;
    if ((size_t)at_us.len != call.readings * sizeof(int64_t) || at_us.len != values.len)
        PyErr_SetString(PyExc_ValueError, "columns of several lengths");
    else if ((size_t)calm.len != call.rows_count * sizeof(Calm))
        PyErr_SetString(PyExc_ValueError, "rows of several lengths");
    else
        answer = judge_call(&call);
    PyBuffer_Release(&index);
    PyBuffer_Release(&at_us);
    PyBuffer_Release(&values);
    PyBuffer_Release(&slots);
    PyBuffer_Release(&calm);
    PyBuffer_Release(&rows);
    return answer;
}

static PyMethodDef methods[] = {
    {"judge", judge, METH_VARARGS, "Events and the places of what is to be walked; see the stub."},
    {0},
};

static PyModuleDef_Slot module_slots[] = {{0}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "meterite.model._standing",
    .m_methods = methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__standing(void)
{
    return PyModuleDef_Init(&module);
}
