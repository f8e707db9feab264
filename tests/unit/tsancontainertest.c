/*
 * tsancontainertest.c: ThreadSanitizer sees who changes a container of GLib's
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Built with -Db_sanitize=thread only.  Each function on a container is called by one
 * thread after another changed the container: in a process of its own without a lock,
 * which has to be reported, and with one, which has to be silent.
 */

#include "config.h"

#include "tsantestlib.h"

static GMutex testLock;

/* OP(kind of container, function, a call of it on the container @it) */

#define TEST_OPS(OP)                                                                   \
    OP(TABLE, g_hash_table_lookup, g_hash_table_lookup(it, "a"))                       \
    OP(TABLE, g_hash_table_lookup_extended,                                            \
       g_hash_table_lookup_extended(it, "a", NULL, NULL))                              \
    OP(TABLE, g_hash_table_contains, g_hash_table_contains(it, "a"))                   \
    OP(TABLE, g_hash_table_size, g_hash_table_size(it))                                \
    OP(TABLE, g_hash_table_iter_init, g_hash_table_iter_init(&testIter, it))           \
    OP(TABLE, g_hash_table_iter_next, g_hash_table_iter_next(&testIter, NULL, NULL))   \
    OP(TABLE, g_hash_table_iter_remove, g_hash_table_iter_remove(&testIter))           \
    OP(TABLE, g_hash_table_insert, g_hash_table_insert(it, (gpointer) "c", NULL))      \
    OP(TABLE, g_hash_table_replace, g_hash_table_replace(it, (gpointer) "c", NULL))    \
    OP(TABLE, g_hash_table_add, g_hash_table_add(it, (gpointer) "c"))                  \
    OP(TABLE, g_hash_table_remove, g_hash_table_remove(it, "a"))                       \
    OP(TABLE, g_hash_table_remove_all, g_hash_table_remove_all(it))                    \
    OP(TABLE, g_hash_table_foreach_remove,                                             \
       g_hash_table_foreach_remove(it, testEach, NULL))                                \
    OP(TABLE, g_hash_table_unref, g_hash_table_unref(it))                              \
    OP(POINTERS, g_ptr_array_find, g_ptr_array_find(it, NULL, NULL))                   \
    OP(POINTERS, g_ptr_array_find_with_equal_func,                                     \
       g_ptr_array_find_with_equal_func(it, "a", g_str_equal, NULL))                   \
    OP(POINTERS, g_ptr_array_copy,                                                     \
       g_ptr_array_unref(g_ptr_array_copy(it, NULL, NULL)))                            \
    OP(POINTERS, g_ptr_array_add, g_ptr_array_add(it, NULL))                           \
    OP(POINTERS, g_ptr_array_insert, g_ptr_array_insert(it, 0, NULL))                  \
    OP(POINTERS, g_ptr_array_extend, testPointersExtend(it))                           \
    OP(POINTERS, g_ptr_array_set_size, g_ptr_array_set_size(it, 1))                    \
    OP(POINTERS, g_ptr_array_set_free_func, g_ptr_array_set_free_func(it, NULL))       \
    OP(POINTERS, g_ptr_array_sort, g_ptr_array_sort(it, testCompare))                  \
    OP(POINTERS, g_ptr_array_remove, g_ptr_array_remove(it, NULL))                     \
    OP(POINTERS, g_ptr_array_remove_fast, g_ptr_array_remove_fast(it, NULL))           \
    OP(POINTERS, g_ptr_array_remove_index, g_ptr_array_remove_index(it, 0))            \
    OP(POINTERS, g_ptr_array_remove_index_fast, g_ptr_array_remove_index_fast(it, 0))  \
    OP(POINTERS, g_ptr_array_remove_range, g_ptr_array_remove_range(it, 0, 1))         \
    OP(POINTERS, g_ptr_array_steal_index, g_ptr_array_steal_index(it, 0))              \
    OP(POINTERS, g_ptr_array_free, g_ptr_array_free(it, TRUE))                         \
    OP(POINTERS, g_ptr_array_unref, g_ptr_array_unref(it))                             \
    OP(ARRAY, g_array_append_vals, g_array_append_vals(it, "c", 1))                    \
    OP(ARRAY, g_array_set_size, g_array_set_size(it, 1))                               \
    OP(ARRAY, g_array_set_clear_func, g_array_set_clear_func(it, NULL))                \
    OP(ARRAY, g_array_sort, g_array_sort(it, testCompare))                             \
    OP(ARRAY, g_array_remove_index_fast, g_array_remove_index_fast(it, 0))             \
    OP(ARRAY, g_array_unref, g_array_unref(it))                                        \
    OP(BYTES, g_byte_array_append, g_byte_array_append(it, (const guint8 *)"c", 1))    \
    OP(BYTES, g_byte_array_set_size, g_byte_array_set_size(it, 1))                     \
    OP(BYTES, g_byte_array_free, g_byte_array_free(it, TRUE))                          \
    OP(BYTES, g_byte_array_unref, g_byte_array_unref(it))                              \
    OP(QUEUE, g_queue_peek_head, g_queue_peek_head(it))                                \
    OP(QUEUE, g_queue_init, g_queue_init(it))                                          \
    OP(QUEUE, g_queue_push_head, g_queue_push_head(it, NULL))                          \
    OP(QUEUE, g_queue_push_tail, g_queue_push_tail(it, NULL))                          \
    OP(QUEUE, g_queue_pop_head, g_queue_pop_head(it))                                  \
    OP(QUEUE, g_queue_delete_link, g_queue_delete_link(it, testLink))                  \
    OP(QUEUE, g_queue_clear_full, g_queue_clear_full(it, testNothing))                 \
    OP(TEXT, g_string_append, g_string_append(it, "c"))                                \
    OP(TEXT, g_string_append_len, g_string_append_len(it, "c", 1))                     \
    OP(TEXT, g_string_append_printf, g_string_append_printf(it, "%d", 1))              \
    OP(TEXT, g_string_append_unichar, g_string_append_unichar(it, 'c'))                \
    OP(TEXT, g_string_erase, g_string_erase(it, 0, 1))                                 \
    OP(TEXT, g_string_insert_c, g_string_insert_c(it, 0, 'c'))                         \
    OP(TEXT, g_string_replace, g_string_replace(it, "a", "c", 0))                      \
    OP(TEXT, g_string_truncate, g_string_truncate(it, 0))

typedef enum {
    TEST_TABLE,
    TEST_POINTERS,
    TEST_ARRAY,
    TEST_BYTES,
    TEST_QUEUE,
    TEST_TEXT,
} testKind;

static GHashTableIter testIter; /* stands on the first element of the newest table */
static GList *testLink;         /* the first element of the newest queue */

static gboolean
testEach(gpointer key, gpointer value, gpointer data)
{
    return TRUE;
}

static gint
testCompare(gconstpointer a, gconstpointer b)
{
    return 0;
}

static void
testNothing(gpointer data)
{
}

static void
testPointersExtend(GPtrArray *array)
{
    g_autoptr(GPtrArray) more = g_ptr_array_new();

    g_ptr_array_extend(array, more, NULL, NULL);
}

static void
testContainerChange(testKind kind, gpointer it, const gchar *element)
{
    switch (kind) {
    case TEST_TABLE:
        g_hash_table_add(it, (gpointer)element);
        break;
    case TEST_POINTERS:
        g_ptr_array_add(it, (gpointer)element);
        break;
    case TEST_ARRAY:
        g_array_append_vals(it, element, 1);
        break;
    case TEST_BYTES:
        g_byte_array_append(it, (const guint8 *)element, 1);
        break;
    case TEST_QUEUE:
        g_queue_push_tail(it, (gpointer)element);
        break;
    case TEST_TEXT:
        g_string_append(it, element);
        break;
    }
}

/* Again after each change, behind which GLib takes an iterator for a mistake. */
static void
testStandOnFirst(testKind kind, gpointer it)
{
    if (kind == TEST_TABLE) {
        g_hash_table_iter_init(&testIter, it);
        g_hash_table_iter_next(&testIter, NULL, NULL);
    }
    if (kind == TEST_QUEUE)
        testLink = ((GQueue *)it)->head;
}

static gpointer
testContainerNew(testKind kind)
{
    gpointer it = NULL;

    switch (kind) {
    case TEST_TABLE:
        it = g_hash_table_new(g_str_hash, g_str_equal);
        break;
    case TEST_POINTERS:
        it = g_ptr_array_new();
        break;
    case TEST_ARRAY:
        it = g_array_new(FALSE, FALSE, 1);
        break;
    case TEST_BYTES:
        it = g_byte_array_new();
        break;
    case TEST_QUEUE:
        it = g_queue_new();
        break;
    case TEST_TEXT:
        it = g_string_new(NULL);
        break;
    }
    testContainerChange(kind, it, "a");
    testStandOnFirst(kind, it);
    return it;
}

#define TEST_OP_FUNCTION(kind, name, ...)                                              \
    static void test_##name(gpointer it)                                               \
    {                                                                                  \
        __VA_ARGS__;                                                                   \
    }
TEST_OPS(TEST_OP_FUNCTION)

typedef struct testOp testOp;
struct testOp {
    const gchar *name;
    testKind kind;
    void (*func)(gpointer it);
};

#define TEST_OP_ROW(kind, name, ...) {#name, TEST_##kind, test_##name},
static const testOp testOps[] = {TEST_OPS(TEST_OP_ROW)};

typedef struct testUse testUse;
struct testUse {
    const testOp *op;
    gpointer it;
};

static gpointer
testUseLate(gpointer data)
{
    const testUse *use = data;

    testAwait(1);
    use->op->func(use->it);
    return NULL;
}

static void
testUseChange(gpointer data)
{
    const testUse *use = data;

    testContainerChange(use->op->kind, use->it, "b");
    testTell();
}

static void
testUseChangeLocked(gpointer data)
{
    const testUse *use = data;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&testLock);

    testContainerChange(use->op->kind, use->it, "b");
}

static gpointer
testUseLocked(gpointer data)
{
    const testUse *use = data;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&testLock);

    testStandOnFirst(use->op->kind, use->it);
    use->op->func(use->it);
    return NULL;
}

static void
testRunOp(gconstpointer data)
{
    const testOp *op = data;
    testUse use = {op, NULL};
    g_autofree gchar *pattern = g_strdup_printf(
        "*WARNING: ThreadSanitizer: race on GLib container*__wrap_%s*", op->name);

    if (g_test_subprocess()) {
        use.it = testContainerNew(op->kind);
        testWithThread(testUseLate, &use, testUseChange);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(pattern);
}

/* Once the container is gone nobody may come and change it. */
static gboolean
testEndsIt(const testOp *op)
{
    return g_str_has_suffix(op->name, "_unref") || g_str_has_suffix(op->name, "_free");
}

static void
testContainersLocked(void)
{
    gsize i;

    if (g_test_subprocess()) {
        for (i = 0; i < G_N_ELEMENTS(testOps); i++) {
            testUse use = {&testOps[i], testContainerNew(testOps[i].kind)};

            if (testEndsIt(use.op)) {
                testUseChangeLocked(&use);
                g_thread_join(g_thread_new("end", testUseLocked, &use));
            } else {
                testWithThread(testUseLocked, &use, testUseChangeLocked);
            }
        }
        return;
    }
    /* What it reports is to be read, and makes it fail. */
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
    g_test_trap_assert_passed();
}

static void
testIsProven(const gchar *function)
{
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(testOps); i++) {
        if (g_str_equal(testOps[i].name, function))
            return;
    }
    g_test_message("no operation for %s", function);
    g_test_fail();
}

static void
testAllAreProven(void)
{
    testForEachListed("container ", testIsProven);
}

int
main(int argc, char **argv)
{
    gsize i;

    /* Reports are wanted on standard error. */
    g_unsetenv("TSAN_OPTIONS");
    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < G_N_ELEMENTS(testOps); i++) {
        g_autofree gchar *path = g_strconcat("/tsan-container/", testOps[i].name, NULL);

        g_test_add_data_func(path, &testOps[i], testRunOp);
    }
    g_test_add_func("/tsan-container/under-a-lock", testContainersLocked);
    g_test_add_func("/tsan-container/all-are-proven", testAllAreProven);
    return g_test_run();
}
