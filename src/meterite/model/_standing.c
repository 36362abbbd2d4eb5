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

/* Flags of a rule, as standing.py has them. */
enum { EVERY = 1, HELD = 2 };
/* A state, and the bit of the event that tells of it. */
enum { OK, ABOVE, BELOW, SIDES };
static const uint8_t KINDS[SIDES] = {4, 1, 2};

/* standing.WATCHED */
typedef struct {
    int64_t series, newest;
    double low, high;
    int64_t mute_until, since, pending_since;
    uint8_t state, pending, told, flags, alarmed, unused[3];
} Watched;
_Static_assert(sizeof(Watched) == 64, "as numpy lays it out");

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

/* A series of the batch. In range is what is finite and inside its limits. */
typedef struct {
    double low, high;
    int64_t newest;
    size_t number; /* of its case, from 1; 0 for none */
} Place;

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
    Watched *rows;
    size_t rows_count;
    int64_t now_us;
    Place *places;
    Case *cases;
    size_t cases_count, unknown, odd;
} Call;

static void note(Call *call, Place *place)
{
    if (!place->number)
        place->number = ++call->cases_count;
}

static int learn_places(Call *call)
{
    for (size_t p = 0; p < call->series; p++) {
        if (call->slots[p] < 0 || (uint64_t)call->slots[p] >= call->rows_count) {
            PyErr_SetString(PyExc_ValueError, "a slot beyond the rows");
            return -1;
        }
        const Watched *row = &call->rows[call->slots[p]];
        Place *place = &call->places[p];
        place->low = row->low < -DBL_MAX ? -DBL_MAX : row->low;
        place->high = row->high > DBL_MAX ? DBL_MAX : row->high;
        place->newest = row->newest;
        place->number = 0;
        if (row->alarmed)
            note(call, place);
    }
    return 0;
}

/* Finds cases; and the newest readings of what is none. */
static int look(Call *call)
{
    for (size_t n = 0; n < call->readings; n++) {
        if (call->index[n] >= call->series) {
            PyErr_SetString(PyExc_ValueError, "a reading of no series");
            return -1;
        }
        Place *place = &call->places[call->index[n]];
        double value = call->values[n];
        if (value >= place->low && value <= place->high) {
            if (call->at_us[n] > place->newest)
                place->newest = call->at_us[n];
        } else {
            const Watched *row = &call->rows[call->slots[call->index[n]]];
            if (value > row->high || value < row->low)
                note(call, place);
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
    call->cases = PyMem_Calloc(call->cases_count + 1, sizeof(Case));
    if (call->cases == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t p = 0; p < call->series; p++) {
        if (call->places[p].number) {
            Case *one = &call->cases[call->places[p].number - 1];
            one->now = call->rows[call->slots[p]];
            one->odd = is_odd(call, &one->now);
            call->unknown += one->now.newest == TIME_UNKNOWN;
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
    if (at_us < now->newest || !isfinite(value)) {
        one->odd = 1;
        return;
    }
    now->newest = at_us;
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
        size_t number = call->places[call->index[n]].number;
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

/* What came of all: the rows move on, and events and the places of what is odd are written. */
static PyObject *settle(Call *call)
{
    size_t events = 0, written = 0;
    for (size_t n = 0; n < call->cases_count; n++) {
        if (call->cases[n].odd)
            call->odd++;
        else
            events += tell(&call->cases[n], NULL);
    }
    PyObject *found = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(events * sizeof(Transition)));
    PyObject *odd = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(call->odd * sizeof(uint32_t)));
    PyObject *answer = found == NULL || odd == NULL ? NULL : PyTuple_Pack(2, found, odd);
    if (answer != NULL) {
        char *into = PyBytes_AsString(found), *odd_into = PyBytes_AsString(odd);
        for (size_t p = 0; p < call->series; p++) {
            Watched *row = &call->rows[call->slots[p]];
            size_t number = call->places[p].number;
            if (!number) {
                row->newest = call->places[p].newest;
                continue;
            }
            const Case *one = &call->cases[number - 1];
            if (one->odd) {
                uint32_t place = (uint32_t)p;
                memcpy(odd_into, &place, sizeof place);
                odd_into += sizeof place;
                continue;
            }
            written += tell(one, into + written * sizeof(Transition));
            *row = one->now;
            row->alarmed = one->now.state != OK;
        }
    }
    Py_XDECREF(found);
    Py_XDECREF(odd);
    return answer;
}

static PyObject *judge_call(Call *call)
{
    call->places = PyMem_Malloc((call->series + 1) * sizeof(Place));
    if (call->places == NULL)
        return PyErr_NoMemory();
    PyObject *answer = NULL;
    if (learn_places(call) == 0 && look(call) == 0 && open_cases(call) == 0) {
        if (call->unknown) {
            answer = Py_NewRef(Py_None);
        } else {
            if (call->cases_count)
                walk(call);
            answer = settle(call);
        }
    }
    PyMem_Free(call->cases);
    PyMem_Free(call->places);
    return answer;
}

static PyObject *judge(PyObject *Py_UNUSED(self), PyObject *args)
{
    Py_buffer index, at_us, values, slots, rows;
    long long now_us;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*L:judge", &index, &at_us, &values, &slots, &rows, &now_us))
        return NULL;
    Call call = {
        .index = index.buf, .at_us = at_us.buf, .values = values.buf, .slots = slots.buf, .rows = rows.buf,
        .readings = (size_t)index.len / sizeof(uint32_t),
        .series = (size_t)slots.len / sizeof(int64_t),
        .rows_count = (size_t)rows.len / sizeof(Watched),
        .now_us = now_us,
    };
    PyObject *answer = NULL;
    if ((size_t)at_us.len != call.readings * sizeof(int64_t) || at_us.len != values.len)
        PyErr_SetString(PyExc_ValueError, "columns of several lengths");
    else
        answer = judge_call(&call);
    PyBuffer_Release(&index);
    PyBuffer_Release(&at_us);
    PyBuffer_Release(&values);
    PyBuffer_Release(&slots);
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
