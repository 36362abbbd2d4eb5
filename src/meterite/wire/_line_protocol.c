/* Line protocol in one pass over the bytes. The grammar, and all errors, are line_protocol.py's.

What this file guarantees: a body is decoded as the plain decoder would, or not at all. Whatever is odd (an error, a
number or a name beyond the common, more readings than a request may have) is doubt: `decode` answers None, and the
plain decoder says what it is. Nothing is read outside the body, whose end is compared at every step. The time is
linear in the body. */

#define MODULE "meterite.wire._line_protocol"
#include "_decoder.h"

#include <float.h>
#include <math.h>

#define NO_TIME INT64_MIN
#define NUMBER_BYTES_MAX 63
#define DIGITS_MAX 19 /* fit into 64 bits */

typedef enum { AUTO, NS, US, MS, S, M, H, UNITS } Unit;

static const char *const unit_names[UNITS] = {"auto", "ns", "us", "ms", "s", "m", "h"};
static const int64_t unit_us[UNITS] = {0, 0, 1, 1000, 1000000, 60000000, 3600000000};

/* A call's own state. */
typedef struct {
    Kept *kept;
    uint64_t number; /* of this call */
    int64_t first_us, last_us;
    const char *at, *end;
    int64_t line;
    Unit unit;
    size_t readings_max, skipped;
    PyObject *keys; /* list: the distinct ones, in the order in which they came */
    Rows places, times, values, lines;
} Call;

/* ------------------------------------------------------------------------------------------------------------------
   Values and times. */

static inline int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Whether a value may end here. */
static inline int ends_value(const char *at, const char *end)
{
    return at == end || *at == ',' || *at == ' ' || *at == '\n' || *at == '\r' || *at == '\t';
}

/* Beyond the exact ways: as Python's own float() reads it, whatever the locale. */
static Outcome read_by_python(const char *start, const char *end, double *value)
{
    char text[NUMBER_BYTES_MAX + 1];
    size_t length = (size_t)(end - start);
    if (length > NUMBER_BYTES_MAX)
        return DOUBT;
    memcpy(text, start, length);
    text[length] = 0;
    char *stopped = NULL;
    *value = PyOS_string_to_double(text, &stopped, NULL);
    if (PyErr_Occurred())
        PyErr_Clear();
    else if (stopped == text + length && isfinite(*value))
        return DONE;
    return DOUBT;
}

/* A decimal: where mantissa and power of ten are both exact as doubles, one operation rounds once (Clinger, 1990). */
static Outcome decimal(
    const char *start, const char *end, int negative, uint64_t mantissa, size_t digits, int64_t power, double *value)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (FLT_EVAL_METHOD != 0 || digits > DIGITS_MAX || mantissa > UINT64_C(1) << 53 || power < -22 || power > 22)
        return read_by_python(start, end, value);
    double x = power < 0 ? (double)mantissa / powers[-power] : (double)mantissa * powers[power];
    *value = negative ? -x : x;
    return DONE;
}

static Outcome integer(char suffix, int negative, uint64_t size, size_t digits, double *value)
{
    uint64_t size_max = suffix == 'u' ? (negative ? 0 : UINT64_MAX) : (uint64_t)INT64_MAX + (negative ? 1 : 0);
    if (digits > DIGITS_MAX || size > size_max)
        return DOUBT;
    *value = negative && size ? -(double)size : (double)size;
    return DONE;
}

static Outcome read_switch(Call *call, double *value)
{
    static const char *const words[] = {"t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"};
    const char *start = call->at, *at = start;
    while (at - start < 6 && !ends_value(at, call->end))
        at++;
    size_t length = (size_t)(at - start);
    for (int n = 0; n < 10; n++)
        if (strlen(words[n]) == length && memcmp(words[n], start, length) == 0) {
            *value = n < 5;
            call->at = at;
            return DONE;
        }
    return DOUBT;
}

static Outcome read_value(Call *call, double *value)
{
    const char *start = call->at, *at = start, *end = call->end;
    int negative = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    uint64_t mantissa = 0; /* wraps where there are more digits than are ever used */
    const char *first = at;
    for (; at < end && is_digit(*at); at++)
        mantissa = mantissa * 10 + (uint64_t)(*at - '0');
    size_t digits = (size_t)(at - first);
    if (digits && at < end && (*at == 'i' || *at == 'u')) {
        if (!ends_value(at + 1, end))
            return DOUBT;
        call->at = at + 1;
        return integer(*at, negative, mantissa, digits, value);
    }
    int64_t power = 0;
    if (at < end && *at == '.') {
        const char *point = ++at;
        for (; at < end && is_digit(*at); at++)
            mantissa = mantissa * 10 + (uint64_t)(*at - '0');
        power = point - at;
        digits += (size_t)(at - point);
    }
    if (!digits)
        return at == start ? read_switch(call, value) : DOUBT;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        int down = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+'))
            at++;
        int64_t exponent = 0;
        const char *digit = at;
        for (; at < end && is_digit(*at); at++)
            exponent = exponent < 100000 ? exponent * 10 + (*at - '0') : exponent;
        if (at == digit)
            return DOUBT;
        power += down ? -exponent : exponent;
    }
    if (!ends_value(at, end))
        return DOUBT;
    call->at = at;
    return decimal(start, at, negative, mantissa, digits, power, value);
}

/* A text, which is skipped: it may hold anything, line feeds, too. */
static Outcome skip_text(Call *call, int64_t *feeds)
{
    const char *at = call->at + 1, *end = call->end;
    for (; at < end && *at != '"'; at++) {
        if (*at == '\\' && ++at == end)
            return DOUBT;
        *feeds += *at == '\n';
    }
    if (at == end || !ends_value(at + 1, end))
        return DOUBT;
    call->at = at + 1;
    call->skipped++;
    return DONE;
}

static inline int64_t floored(int64_t number, int64_t by)
{
    return number / by - (number % by < 0);
}

static Outcome scaled(const Call *call, Unit unit, int negative, uint64_t size, int64_t *at_us)
{
    if (size > INT64_MAX)
        return DOUBT;
    if (unit == AUTO)
        unit = size < UINT64_C(5000000000) ? S : size < UINT64_C(5000000000000) ? MS
               : size < UINT64_C(5000000000000000)                              ? US
                                                                                : NS;
    int64_t time = negative ? -(int64_t)size : (int64_t)size;
    if (unit == NS)
        *at_us = floored(time, 1000);
    else if (time > INT64_MAX / unit_us[unit] || time < INT64_MIN / unit_us[unit])
        return DOUBT;
    else
        *at_us = time * unit_us[unit];
    return call->first_us <= *at_us && *at_us <= call->last_us ? DONE : DOUBT;
}

static inline const char *behind_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    return at;
}

/* The time behind the fields, if one is there, and the line's end. */
static Outcome read_tail(Call *call, int64_t *at_us)
{
    const char *end = call->end, *at = behind_blanks(call->at, end);
    *at_us = NO_TIME;
    if (at < end && *at != '\r' && *at != '\n') {
        int negative = *at == '-';
        if (*at == '-' || *at == '+')
            at++;
        uint64_t size = 0;
        const char *first = at;
        for (; at < end && is_digit(*at); at++)
            size = size * 10 + (uint64_t)(*at - '0');
        if (at == first || at - first > DIGITS_MAX)
            return DOUBT;
        Unit unit = call->unit;
        if (at < end && (*at == 't' || *at == 'n'))
            unit = *at++ == 't' ? US : NS;
        if (scaled(call, unit, negative, size, at_us) != DONE)
            return DOUBT;
        at = behind_blanks(at, end);
    }
    if (at < end && *at == '\r')
        at++;
    if (at < end && *at != '\n')
        return DOUBT;
    call->at = at < end ? at + 1 : at;
    return DONE;
}

/* ------------------------------------------------------------------------------------------------------------------
   Lines. */

/* Behind backslashes one more is taken, whatever it is, but a line feed. */
static inline const char *behind_backslashes(const char *at, const char *end)
{
    while (at < end && *at == '\\')
        at++;
    return at < end && *at != '\n' ? at + 1 : at;
}

/* The key that begins here; `at` is then at the space behind it. */
static Outcome read_key(Call *call, uint32_t *number)
{
    Kept *kept = call->kept;
    const char *start = call->at, *at = start, *end = call->end;
    if (kept->last_key != NONE && key_at(kept, kept->last_key)->next != NONE) {
        uint32_t guess = key_at(kept, kept->last_key)->next;
        const Key *key = key_at(kept, guess);
        if ((size_t)(end - at) > key->length && at[key->length] == ' ' && same(kept, key->at, at, key->length)) {
            call->at = at + key->length;
            *number = kept->last_key = guess;
            return DONE;
        }
    }
    while (at < end && *at != ' ' && *at != '\n')
        at = *at == '\\' ? behind_backslashes(at, end) : at + 1;
    size_t length = (size_t)(at - start);
    if (at == end || *at != ' ' || !length || length > KEY_BYTES_MAX)
        return DOUBT;
    uint64_t hash = hash_of(kept, 0, start, length);
    *number = known_key(kept, hash, start, length);
    if (*number == NONE) {
        Outcome outcome = keep_key(kept, hash, start, length, number);
        if (outcome != DONE)
            return outcome;
    }
    if (kept->last_key != NONE)
        key_at(kept, kept->last_key)->next = *number;
    kept->last_key = *number;
    call->at = at;
    return DONE;
}

static Outcome append(Call *call, uint32_t number, double value)
{
    size_t n = call->values.count;
    if (n >= call->readings_max)
        return DOUBT;
    if (!has_room(&call->places, 1, sizeof(uint32_t)) || !has_room(&call->values, 1, sizeof(double)))
        return no_memory();
    Series *series = series_at(call->kept, field_at(call->kept, number)->series);
    if (series->call != call->number) {
        series->place = (uint32_t)PyList_Size(call->keys);
        if (PyList_Append(call->keys, series->key) < 0)
            return FAILED;
        series->call = call->number;
    }
    ((uint32_t *)call->places.items)[n] = series->place;
    ((double *)call->values.items)[n] = value;
    call->places.count++;
    call->values.count++;
    return DONE;
}

/* One field, and what is to be said of it; `before` is the one that stands before it in the line. */
static Outcome read_field(Call *call, uint32_t key, uint32_t *before, int64_t *feeds)
{
    Kept *kept = call->kept;
    const char *start = call->at, *at = start, *end = call->end;
    uint32_t number = *before == NONE ? key_at(kept, key)->first : field_at(kept, *before)->next;
    if (number != NONE) {
        const Field *guess = field_at(kept, number);
        if ((size_t)(end - at) > guess->length && at[guess->length] == '=' &&
            same(kept, guess->at, at, guess->length))
            at += guess->length;
        else
            number = NONE;
    }
    if (number == NONE) {
        while (at < end && *at != ',' && *at != '=' && *at != ' ' && *at != '\n')
            at = *at == '\\' ? behind_backslashes(at, end) : at + 1;
        if (at == start || at == end || *at != '=')
            return DOUBT;
    }
    call->at = at + 1;
    if (call->at < end && *call->at == '"')
        return skip_text(call, feeds);
    double value;
    Outcome outcome = DONE;
    if (number == NONE)
        outcome = find_field(kept, key, *before, start, (size_t)(at - start), &number);
    if (outcome == DONE)
        outcome = read_value(call, &value);
    if (outcome == DONE)
        outcome = append(call, number, value);
    *before = number;
    return outcome;
}

static Outcome read_line(Call *call)
{
    uint32_t key, before = NONE;
    size_t readings = call->times.count;
    int64_t at_us, feeds = 0;
    Outcome outcome = read_key(call, &key);
    if (outcome != DONE)
        return outcome;
    call->at = behind_blanks(call->at, call->end);
    for (;;) {
        outcome = read_field(call, key, &before, &feeds);
        if (outcome != DONE)
            return outcome;
        if (call->at == call->end || *call->at != ',')
            break;
        call->at++;
    }
    outcome = read_tail(call, &at_us);
    if (outcome != DONE)
        return outcome;
    readings = call->values.count - readings;
    if (!has_room(&call->times, readings, sizeof(int64_t)) || !has_room(&call->lines, readings, sizeof(int64_t)))
        return no_memory();
    for (; readings; readings--) {
        ((int64_t *)call->times.items)[call->times.count++] = at_us;
        ((int64_t *)call->lines.items)[call->lines.count++] = call->line;
    }
    call->line += feeds + 1;
    return DONE;
}

static Outcome read_body(Call *call)
{
    Outcome outcome = DONE;
    if (call->end - call->at >= 3 && memcmp(call->at, "\xef\xbb\xbf", 3) == 0)
        call->at += 3;
    while (outcome == DONE && call->at < call->end) {
        char c = *call->at;
        if (c == ' ' || c == '\t' || c == '\r' || c == 0) {
            call->at++;
        } else if (c == '\n') {
            call->at++;
            call->line++;
        } else if (c == '#') {
            const char *feed = memchr(call->at, '\n', (size_t)(call->end - call->at));
            call->at = feed == NULL ? call->end : feed;
        } else {
            outcome = read_line(call);
        }
    }
    return outcome;
}

/* ------------------------------------------------------------------------------------------------------------------
   What Python sees. */

static PyObject *columns(const Call *call)
{
    PyObject *each[4] = {column(&call->places, sizeof(uint32_t)), column(&call->times, sizeof(int64_t)),
                         column(&call->values, sizeof(double)), column(&call->lines, sizeof(int64_t))};
    PyObject *made = NULL;
    if (each[0] != NULL && each[1] != NULL && each[2] != NULL && each[3] != NULL)
        made = Py_BuildValue(
            "OOOOOn", call->keys, each[0], each[1], each[2], each[3], (Py_ssize_t)call->skipped);
    for (int n = 0; n < 4; n++)
        Py_XDECREF(each[n]);
    return made;
}

static PyObject *decoder_decode(Decoder *self, PyObject *args)
{
    Call call = {.line = 1};
    const char *unit;
    PyObject *body;
    char *bytes;
    Py_ssize_t length, readings_max;
    if (!PyArg_ParseTuple(args, "Ssn:decode", &body, &unit, &readings_max) ||
        PyBytes_AsStringAndSize(body, &bytes, &length) < 0)
        return NULL;
    while (call.unit < UNITS && strcmp(unit, unit_names[call.unit]) != 0)
        call.unit++;
    if (call.unit == UNITS || readings_max < 0) {
        PyErr_SetString(PyExc_ValueError, "a unit that isn't known, or a negative count");
        return NULL;
    }
    if (self->busy) /* another thread's, while the interpreter was lent to it */
        Py_RETURN_NONE;
    call.kept = &self->kept;
    call.first_us = self->first_us;
    call.last_us = self->last_us;
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
    release(&call.lines);
    return answer;
}

PyMODINIT_FUNC PyInit__line_protocol(void)
{
    return PyModuleDef_Init(&module);
}
