/*
 * checkpoint_json.c: JSON values for QMP, with bounded depth and exact numbers
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A value is a small tree.  Numbers stay the text that came in, because QEMU's sizes
 * use all 64 bits unsigned and yajl's own tree has signed integers and doubles only;
 * its tree is not used either because freeing it recurses as deep as the input says.
 * Here the event parser is told to stop at VIR_CHECKPOINT_JSON_MAX_DEPTH.
 *
 * Strings are valid UTF-8 without zero bytes, so a C string holds all of one; both are
 * checked here (yajl 2.1 lets overlong sequences pass).  When a key occurs twice the
 * last one counts, as in most readers.
 */

#include "config.h"

#include "checkpoint_json.h"

#include "checkpoint_error.h"

#include <stdarg.h>
#include <string.h>
#include <yajl/yajl_parse.h>

struct virCheckpointJson {
    virCheckpointJsonType type;
    gboolean flag;    /* BOOLEAN */
    gchar *text;      /* NUMBER, STRING */
    GPtrArray *items; /* ARRAY, OBJECT: virCheckpointJson* */
    GPtrArray *keys;  /* OBJECT: gchar*, as many as items */
};

static virCheckpointJson *
virCheckpointJsonNew(virCheckpointJsonType type)
{
    virCheckpointJson *value = g_new0(virCheckpointJson, 1);

    value->type = type;
    return value;
}

static void
virCheckpointJsonFreeItem(gpointer value)
{
    virCheckpointJsonFree(value);
}

void
virCheckpointJsonFree(virCheckpointJson *value)
{
    if (!value)
        return;
    g_free(value->text);
    g_clear_pointer(&value->items, g_ptr_array_unref);
    g_clear_pointer(&value->keys, g_ptr_array_unref);
    g_free(value);
}

virCheckpointJson *
virCheckpointJsonNewObject(void)
{
    virCheckpointJson *object = virCheckpointJsonNew(VIR_CHECKPOINT_JSON_OBJECT);

    object->items = g_ptr_array_new_with_free_func(virCheckpointJsonFreeItem);
    object->keys = g_ptr_array_new_with_free_func(g_free);
    return object;
}

virCheckpointJson *
virCheckpointJsonNewArray(void)
{
    virCheckpointJson *array = virCheckpointJsonNew(VIR_CHECKPOINT_JSON_ARRAY);

    array->items = g_ptr_array_new_with_free_func(virCheckpointJsonFreeItem);
    return array;
}

static virCheckpointJson *
virCheckpointJsonNewText(virCheckpointJsonType type, gchar *text)
{
    virCheckpointJson *value = virCheckpointJsonNew(type);

    value->text = text;
    return value;
}

virCheckpointJson *
virCheckpointJsonNewString(const gchar *text)
{
    g_assert(text);
    return virCheckpointJsonNewText(VIR_CHECKPOINT_JSON_STRING,
                                    g_utf8_make_valid(text, -1));
}

virCheckpointJson *
virCheckpointJsonNewNull(void)
{
    return virCheckpointJsonNew(VIR_CHECKPOINT_JSON_NULL);
}

virCheckpointJson *
virCheckpointJsonNewBoolean(gboolean flag)
{
    virCheckpointJson *value = virCheckpointJsonNew(VIR_CHECKPOINT_JSON_BOOLEAN);

    value->flag = !!flag;
    return value;
}

virCheckpointJson *
virCheckpointJsonNewUint64(guint64 number)
{
    return virCheckpointJsonNewText(VIR_CHECKPOINT_JSON_NUMBER,
                                    g_strdup_printf("%" G_GUINT64_FORMAT, number));
}

virCheckpointJson *
virCheckpointJsonNewInt64(gint64 number)
{
    return virCheckpointJsonNewText(VIR_CHECKPOINT_JSON_NUMBER,
                                    g_strdup_printf("%" G_GINT64_FORMAT, number));
}

static void
virCheckpointJsonAddMember(virCheckpointJson *object,
                           gchar *key,
                           virCheckpointJson *value)
{
    g_ptr_array_add(object->keys, key);
    g_ptr_array_add(object->items, value);
}

void
virCheckpointJsonAdd(virCheckpointJson *object,
                     const gchar *key,
                     virCheckpointJson *value)
{
    g_assert(object->type == VIR_CHECKPOINT_JSON_OBJECT && key && value);
    virCheckpointJsonAddMember(object, g_utf8_make_valid(key, -1), value);
}

void
virCheckpointJsonAddString(virCheckpointJson *object,
                           const gchar *key,
                           const gchar *text)
{
    virCheckpointJsonAdd(object, key, virCheckpointJsonNewString(text));
}

void
virCheckpointJsonAddBoolean(virCheckpointJson *object, const gchar *key, gboolean flag)
{
    virCheckpointJsonAdd(object, key, virCheckpointJsonNewBoolean(flag));
}

void
virCheckpointJsonAddUint64(virCheckpointJson *object, const gchar *key, guint64 number)
{
    virCheckpointJsonAdd(object, key, virCheckpointJsonNewUint64(number));
}

void
virCheckpointJsonAppend(virCheckpointJson *array, virCheckpointJson *value)
{
    g_assert(array->type == VIR_CHECKPOINT_JSON_ARRAY && value);
    g_ptr_array_add(array->items, value);
}

virCheckpointJson *
virCheckpointJsonBuild(const gchar *key, ...)
{
    virCheckpointJson *object = virCheckpointJsonNewObject();
    virCheckpointJson *value = NULL;
    const gchar *text = NULL;
    va_list ap;

    va_start(ap, key);
    for (; key; key = va_arg(ap, const gchar *)) {
        g_assert(key[0] && key[1] == ':' && key[2]);
        switch (key[0]) {
        case 's':
            text = va_arg(ap, const gchar *);
            value = text ? virCheckpointJsonNewString(text) : NULL;
            break;
        case 'b':
            value = virCheckpointJsonNewBoolean(va_arg(ap, gboolean));
            break;
        case 'u':
            value = virCheckpointJsonNewUint64(va_arg(ap, guint64));
            break;
        case 'i':
            value = virCheckpointJsonNewInt64(va_arg(ap, gint64));
            break;
        case 'a':
            value = va_arg(ap, virCheckpointJson *);
            break;
        default:
            g_assert_not_reached();
        }
        if (value)
            virCheckpointJsonAdd(object, key + 2, value);
    }
    va_end(ap);
    return object;
}

virCheckpointJson *
virCheckpointJsonCopy(const virCheckpointJson *value)
{
    virCheckpointJson *copy = NULL;
    gsize i;

    if (!value)
        return NULL;
    copy = virCheckpointJsonNew(value->type);
    copy->flag = value->flag;
    copy->text = g_strdup(value->text);
    if (value->items)
        copy->items = g_ptr_array_new_with_free_func(virCheckpointJsonFreeItem);
    if (value->keys)
        copy->keys = g_ptr_array_new_with_free_func(g_free);
    for (i = 0; value->items && i < value->items->len; i++) {
        g_ptr_array_add(copy->items,
                        virCheckpointJsonCopy(g_ptr_array_index(value->items, i)));
        if (value->keys)
            g_ptr_array_add(copy->keys, g_strdup(g_ptr_array_index(value->keys, i)));
    }
    return copy;
}

/* Parsing */

typedef struct virCheckpointJsonParser {
    virCheckpointJson *root;
    GPtrArray *open; /* containers that are open, borrowed, outermost first */
    gchar *key;      /* the newest key, until its value begins */
    const gchar *reason;
} virCheckpointJsonParser;

static int
virCheckpointJsonParserAdd(virCheckpointJsonParser *parser, virCheckpointJson *value)
{
    virCheckpointJson *into = NULL;

    if (parser->open->len == 0) {
        /* yajl refuses a second value after the first. */
        virCheckpointJsonFree(parser->root);
        parser->root = value;
        return 1;
    }
    into = g_ptr_array_index(parser->open, parser->open->len - 1);
    if (into->type == VIR_CHECKPOINT_JSON_OBJECT)
        virCheckpointJsonAddMember(into, g_steal_pointer(&parser->key), value);
    else
        virCheckpointJsonAppend(into, value);
    return 1;
}

static int
virCheckpointJsonParserOpen(virCheckpointJsonParser *parser, virCheckpointJson *value)
{
    virCheckpointJsonParserAdd(parser, value);
    if (parser->open->len >= VIR_CHECKPOINT_JSON_MAX_DEPTH) {
        parser->reason = "too deeply nested";
        return 0;
    }
    g_ptr_array_add(parser->open, value);
    return 1;
}

static int
virCheckpointJsonParserClose(void *opaque)
{
    virCheckpointJsonParser *parser = opaque;

    g_ptr_array_set_size(parser->open, (gint)parser->open->len - 1);
    return 1;
}

static int
virCheckpointJsonParserNull(void *opaque)
{
    return virCheckpointJsonParserAdd(opaque,
                                      virCheckpointJsonNew(VIR_CHECKPOINT_JSON_NULL));
}

static int
virCheckpointJsonParserBoolean(void *opaque, int flag)
{
    return virCheckpointJsonParserAdd(opaque, virCheckpointJsonNewBoolean(flag));
}

static int
virCheckpointJsonParserNumber(void *opaque, const char *text, size_t length)
{
    virCheckpointJson *value =
        virCheckpointJsonNewText(VIR_CHECKPOINT_JSON_NUMBER, g_strndup(text, length));

    return virCheckpointJsonParserAdd(opaque, value);
}

static gboolean
virCheckpointJsonParserText(virCheckpointJsonParser *parser,
                            const unsigned char *text,
                            size_t length)
{
    if (length > 0 && memchr(text, 0, length)) {
        parser->reason = "zero character in a string";
        return FALSE;
    }
    return TRUE;
}

static int
virCheckpointJsonParserString(void *opaque, const unsigned char *text, size_t length)
{
    gchar *copy = NULL;

    if (!virCheckpointJsonParserText(opaque, text, length))
        return 0;
    copy = g_strndup((const gchar *)text, length);
    return virCheckpointJsonParserAdd(
        opaque, virCheckpointJsonNewText(VIR_CHECKPOINT_JSON_STRING, copy));
}

static int
virCheckpointJsonParserKey(void *opaque, const unsigned char *text, size_t length)
{
    virCheckpointJsonParser *parser = opaque;

    if (!virCheckpointJsonParserText(parser, text, length))
        return 0;
    g_free(parser->key);
    parser->key = g_strndup((const gchar *)text, length);
    return 1;
}

static int
virCheckpointJsonParserStartObject(void *opaque)
{
    return virCheckpointJsonParserOpen(opaque, virCheckpointJsonNewObject());
}

static int
virCheckpointJsonParserStartArray(void *opaque)
{
    return virCheckpointJsonParserOpen(opaque, virCheckpointJsonNewArray());
}

static const yajl_callbacks virCheckpointJsonCallbacks = {
    .yajl_null = virCheckpointJsonParserNull,
    .yajl_boolean = virCheckpointJsonParserBoolean,
    .yajl_number = virCheckpointJsonParserNumber,
    .yajl_string = virCheckpointJsonParserString,
    .yajl_start_map = virCheckpointJsonParserStartObject,
    .yajl_map_key = virCheckpointJsonParserKey,
    .yajl_end_map = virCheckpointJsonParserClose,
    .yajl_start_array = virCheckpointJsonParserStartArray,
    .yajl_end_array = virCheckpointJsonParserClose,
};

static void
virCheckpointJsonFail(yajl_handle handle, const gchar *reason, GError **error)
{
    unsigned char *text = NULL;

    if (!reason)
        text = yajl_get_error(handle, 0, NULL, 0);
    if (text)
        g_strchomp((gchar *)text);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                "cannot parse JSON at byte %zu: %s", yajl_get_bytes_consumed(handle),
                reason ? reason : (const gchar *)text);
    if (text)
        yajl_free_error(handle, text);
}

virCheckpointJson *
virCheckpointJsonParse(const gchar *text, gssize length, GError **error)
{
    virCheckpointJsonParser parser = {0};
    gsize n = length < 0 ? strlen(text) : (gsize)length;
    virCheckpointJson *root = NULL;
    yajl_handle handle = NULL;
    yajl_status status = yajl_status_ok;
    const gchar *end = NULL;

    if (!g_utf8_validate_len(text, n, &end)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "cannot parse JSON at byte %zu: not UTF-8", (gsize)(end - text));
        return NULL;
    }
    handle = yajl_alloc(&virCheckpointJsonCallbacks, NULL, &parser);
    parser.open = g_ptr_array_new();
    status = yajl_parse(handle, (const unsigned char *)text, n);
    if (status == yajl_status_ok)
        status = yajl_complete_parse(handle);
    if (status == yajl_status_ok)
        root = g_steal_pointer(&parser.root);
    else
        virCheckpointJsonFail(handle, parser.reason, error);

    virCheckpointJsonFree(parser.root);
    g_ptr_array_unref(parser.open);
    g_free(parser.key);
    yajl_free(handle);
    return root;
}

/* Formatting */

static void
virCheckpointJsonFormatString(GString *out, const gchar *text)
{
    const gchar *p = NULL;

    g_string_append_c(out, '"');
    for (p = text; *p; p++) {
        guchar c = (guchar)*p;

        if (c == '"' || c == '\\')
            g_string_append_c(out, '\\');
        if (c < 0x20)
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_c(out, (gchar)c);
    }
    g_string_append_c(out, '"');
}

static void
virCheckpointJsonFormatInto(GString *out, const virCheckpointJson *value)
{
    gboolean object = value->type == VIR_CHECKPOINT_JSON_OBJECT;
    gsize i;

    switch (value->type) {
    case VIR_CHECKPOINT_JSON_NULL:
        g_string_append(out, "null");
        break;
    case VIR_CHECKPOINT_JSON_BOOLEAN:
        g_string_append(out, value->flag ? "true" : "false");
        break;
    case VIR_CHECKPOINT_JSON_NUMBER:
        g_string_append(out, value->text);
        break;
    case VIR_CHECKPOINT_JSON_STRING:
        virCheckpointJsonFormatString(out, value->text);
        break;
    case VIR_CHECKPOINT_JSON_ARRAY:
    case VIR_CHECKPOINT_JSON_OBJECT:
        g_string_append_c(out, object ? '{' : '[');
        for (i = 0; i < value->items->len; i++) {
            if (i > 0)
                g_string_append_c(out, ',');
            if (object) {
                virCheckpointJsonFormatString(out, g_ptr_array_index(value->keys, i));
                g_string_append_c(out, ':');
            }
            virCheckpointJsonFormatInto(out, g_ptr_array_index(value->items, i));
        }
        g_string_append_c(out, object ? '}' : ']');
        break;
    case VIR_CHECKPOINT_JSON_LAST:
        g_assert_not_reached();
    }
}

gchar *
virCheckpointJsonFormat(const virCheckpointJson *value)
{
    GString *out = g_string_new(NULL);

    g_assert(value);
    virCheckpointJsonFormatInto(out, value);
    return g_string_free(out, FALSE);
}

/* Reading */

virCheckpointJsonType
virCheckpointJsonGetType(const virCheckpointJson *value)
{
    return value ? value->type : VIR_CHECKPOINT_JSON_NULL;
}

const virCheckpointJson *
virCheckpointJsonGet(const virCheckpointJson *object, const gchar *key)
{
    gsize i;

    if (!object || object->type != VIR_CHECKPOINT_JSON_OBJECT)
        return NULL;
    for (i = object->keys->len; i > 0; i--) {
        if (g_str_equal(g_ptr_array_index(object->keys, i - 1), key))
            return g_ptr_array_index(object->items, i - 1);
    }
    return NULL;
}

const virCheckpointJson *
virCheckpointJsonPath(const virCheckpointJson *object, const gchar *path)
{
    g_auto(GStrv) keys = g_strsplit(path, ".", -1);
    gsize i;

    for (i = 0; keys[i] && object; i++)
        object = virCheckpointJsonGet(object, keys[i]);
    return object;
}

gsize
virCheckpointJsonLength(const virCheckpointJson *value)
{
    return value && value->items ? value->items->len : 0;
}

const virCheckpointJson *
virCheckpointJsonIndex(const virCheckpointJson *array, gsize index)
{
    if (virCheckpointJsonGetType(array) != VIR_CHECKPOINT_JSON_ARRAY ||
        index >= array->items->len)
        return NULL;
    return g_ptr_array_index(array->items, index);
}

const gchar *
virCheckpointJsonKey(const virCheckpointJson *object, gsize index)
{
    if (virCheckpointJsonGetType(object) != VIR_CHECKPOINT_JSON_OBJECT ||
        index >= object->keys->len)
        return NULL;
    return g_ptr_array_index(object->keys, index);
}

const virCheckpointJson *
virCheckpointJsonMember(const virCheckpointJson *object, gsize index)
{
    if (virCheckpointJsonGetType(object) != VIR_CHECKPOINT_JSON_OBJECT ||
        index >= object->items->len)
        return NULL;
    return g_ptr_array_index(object->items, index);
}

const gchar *
virCheckpointJsonString(const virCheckpointJson *value)
{
    return virCheckpointJsonGetType(value) == VIR_CHECKPOINT_JSON_STRING ? value->text
                                                                         : NULL;
}

const gchar *
virCheckpointJsonGetString(const virCheckpointJson *object, const gchar *key)
{
    return virCheckpointJsonString(virCheckpointJsonGet(object, key));
}

gboolean
virCheckpointJsonGetUint64(const virCheckpointJson *object,
                           const gchar *key,
                           guint64 *out)
{
    const virCheckpointJson *value = virCheckpointJsonGet(object, key);

    if (virCheckpointJsonGetType(value) != VIR_CHECKPOINT_JSON_NUMBER)
        return FALSE;
    return g_ascii_string_to_unsigned(value->text, 10, 0, G_MAXUINT64, out, NULL);
}

gboolean
virCheckpointJsonGetInt64(const virCheckpointJson *object,
                          const gchar *key,
                          gint64 *out)
{
    const virCheckpointJson *value = virCheckpointJsonGet(object, key);

    if (virCheckpointJsonGetType(value) != VIR_CHECKPOINT_JSON_NUMBER)
        return FALSE;
    return g_ascii_string_to_signed(value->text, 10, G_MININT64, G_MAXINT64, out, NULL);
}

gboolean
virCheckpointJsonGetBoolean(const virCheckpointJson *object,
                            const gchar *key,
                            gboolean fallback)
{
    const virCheckpointJson *value = virCheckpointJsonGet(object, key);

    if (virCheckpointJsonGetType(value) != VIR_CHECKPOINT_JSON_BOOLEAN)
        return fallback;
    return value->flag;
}
