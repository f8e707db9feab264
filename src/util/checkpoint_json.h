/*
 * checkpoint_json.h: JSON values for QMP, with bounded depth and exact numbers
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_JSON_H
#define VIR_CHECKPOINT_JSON_H

#include <glib.h>

typedef struct virCheckpointJson virCheckpointJson;

typedef enum {
    VIR_CHECKPOINT_JSON_NULL,
    VIR_CHECKPOINT_JSON_BOOLEAN,
    VIR_CHECKPOINT_JSON_NUMBER, /* kept as its text: no loss for 64-bit integers */
    VIR_CHECKPOINT_JSON_STRING,
    VIR_CHECKPOINT_JSON_ARRAY,
    VIR_CHECKPOINT_JSON_OBJECT,
    VIR_CHECKPOINT_JSON_LAST
} virCheckpointJsonType;

/** Nesting deeper than this is refused when parsing. */
#define VIR_CHECKPOINT_JSON_MAX_DEPTH 64

/**
 * virCheckpointJsonParse:
 * @text: UTF-8 JSON text, one value; @length: in bytes, or -1 for NUL-terminated
 *
 * Returns: (transfer full): the value, or NULL with VIR_ERR_INTERNAL_ERROR saying
 * where. Source: yajl's event parser; its tree has no unsigned 64-bit numbers.
 */
virCheckpointJson *
virCheckpointJsonParse(const gchar *text, gssize length, GError **error);

/** Returns: (transfer full): compact text, keys in the order they were added. */
gchar *
virCheckpointJsonFormat(const virCheckpointJson *value);

virCheckpointJson *
virCheckpointJsonCopy(const virCheckpointJson *value);
void
virCheckpointJsonFree(virCheckpointJson *value);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointJson, virCheckpointJsonFree)

virCheckpointJsonType
virCheckpointJsonGetType(const virCheckpointJson *value);

/* Reading.  All accept NULL for @value and then find nothing, so that look-ups can be
 * chained; what is returned is borrowed from @value. */
const virCheckpointJson *
virCheckpointJsonGet(const virCheckpointJson *object, const gchar *key);
/** Like virCheckpointJsonGet through several keys: "image.format-specific.data",
 * '.'-separated. */
const virCheckpointJson *
virCheckpointJsonPath(const virCheckpointJson *object, const gchar *path);
/** Length of an array or number of members of an object, else 0. */
gsize
virCheckpointJsonLength(const virCheckpointJson *value);
const virCheckpointJson *
virCheckpointJsonIndex(const virCheckpointJson *array, gsize index);
/** The key of member @index of an object. */
const gchar *
virCheckpointJsonKey(const virCheckpointJson *object, gsize index);
const virCheckpointJson *
virCheckpointJsonMember(const virCheckpointJson *object, gsize index);
/** The text of a string, or NULL. */
const gchar *
virCheckpointJsonString(const virCheckpointJson *value);
/** The text of the string member @key, or NULL. */
const gchar *
virCheckpointJsonGetString(const virCheckpointJson *object, const gchar *key);
/** TRUE and sets @out if member @key is an integer in range, else FALSE. */
gboolean
virCheckpointJsonGetUint64(const virCheckpointJson *object,
                           const gchar *key,
                           guint64 *out);
gboolean
virCheckpointJsonGetInt64(const virCheckpointJson *object,
                          const gchar *key,
                          gint64 *out);
/** The boolean member @key, or @fallback when it is absent or not a boolean. */
gboolean
virCheckpointJsonGetBoolean(const virCheckpointJson *object,
                            const gchar *key,
                            gboolean fallback);

/* Building.  Containers take the values over. */
virCheckpointJson *
virCheckpointJsonNewObject(void);
virCheckpointJson *
virCheckpointJsonNewArray(void);
virCheckpointJson *
virCheckpointJsonNewString(const gchar *text);
virCheckpointJson *
virCheckpointJsonNewNull(void);
virCheckpointJson *
virCheckpointJsonNewBoolean(gboolean flag);
virCheckpointJson *
virCheckpointJsonNewUint64(guint64 number);
virCheckpointJson *
virCheckpointJsonNewInt64(gint64 number);
void
virCheckpointJsonAdd(virCheckpointJson *object,
                     const gchar *key,
                     virCheckpointJson *value);
void
virCheckpointJsonAddString(virCheckpointJson *object,
                           const gchar *key,
                           const gchar *text);
void
virCheckpointJsonAddBoolean(virCheckpointJson *object, const gchar *key, gboolean flag);
void
virCheckpointJsonAddUint64(virCheckpointJson *object, const gchar *key, guint64 number);
void
virCheckpointJsonAppend(virCheckpointJson *array, virCheckpointJson *value);

/**
 * virCheckpointJsonBuild:
 * @key: first key, or NULL for an empty object
 * @...: for each member: the key with a type prefix, then its value; NULL ends.
 *   "s:key" const gchar* (NULL leaves the member out), "b:key" gboolean,
 *   "u:key" guint64, "i:key" gint64, "a:key" virCheckpointJson* (any value, taken over;
 *   NULL leaves the member out)
 *
 * Returns: (transfer full): the object.
 */
virCheckpointJson *
virCheckpointJsonBuild(const gchar *key, ...) G_GNUC_NULL_TERMINATED;

#endif
