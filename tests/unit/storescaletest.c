/*
 * storescaletest.c: what the store does does not depend on how much it holds
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Times tell little on a busy machine, so calls are counted: this program's own open,
 * stat and so on stand before libc's, also for GLib.  An operation on a folder with a
 * thousand records opens, looks at and parses exactly as many files as one on a folder
 * with ten.
 */

#include "config.h"

#include "checkpoint_storepriv.h"
#include "storelib.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>

#define TEST_REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TEST_EXPORT __attribute__((visibility("default")))

static guint testCalls; /* opens, stats and looks at a folder so far */

/* With large files these are libc's open64 and stat64, as in GLib. */
TEST_EXPORT int
open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    testCalls++;
    va_start(args, flags);
    if (flags & O_CREAT)
        mode = (mode_t)va_arg(args, int);
    va_end(args);
    return TEST_REAL(openat)(AT_FDCWD, path, flags, mode);
}

TEST_EXPORT int
stat(const char *path, struct stat *sb)
{
    testCalls++;
    return TEST_REAL(fstatat)(AT_FDCWD, path, sb, 0);
}

TEST_EXPORT int
access(const char *path, int mode)
{
    testCalls++;
    return TEST_REAL(access)(path, mode);
}

TEST_EXPORT DIR *
opendir(const char *path)
{
    testCalls++;
    return TEST_REAL(opendir)(path);
}

/* A folder with @number records, written without the store's syncs, which would take
 * the test's time. */
static void
testFill(const gchar *root, guint number)
{
    guint i;

    for (i = 0; i < number; i++) {
        g_autoptr(virCheckpointRecord) record = testRecord('0', "c", NULL);
        g_autofree gchar *name = NULL;
        g_autofree gchar *text = NULL;

        g_free(record->id);
        record->id = g_strdup_printf("%032x", i);
        g_free(record->def->name);
        record->def->name = g_strdup_printf("c%u", i);
        record->def->parent = i ? g_strdup_printf("c%u", i - 1) : NULL;
        text = virCheckpointRecordFormat(record);
        name = g_strconcat(record->id, VIR_CHECKPOINT_STORE_RECORD_SUFFIX, NULL);
        testPutFile(root, name, text);
    }
}

/* What an operation on a domain does: it looks, journals, records, records again, makes
 * a sidecar and looks once more. */
static void
testOperate(virCheckpointStore *store, const gchar *root, guint number)
{
    g_autoptr(virCheckpointStoreDomain) domain =
        virCheckpointStoreDomainOpen(store, TEST_UUID, NULL);
    g_autoptr(GPtrArray) before = virCheckpointStoreList(domain, NULL);
    g_autoptr(GPtrArray) after = NULL;
    g_autoptr(virCheckpointRecord) record = testRecord('f', "new", "f.1.qcow2");
    const gchar *const names[] = {"virtcheckpoint.f", NULL};

    g_assert_cmpuint(before->len, ==, number);
    g_assert_true(virCheckpointStoreJournalAdd(domain, names, NULL));
    record->state = VIR_CHECKPOINT_RECORD_CREATING;
    g_assert_true(virCheckpointStoreSave(domain, record, NULL));
    record->state = VIR_CHECKPOINT_RECORD_READY;
    g_assert_true(virCheckpointStoreSave(domain, record, NULL));
    testPutFile(root, "f.1.qcow2", "x");
    virCheckpointStoreTouched(domain);
    g_assert_true(virCheckpointStoreJournalHas(domain, "virtcheckpoint.f"));
    after = virCheckpointStoreList(domain, NULL);
    g_assert_cmpuint(after->len, ==, number + 1);
}

/* Takes back what testOperate() did. */
static void
testTakeBack(virCheckpointStore *store)
{
    g_autoptr(virCheckpointStoreDomain) domain =
        virCheckpointStoreDomainOpen(store, TEST_UUID, NULL);
    g_autoptr(GPtrArray) sidecars = g_ptr_array_new();
    g_autofree gchar *id = testId('f');
    g_autoptr(GPtrArray) records = virCheckpointStoreList(domain, NULL);

    g_assert_true(virCheckpointStoreRemove(domain, id, NULL));
    g_ptr_array_add(sidecars, (gpointer) "f.1.qcow2");
    g_assert_true(virCheckpointStoreCollectOf(domain, sidecars, NULL));
}

static void
testLook(virCheckpointStore *store, guint number)
{
    g_autoptr(GPtrArray) names = virCheckpointStorePeekShared(store, TEST_UUID, NULL);
    g_autoptr(virCheckpointRecord) record = NULL;
    gboolean unready;

    g_assert_cmpuint(names->len, ==, number);
    g_assert_true(
        virCheckpointStorePeekOne(store, TEST_UUID, "c5", &record, &unready, NULL));
    g_assert_nonnull(record);
}

typedef struct testCount {
    guint operate;
    guint takeBack;
    guint look;
    guint parsed;
} testCount;

/* The calls that each takes on a folder with @number records, once it was read. */
static void
testMeasure(guint number, testCount *count)
{
    g_autofree gchar *root = g_dir_make_tmp("storescaletest-XXXXXX", NULL);
    g_autofree gchar *folder = testFile(root, "");
    virCheckpointStore *store = virCheckpointStoreOpen(root, NULL);
    virCheckpointStoreDomain *domain = NULL;
    virCheckpointStoreFolder *files = NULL;
    guint before;

    g_assert_nonnull(store);
    g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
    testFill(root, number);
    /* Without a wait: what was just written is young. */
    testOperate(store, root, number);
    testTakeBack(store);
    domain = virCheckpointStoreDomainOpen(store, TEST_UUID, NULL);
    files = virCheckpointStoreDomainFolder(domain);
    virCheckpointStoreDomainClose(domain);
    count->parsed = virCheckpointStoreFolderParsed(files);

    before = testCalls;
    testOperate(store, root, number);
    count->operate = testCalls - before;
    before = testCalls;
    testLook(store, number + 1);
    count->look = testCalls - before;
    before = testCalls;
    testTakeBack(store);
    count->takeBack = testCalls - before;
    count->parsed = virCheckpointStoreFolderParsed(files) - count->parsed;

    virCheckpointStoreFree(store);
    testRemoveTree(root);
}

static void
testScale(void)
{
    testCount few;
    testCount many;

    testMeasure(10, &few);
    testMeasure(1000, &many);
    g_test_message("operation %u, undo %u, look %u", many.operate, many.takeBack,
                   many.look);
    g_assert_cmpuint(few.operate, >, 0);
    g_assert_cmpuint(many.operate, ==, few.operate);
    g_assert_cmpuint(many.takeBack, ==, few.takeBack);
    g_assert_cmpuint(many.look, ==, few.look);
    g_assert_cmpuint(many.look, <, 10);
    g_assert_cmpuint(many.parsed, ==, 0);
}

/* What another process wrote under the lock is seen, however soon. */
static void
testOtherWriter(void)
{
    g_autofree gchar *root = g_dir_make_tmp("storescaletest-XXXXXX", NULL);
    virCheckpointStore *ours = virCheckpointStoreOpen(root, NULL);
    virCheckpointStore *theirs = virCheckpointStoreOpen(root, NULL);
    gint i;

    for (i = 0; i < 200; i++) {
        virCheckpointStore *writer = i % 3 ? theirs : ours;
        virCheckpointStore *reader = i % 2 ? theirs : ours;
        g_autoptr(virCheckpointStoreDomain) domain =
            virCheckpointStoreDomainOpen(writer, TEST_UUID, NULL);
        g_autofree gchar *name = g_strdup_printf("c%03d", i);
        g_autoptr(virCheckpointRecord) record = testRecord('1', name, NULL);
        g_autoptr(virCheckpointRecord) seen = NULL;
        gboolean unready;

        if (i % 5 == 0)
            g_ptr_array_unref(virCheckpointStoreList(domain, NULL));
        g_assert_true(virCheckpointStoreSave(domain, record, NULL));
        g_clear_pointer(&domain, virCheckpointStoreDomainClose);
        g_assert_true(
            virCheckpointStorePeekOne(reader, TEST_UUID, name, &seen, &unready, NULL));
        g_assert_nonnull(seen);
    }
    virCheckpointStoreFree(ours);
    virCheckpointStoreFree(theirs);
    testRemoveTree(root);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/store/a-thousand-records-cost-as-ten", testScale);
    g_test_add_func("/store/other-writers-are-seen", testOtherWriter);
    return g_test_run();
}
