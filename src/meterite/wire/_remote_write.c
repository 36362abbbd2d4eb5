/* Prometheus' remote write 1.0 in one pass over the bytes. What its messages mean, and all errors, are remote_write.py's.

    message WriteRequest { repeated TimeSeries timeseries = 1; }
    message TimeSeries { repeated Label labels = 1; repeated Sample samples = 2; }
    message Sample { double value = 1; int64 timestamp = 2; }

What this file guarantees: a body is decoded as the plain decoder would, or not at all. It takes what senders write:
series, each with its labels first and at least one sample behind them, fields in the order of their numbers. Whatever
else is there is doubt: `decode` answers None, and the plain decoder says what it is. Nothing is read outside the body,
whose end is compared at every step. The time is linear in the body. Every bit of a NaN is kept.

Series are known by the bytes of all their labels; those are a `Key` without fields. */

#define MODULE "meterite.wire._remote_write"
#include "_decoder.h"

#define SERIES_TAG (1 << 3 | 2)
#define LABEL_TAG (1 << 3 | 2)
#define SAMPLE_TAG (2 << 3 | 2)
#define VALUE_TAG (1 << 3 | 1)
#define AT_TAG (2 << 3)
#define VARINT_BYTES_MAX 10
#define MS_US 1000

/* A call's own state. */
typedef struct {
    Kept *kept;
    uint64_t number; /* of this call */
    int64_t first_us, last_us;
    const char *at, *end;
    size_t readings_max;
    PyObject *keys; /* list: the distinct ones, in the order in which they came */
    Rows places, times, values;
} Call;

static Outcome read_varint(Call *call, const char *end, uint64_t *value)
{
    const char *at = call->at;
    *value = 0;
    for (int shift = 0; at < end && at - call->at < VARINT_BYTES_MAX; shift += 7) {
        uint64_t byte = (unsigned char)*at++;
        if (shift == 63 && byte > 1)
            return DOUBT;
        *value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            call->at = at;
            return DONE;
        }
    }
    return DOUBT;
}

/* The end of a field whose length stands here, and which lies within what holds it; `at` is then at its first byte. */
static Outcome read_length(Call *call, const char *end, const char **field_end)
{
    uint64_t length;
    if (read_varint(call, end, &length) != DONE || length > (uint64_t)(end - call->at))
        return DOUBT;
    *field_end = call->at + length;
    return DONE;
}

static Outcome keep_series(
    Kept *kept, uint64_t hash, const char *bytes, size_t length, size_t labels, uint32_t *number)
{
    Outcome outcome = charge(kept, FIELD_COST + labels * TAG_COST);
    if (outcome == DONE && !has_room(&kept->series, 1, sizeof(Series)))
        outcome = no_memory();
    if (outcome == DONE)
        outcome = keep_key(kept, hash, bytes, length, number);
    if (outcome == DONE)
        outcome = number_series(kept, key_at(kept, *number)->parsed, &key_at(kept, *number)->first);
    if (outcome == FAILED)
        forget(kept); /* no key is without its series */
    return outcome;
}

/* The series whose labels begin here; `at` is then at its first sample. */
static Outcome read_labels(Call *call, const char *end, uint32_t *number)
{
    Kept *kept = call->kept;
    const char *start = call->at, *label_end;
    if (kept->last_key != NONE && key_at(kept, kept->last_key)->next != NONE) {
        uint32_t guess = key_at(kept, kept->last_key)->next;
        const Key *key = key_at(kept, guess);
        if ((size_t)(end - start) > key->length && start[key->length] == SAMPLE_TAG &&
            same(kept, key->at, start, key->length)) {
            call->at = start + key->length;
            *number = kept->last_key = guess;
            return DONE;
        }
    }
    size_t labels = 0;
    for (; call->at < end && *call->at == LABEL_TAG; labels++) {
        call->at++;
        if (read_length(call, end, &label_end) != DONE)
            return DOUBT;
        call->at = label_end;
    }
    size_t length = (size_t)(call->at - start);
    if (call->at == end || *call->at != SAMPLE_TAG || !length || length > KEY_BYTES_MAX)
        return DOUBT;
    uint64_t hash = hash_of(kept, 0, start, length);
    *number = known_key(kept, hash, start, length);
    if (*number == NONE) {
        Outcome outcome = keep_series(kept, hash, start, length, labels, number);
        if (outcome != DONE)
            return outcome;
    }
    if (kept->last_key != NONE)
        key_at(kept, kept->last_key)->next = *number;
    kept->last_key = *number;
    return DONE;
}

static Outcome read_sample(Call *call, const char *end, uint64_t *bits, int64_t *at_us)
{
    uint64_t time = 0;
    *bits = 0;
    if (end - call->at >= 9 && *call->at == VALUE_TAG) {
        *bits = 0;
        for (int n = 0; n < 8; n++) /* little-endian, whatever the machine is */
            *bits |= (uint64_t)(unsigned char)call->at[1 + n] << (8 * n);
        call->at += 9;
    }
    if (call->at < end && *call->at == AT_TAG) {
        call->at++;
        if (read_varint(call, end, &time) != DONE)
            return DOUBT;
    }
    /* Beyond int64 is a negative number, in two's complement. */
    int64_t at_ms = time > INT64_MAX ? -(int64_t)(UINT64_MAX - time) - 1 : (int64_t)time;
    if (call->at != end || at_ms > INT64_MAX / MS_US || at_ms < INT64_MIN / MS_US)
        return DOUBT;
    *at_us = at_ms * MS_US;
    return call->first_us <= *at_us && *at_us <= call->last_us ? DONE : DOUBT;
}

static Outcome place_of(Call *call, uint32_t key, uint32_t *place)
{
    Series *series = series_at(call->kept, key_at(call->kept, key)->first);
    if (series->call != call->number) {
        series->place = (uint32_t)PyList_Size(call->keys);
        if (PyList_Append(call->keys, series->key) < 0)
            return FAILED;
        series->call = call->number;
    }
    *place = series->place;
    return DONE;
}

static Outcome read_series(Call *call, const char *end)
{
    uint32_t key, place = 0;
    Outcome outcome = read_labels(call, end, &key);
    if (outcome == DONE)
        outcome = place_of(call, key, &place);
    while (outcome == DONE && call->at < end) {
        size_t n = call->values.count;
        const char *sample_end;
        if (*call->at++ != SAMPLE_TAG || n >= call->readings_max || read_length(call, end, &sample_end) != DONE)
            return DOUBT;
        if (!has_room(&call->places, 1, sizeof(uint32_t)) || !has_room(&call->times, 1, sizeof(int64_t)) ||
            !has_room(&call->values, 1, sizeof(uint64_t)))
            return no_memory();
        outcome = read_sample(
            call, sample_end, (uint64_t *)call->values.items + n, (int64_t *)call->times.items + n);
        ((uint32_t *)call->places.items)[n] = place;
        call->places.count = call->times.count = call->values.count = n + 1;
    }
    return outcome;
}

static Outcome read_body(Call *call)
{
    Outcome outcome = DONE;
    while (outcome == DONE && call->at < call->end) {
        const char *series_end;
        if (*call->at++ != SERIES_TAG || read_length(call, call->end, &series_end) != DONE)
            return DOUBT;
        outcome = read_series(call, series_end);
    }
    return outcome;
}

static PyObject *columns(const Call *call)
{
    PyObject *each[3] = {column(&call->places, sizeof(uint32_t)), column(&call->times, sizeof(int64_t)),
                         column(&call->values, sizeof(uint64_t))};
    PyObject *made = NULL;
    if (each[0] != NULL && each[1] != NULL && each[2] != NULL)
        made = Py_BuildValue("OOOO", call->keys, each[0], each[1], each[2]);
    for (int n = 0; n < 3; n++)
        Py_XDECREF(each[n]);
    return made;
}

static PyObject *decoder_decode(Decoder *self, PyObject *args)
{
    Call call = {.kept = &self->kept, .first_us = self->first_us, .last_us = self->last_us};
    PyObject *body;
    char *bytes;
    Py_ssize_t length, readings_max;
    if (!PyArg_ParseTuple(args, "Sn:decode", &body, &readings_max) ||
        PyBytes_AsStringAndSize(body, &bytes, &length) < 0)
        return NULL;
    if (readings_max < 0) {
        PyErr_SetString(PyExc_ValueError, "a negative count");
        return NULL;
    }
    if (self->busy) /* another thread's, while the interpreter was lent to it */
        Py_RETURN_NONE;
    call.at = bytes;
    call.end = bytes + length;
    call.readings_max = (size_t)readings_max;
    call.keys = PyList_New(0);
    if (call.keys == NULL)
        return NULL;
    self->busy = 1;
    call.number = ++self->calls;
    Outcome outcome = read_body(&call);
    self->busy = 0;
    PyObject *answer = outcome == DONE ? columns(&call) : outcome == DOUBT ? Py_NewRef(Py_None) : NULL;
    Py_DECREF(call.keys);
    release(&call.places);
    release(&call.times);
    release(&call.values);
    return answer;
}

PyMODINIT_FUNC PyInit__remote_write(void)
{
    return PyModuleDef_Init(&module);
}
