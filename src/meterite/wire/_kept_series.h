/* Series, kept from call to call by the raw bytes that they were written in.

What this file guarantees: what is kept is bounded by bytes, and emptied when it is full; hashes are keyed
(SipHash-1-3), so that nobody can make them collide.

A `Key` is measurement and tags, a `Field` the name of one of its fields. A field leads to its `Series`; two ways to
write one series lead to one. Who comes after whom is remembered, since agents send the same series in the same order:
the guess is one comparison of bytes, and hashes are made only where it fails.

Numbers in `uint32_t` count keys, fields and series from 0; `NONE` is none. Pointers into what may grow are never held
across a call that may make it grow. */

#define NONE UINT32_MAX
#define COUNT_MAX (UINT32_MAX / 4)
#define KEY_BYTES_MAX 16384
#define NAME_BYTES_MAX 4096

/* What an entry costs beside its raw bytes, Python's objects included, by measuring; labels are charged by the tag. */
#define KEY_COST 300
#define TAG_COST 150
#define FIELD_COST 500

typedef enum { DONE, DOUBT, FAILED /* a Python exception is set */ } Outcome;

typedef struct {
    size_t at; /* in the arena */
    uint32_t length;
    uint32_t next;  /* the key that came behind it */
    uint32_t first; /* its field that came first; the series, where keys have no fields */
    PyObject *parsed;
} Key;

typedef struct {
    size_t at;
    uint32_t length;
    uint32_t key;
    uint32_t next; /* the field that came behind it */
    uint32_t series;
} Field;

typedef struct {
    PyObject *key; /* a SeriesKey */
    uint64_t call; /* the last one that had it, and its place there */
    uint32_t place;
} Series;

/* Anything that grows by doubling. */
typedef struct {
    void *items;
    size_t count, room;
} Rows;

typedef struct {
    uint64_t hash;
    uint32_t number; /* + 1; 0: a free slot */
} Slot;

typedef struct {
    Slot *slots;
    size_t room, count; /* room is a power of two, at least twice the count, or 0 */
} Table;

typedef struct {
    PyObject *parse_key, *name_series; /* called with what is new */
    PyObject *numbers;                 /* dict: SeriesKey -> its number */
    uint64_t seed[2];
    size_t bytes, bytes_max;
    uint32_t last_key; /* that was read */
    Rows arena, keys, fields, series;
    Table keys_by_hash, fields_by_hash;
} Kept;

/* ------------------------------------------------------------------------------------------------------------------
   Memory. */

static inline int grow(Rows *rows, size_t more, size_t size)
{
    if (more > SIZE_MAX / 4 / size - rows->count)
        return 0;
    size_t needed = rows->count + more, room = rows->room ? rows->room : 64;
    while (room < needed)
        room *= 2;
    void *items = PyMem_Realloc(rows->items, room * size);
    if (items == NULL)
        return 0;
    rows->items = items;
    rows->room = room;
    return 1;
}

static inline int has_room(Rows *rows, size_t more, size_t size)
{
    return more <= rows->room - rows->count || grow(rows, more, size);
}

static inline void release(Rows *rows)
{
    PyMem_Free(rows->items);
    *rows = (Rows){0};
}

static inline Outcome no_memory(void)
{
    PyErr_NoMemory();
    return FAILED;
}

static inline Key *key_at(Kept *kept, uint32_t number)
{
    return (Key *)kept->keys.items + number;
}

static inline Field *field_at(Kept *kept, uint32_t number)
{
    return (Field *)kept->fields.items + number;
}

static inline Series *series_at(Kept *kept, uint32_t number)
{
    return (Series *)kept->series.items + number;
}

/* Whether these bytes are those of the arena; NULL with 0 bytes is compared with nothing. */
static inline int same(Kept *kept, size_t at, const char *bytes, size_t length)
{
    return memcmp((const char *)kept->arena.items + at, bytes, length) == 0;
}

static inline void forget(Kept *kept)
{
    for (size_t n = 0; n < kept->keys.count; n++)
        Py_CLEAR(key_at(kept, (uint32_t)n)->parsed);
    for (size_t n = 0; n < kept->series.count; n++)
        Py_CLEAR(series_at(kept, (uint32_t)n)->key);
    release(&kept->arena);
    release(&kept->keys);
    release(&kept->fields);
    release(&kept->series);
    PyMem_Free(kept->keys_by_hash.slots);
    PyMem_Free(kept->fields_by_hash.slots);
    kept->keys_by_hash = kept->fields_by_hash = (Table){0};
    kept->bytes = 0;
    kept->last_key = NONE;
    if (kept->numbers != NULL)
        PyDict_Clear(kept->numbers);
}

/* Account for what is about to be kept. Where it doesn't fit, all is forgotten, and this body is the plain decoder's. */
static inline Outcome charge(Kept *kept, size_t bytes)
{
    kept->bytes += bytes;
    if (kept->bytes <= kept->bytes_max && kept->fields.count < COUNT_MAX)
        return DONE;
    forget(kept);
    return DOUBT;
}
/* ------------------------------------------------------------------------------------------------------------------
   Hashing: SipHash-1-3 of a number and bytes. */

#define ROTATED(x, by) ((x) << (by) | (x) >> (64 - (by)))

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = ROTATED(v[1], 13) ^ v[0], v[0] = ROTATED(v[0], 32);
    v[2] += v[3], v[3] = ROTATED(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = ROTATED(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = ROTATED(v[1], 17) ^ v[2], v[2] = ROTATED(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

static inline uint64_t hash_of(const Kept *kept, uint64_t number, const char *bytes, size_t length)
{
    uint64_t v[4] = {kept->seed[0] ^ 0x736f6d6570736575, kept->seed[1] ^ 0x646f72616e646f6d,
                     kept->seed[0] ^ 0x6c7967656e657261, kept->seed[1] ^ 0x7465646279746573};
    uint64_t word, left = (uint64_t)(length + 8) << 56;
    sip_word(v, number);
    for (; length >= 8; bytes += 8, length -= 8) {
        memcpy(&word, bytes, 8);
        sip_word(v, word);
    }
    for (size_t n = 0; n < length; n++)
        left |= (uint64_t)(unsigned char)bytes[n] << (8 * n);
    sip_word(v, left);
    v[2] ^= 0xff;
    sip_round(v), sip_round(v), sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static inline void put(Table *table, uint64_t hash, uint32_t number)
{
    size_t n = hash & (table->room - 1);
    while (table->slots[n].number)
        n = (n + 1) & (table->room - 1);
    table->slots[n] = (Slot){hash, number + 1};
    table->count++;
}

static inline int table_has_room(Table *table)
{
    if (table->count < table->room / 2)
        return 1;
    Table larger = {NULL, table->room ? table->room * 2 : 64, 0};
    if (larger.room > SIZE_MAX / sizeof(Slot))
        return 0;
    larger.slots = PyMem_Calloc(larger.room, sizeof(Slot));
    if (larger.slots == NULL)
        return 0;
    for (size_t n = 0; n < table->room; n++)
        if (table->slots[n].number)
            put(&larger, table->slots[n].hash, table->slots[n].number - 1);
    PyMem_Free(table->slots);
    *table = larger;
    return 1;
}
/* ------------------------------------------------------------------------------------------------------------------
   Measurement and tags. */

static inline uint32_t known_key(Kept *kept, uint64_t hash, const char *bytes, size_t length)
{
    const Table *table = &kept->keys_by_hash;
    if (!table->room)
        return NONE;
    for (size_t n = hash & (table->room - 1); table->slots[n].number; n = (n + 1) & (table->room - 1)) {
        uint32_t number = table->slots[n].number - 1;
        const Key *key = key_at(kept, number);
        if (table->slots[n].hash == hash && key->length == length && same(kept, key->at, bytes, length))
            return number;
    }
    return NONE;
}

static inline Outcome keep_key(Kept *kept, uint64_t hash, const char *bytes, size_t length, uint32_t *number)
{
    size_t tags = 0;
    for (size_t n = 0; n < length; n++)
        tags += bytes[n] == ',';
    Outcome outcome = charge(kept, KEY_COST + tags * TAG_COST + length * 2);
    if (outcome != DONE)
        return outcome;
    if (!has_room(&kept->arena, length, 1) || !has_room(&kept->keys, 1, sizeof(Key)) ||
        !table_has_room(&kept->keys_by_hash))
        return no_memory();
    PyObject *parsed = PyObject_CallFunction(kept->parse_key, "y#", bytes, (Py_ssize_t)length);
    if (parsed == NULL)
        return FAILED;
    if (parsed == Py_None) {
        Py_DECREF(parsed);
        return DOUBT;
    }
    *number = (uint32_t)kept->keys.count;
    memcpy((char *)kept->arena.items + kept->arena.count, bytes, length);
    *key_at(kept, *number) = (Key){kept->arena.count, (uint32_t)length, NONE, NONE, parsed};
    kept->arena.count += length;
    kept->keys.count++;
    put(&kept->keys_by_hash, hash, *number);
    return DONE;
}

/* ------------------------------------------------------------------------------------------------------------------
   Fields. */

static inline uint32_t known_field(Kept *kept, uint64_t hash, uint32_t key, const char *bytes, size_t length)
{
    const Table *table = &kept->fields_by_hash;
    if (!table->room)
        return NONE;
    for (size_t n = hash & (table->room - 1); table->slots[n].number; n = (n + 1) & (table->room - 1)) {
        uint32_t number = table->slots[n].number - 1;
        const Field *field = field_at(kept, number);
        if (table->slots[n].hash == hash && field->key == key && field->length == length &&
            same(kept, field->at, bytes, length))
            return number;
    }
    return NONE;
}

/* The number of a series, a new one where it is; room is there. */
static inline Outcome number_series(Kept *kept, PyObject *key, uint32_t *number)
{
    PyObject *known = PyDict_GetItemWithError(kept->numbers, key);
    if (known != NULL) {
        *number = (uint32_t)PyLong_AsUnsignedLong(known);
        return DONE;
    }
    if (PyErr_Occurred())
        return FAILED;
    PyObject *new = PyLong_FromSize_t(kept->series.count);
    int failed = new == NULL || PyDict_SetItem(kept->numbers, key, new) < 0;
    Py_XDECREF(new);
    if (failed)
        return FAILED;
    *number = (uint32_t)kept->series.count++;
    *series_at(kept, *number) = (Series){Py_NewRef(key), 0, 0};
    return DONE;
}

static inline Outcome keep_field(
    Kept *kept, uint64_t hash, uint32_t key, const char *bytes, size_t length, uint32_t *number)
{
    Outcome outcome = charge(kept, FIELD_COST + length * 3);
    if (outcome != DONE)
        return outcome;
    if (!has_room(&kept->arena, length, 1) || !has_room(&kept->fields, 1, sizeof(Field)) ||
        !has_room(&kept->series, 1, sizeof(Series)) || !table_has_room(&kept->fields_by_hash))
        return no_memory();
    PyObject *made =
        PyObject_CallFunction(kept->name_series, "Oy#", key_at(kept, key)->parsed, bytes, (Py_ssize_t)length);
    if (made == NULL)
        return FAILED;
    uint32_t series = NONE;
    outcome = made == Py_None ? DOUBT : number_series(kept, made, &series);
    Py_DECREF(made);
    if (outcome != DONE)
        return outcome;
    *number = (uint32_t)kept->fields.count;
    memcpy((char *)kept->arena.items + kept->arena.count, bytes, length);
    *field_at(kept, *number) = (Field){kept->arena.count, (uint32_t)length, key, NONE, series};
    kept->arena.count += length;
    kept->fields.count++;
    put(&kept->fields_by_hash, hash, *number);
    return DONE;
}

/* The field with this name, which stands behind `before` in its line. */
static inline Outcome find_field(
    Kept *kept, uint32_t key, uint32_t before, const char *bytes, size_t length, uint32_t *number)
{
    if (!length || length > NAME_BYTES_MAX)
        return DOUBT;
    uint64_t hash = hash_of(kept, (uint64_t)key + 1, bytes, length);
    *number = known_field(kept, hash, key, bytes, length);
    if (*number == NONE) {
        Outcome outcome = keep_field(kept, hash, key, bytes, length, number);
        if (outcome != DONE)
            return outcome;
    }
    if (before == NONE)
        key_at(kept, key)->first = *number;
    else
        field_at(kept, before)->next = *number;
    return DONE;
}
