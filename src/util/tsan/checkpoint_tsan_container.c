/*
 * checkpoint_tsan_container.c: who looks into GLib's containers, and who changes them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Only in a build with -Db_sanitize=thread.  What GLib does to a table or an array is
 * not seen by ThreadSanitizer (checkpoint_tsan.c says why), so two threads that change
 * the same one without a lock would go unnoticed.  Each call of ours is told as an
 * access to the container as a whole: a read if others may do the same meanwhile, else
 * a write. Macros of GLib that look into an array are compiled with our code and seen
 * as they are.
 */

#include "config.h"

#include "checkpoint_tsan.h"

#include <sanitizer/tsan_interface.h>

/* In both: @it is the name of the parameter that is the container. */
#define VIR_CHECKPOINT_READS(type, name, parameters, arguments)                        \
    VIR_CHECKPOINT_WRAP(name);                                                         \
    type __wrap_##name parameters                                                      \
    {                                                                                  \
        virCheckpointTsanRead(it);                                                     \
        return __real_##name arguments;                                                \
    }

#define VIR_CHECKPOINT_WRITES(type, name, parameters, arguments)                       \
    VIR_CHECKPOINT_WRAP(name);                                                         \
    type __wrap_##name parameters                                                      \
    {                                                                                  \
        virCheckpointTsanWrite(it);                                                    \
        return __real_##name arguments;                                                \
    }

/*
 * An unref: others may hold the container still and read it, so it is not a write.  The
 * last one frees the elements by functions of ours, behind what all others did.
 */
#define VIR_CHECKPOINT_UNREFS(name, container)                                         \
    VIR_CHECKPOINT_WRAP(name);                                                         \
    void __wrap_##name(container *it)                                                  \
    {                                                                                  \
        virCheckpointTsanRead(it);                                                     \
        __tsan_release(it);                                                            \
        __tsan_acquire(it);                                                            \
        __real_##name(it);                                                             \
    }

VIR_CHECKPOINT_READS(gpointer,
                     g_hash_table_lookup,
                     (GHashTable * it, gconstpointer key),
                     (it, key))
VIR_CHECKPOINT_READS(
    gboolean,
    g_hash_table_lookup_extended,
    (GHashTable * it, gconstpointer key, gpointer *own, gpointer *value),
    (it, key, own, value))
VIR_CHECKPOINT_READS(gboolean,
                     g_hash_table_contains,
                     (GHashTable * it, gconstpointer key),
                     (it, key))
VIR_CHECKPOINT_READS(guint, g_hash_table_size, (GHashTable * it), (it))
VIR_CHECKPOINT_READS(void,
                     g_hash_table_iter_init,
                     (GHashTableIter * iter, GHashTable *it),
                     (iter, it))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_hash_table_insert,
                      (GHashTable * it, gpointer key, gpointer value),
                      (it, key, value))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_hash_table_replace,
                      (GHashTable * it, gpointer key, gpointer value),
                      (it, key, value))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_hash_table_add,
                      (GHashTable * it, gpointer key),
                      (it, key))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_hash_table_remove,
                      (GHashTable * it, gconstpointer key),
                      (it, key))
VIR_CHECKPOINT_WRITES(void, g_hash_table_remove_all, (GHashTable * it), (it))
VIR_CHECKPOINT_WRITES(guint,
                      g_hash_table_foreach_remove,
                      (GHashTable * it, GHRFunc func, gpointer data),
                      (it, func, data))

/* Nobody has a second reference to a table or a GArray: an unref is their end. */
VIR_CHECKPOINT_WRITES(void, g_hash_table_unref, (GHashTable * it), (it))
VIR_CHECKPOINT_WRITES(void, g_array_unref, (GArray * it), (it))

VIR_CHECKPOINT_READS(gboolean,
                     g_ptr_array_find,
                     (GPtrArray * it, gconstpointer element, guint *index),
                     (it, element, index))
VIR_CHECKPOINT_READS(
    gboolean,
    g_ptr_array_find_with_equal_func,
    (GPtrArray * it, gconstpointer element, GEqualFunc equal, guint *index),
    (it, element, equal, index))
VIR_CHECKPOINT_READS(GPtrArray *,
                     g_ptr_array_copy,
                     (GPtrArray * it, GCopyFunc func, gpointer data),
                     (it, func, data))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_add,
                      (GPtrArray * it, gpointer element),
                      (it, element))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_insert,
                      (GPtrArray * it, gint index, gpointer element),
                      (it, index, element))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_extend,
                      (GPtrArray * it, GPtrArray *from, GCopyFunc func, gpointer data),
                      (it, from, func, data))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_set_size,
                      (GPtrArray * it, gint length),
                      (it, length))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_set_free_func,
                      (GPtrArray * it, GDestroyNotify free),
                      (it, free))
VIR_CHECKPOINT_WRITES(void,
                      g_ptr_array_sort,
                      (GPtrArray * it, GCompareFunc compare),
                      (it, compare))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_ptr_array_remove,
                      (GPtrArray * it, gpointer element),
                      (it, element))
VIR_CHECKPOINT_WRITES(gboolean,
                      g_ptr_array_remove_fast,
                      (GPtrArray * it, gpointer element),
                      (it, element))
VIR_CHECKPOINT_WRITES(gpointer,
                      g_ptr_array_remove_index,
                      (GPtrArray * it, guint index),
                      (it, index))
VIR_CHECKPOINT_WRITES(gpointer,
                      g_ptr_array_remove_index_fast,
                      (GPtrArray * it, guint index),
                      (it, index))
VIR_CHECKPOINT_WRITES(GPtrArray *,
                      g_ptr_array_remove_range,
                      (GPtrArray * it, guint index, guint length),
                      (it, index, length))
VIR_CHECKPOINT_WRITES(gpointer,
                      g_ptr_array_steal_index,
                      (GPtrArray * it, guint index),
                      (it, index))
VIR_CHECKPOINT_WRITES(gpointer *,
                      g_ptr_array_free,
                      (GPtrArray * it, gboolean segment),
                      (it, segment))

VIR_CHECKPOINT_WRITES(GArray *,
                      g_array_append_vals,
                      (GArray * it, gconstpointer data, guint length),
                      (it, data, length))
VIR_CHECKPOINT_WRITES(GArray *,
                      g_array_set_size,
                      (GArray * it, guint length),
                      (it, length))
VIR_CHECKPOINT_WRITES(void,
                      g_array_set_clear_func,
                      (GArray * it, GDestroyNotify clear),
                      (it, clear))
VIR_CHECKPOINT_WRITES(void,
                      g_array_sort,
                      (GArray * it, GCompareFunc compare),
                      (it, compare))
VIR_CHECKPOINT_WRITES(GArray *,
                      g_array_remove_index_fast,
                      (GArray * it, guint index),
                      (it, index))

VIR_CHECKPOINT_WRITES(GByteArray *,
                      g_byte_array_append,
                      (GByteArray * it, const guint8 *data, guint length),
                      (it, data, length))
VIR_CHECKPOINT_WRITES(GByteArray *,
                      g_byte_array_set_size,
                      (GByteArray * it, guint length),
                      (it, length))
VIR_CHECKPOINT_WRITES(guint8 *,
                      g_byte_array_free,
                      (GByteArray * it, gboolean segment),
                      (it, segment))

VIR_CHECKPOINT_READS(gpointer, g_queue_peek_head, (GQueue * it), (it))
VIR_CHECKPOINT_WRITES(void, g_queue_init, (GQueue * it), (it))
VIR_CHECKPOINT_WRITES(void, g_queue_push_head, (GQueue * it, gpointer data), (it, data))
VIR_CHECKPOINT_WRITES(void, g_queue_push_tail, (GQueue * it, gpointer data), (it, data))
VIR_CHECKPOINT_WRITES(gpointer, g_queue_pop_head, (GQueue * it), (it))
VIR_CHECKPOINT_WRITES(void, g_queue_delete_link, (GQueue * it, GList *link), (it, link))
VIR_CHECKPOINT_WRITES(void,
                      g_queue_clear_full,
                      (GQueue * it, GDestroyNotify free),
                      (it, free))

VIR_CHECKPOINT_WRITES(GString *,
                      g_string_append,
                      (GString * it, const gchar *text),
                      (it, text))
VIR_CHECKPOINT_WRITES(GString *,
                      g_string_append_len,
                      (GString * it, const gchar *text, gssize length),
                      (it, text, length))
VIR_CHECKPOINT_WRITES(GString *,
                      g_string_append_unichar,
                      (GString * it, gunichar character),
                      (it, character))
VIR_CHECKPOINT_WRITES(GString *,
                      g_string_insert_c,
                      (GString * it, gssize at, gchar character),
                      (it, at, character))
VIR_CHECKPOINT_WRITES(GString *,
                      g_string_erase,
                      (GString * it, gssize at, gssize length),
                      (it, at, length))
VIR_CHECKPOINT_WRITES(GString *,
                      g_string_truncate,
                      (GString * it, gsize length),
                      (it, length))
VIR_CHECKPOINT_WRITES(guint,
                      g_string_replace,
                      (GString * it, const gchar *find, const gchar *by, guint limit),
                      (it, find, by, limit))

VIR_CHECKPOINT_UNREFS(g_ptr_array_unref, GPtrArray)
VIR_CHECKPOINT_UNREFS(g_byte_array_unref, GByteArray)

/* The table is what an iterator begins with; it says nothing else of itself. */

VIR_CHECKPOINT_WRAP(g_hash_table_iter_next);
VIR_CHECKPOINT_WRAP(g_hash_table_iter_remove);

gboolean
__wrap_g_hash_table_iter_next(GHashTableIter *iter, gpointer *key, gpointer *value)
{
    virCheckpointTsanRead(iter->dummy1);
    return __real_g_hash_table_iter_next(iter, key, value);
}

void
__wrap_g_hash_table_iter_remove(GHashTableIter *iter)
{
    virCheckpointTsanWrite(iter->dummy1);
    __real_g_hash_table_iter_remove(iter);
}

VIR_CHECKPOINT_WRAP(g_string_append_printf);

void
__wrap_g_string_append_printf(GString *string, const gchar *format, ...)
{
    va_list arguments;

    virCheckpointTsanWrite(string);
    va_start(arguments, format);
    g_string_append_vprintf(string, format, arguments);
    va_end(arguments);
}
