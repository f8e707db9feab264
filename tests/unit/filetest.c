/*
 * filetest.c: files are whole, locks exclude, errors name the path
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_file.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static gchar *testDir;

static gchar *
testPath(const gchar *name)
{
    return g_build_filename(testDir, name, NULL);
}

static void
testFileWriteRead(void)
{
    g_autofree gchar *path = testPath("a");
    g_autofree gchar *text = NULL;
    g_autoptr(GError) error = NULL;
    struct stat sb;

    g_assert_true(virCheckpointFileWrite(path, "one", &error));
    g_assert_true(virCheckpointFileWrite(path, "", &error));
    text = virCheckpointFileRead(path, 0, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(text, ==, "");
    g_assert_true(virCheckpointFileWrite(path, "two", &error));
    g_free(text);
    text = virCheckpointFileRead(path, 3, &error);
    g_assert_cmpstr(text, ==, "two");
    g_assert_cmpint(stat(path, &sb), ==, 0);
    g_assert_cmpuint(sb.st_mode & 0777, ==, 0600);
    g_assert_null(virCheckpointFileRead(path, 2, &error));
    g_assert_nonnull(strstr(error->message, path));
}

static void
testFileOdd(void)
{
    g_autofree gchar *dir = testPath("odd");
    g_autofree gchar *fifo = testPath("fifo");
    g_autofree gchar *zero = testPath("zero");
    g_autofree gchar *missing = testPath("none/none");
    g_autoptr(GError) error = NULL;

    g_assert_true(virCheckpointFileMakeDirs(dir, 0700, &error));
    g_assert_null(virCheckpointFileRead(dir, 10, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
    g_clear_error(&error);
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_assert_null(virCheckpointFileRead(fifo, 10, &error));
    g_assert_nonnull(strstr(error->message, "not a regular file"));
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(zero, "a\0b", 3, NULL));
    g_assert_null(virCheckpointFileRead(zero, 10, &error));
    g_assert_nonnull(strstr(error->message, "zero byte"));
    g_clear_error(&error);
    /* What may pass is told apart from what never will. */
    g_assert_null(virCheckpointFileRead(missing, 10, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, "No such file"));
    g_clear_error(&error);
    g_assert_false(virCheckpointFileWrite(missing, "x", &error));
    g_assert_nonnull(strstr(error->message, missing));
    g_clear_error(&error);
    g_assert_false(virCheckpointFileSync(missing, &error));
    g_assert_nonnull(error);
}

static void
testFileRename(void)
{
    g_autofree gchar *from = testPath("from");
    g_autofree gchar *to = testPath("to");
    g_autofree gchar *gone = testPath("gone/gone");
    g_autoptr(GError) error = NULL;

    g_assert_true(virCheckpointFileWrite(from, "x", &error));
    g_assert_true(virCheckpointFileSync(from, &error));
    g_assert_true(virCheckpointFileRename(from, to, &error));
    g_assert_false(g_file_test(from, G_FILE_TEST_EXISTS));
    g_assert_true(virCheckpointFileRemove(to, &error));
    g_assert_true(virCheckpointFileRemove(to, &error));
    g_assert_true(virCheckpointFileRemove(gone, &error));
    g_assert_no_error(error);
    g_assert_false(virCheckpointFileRename(from, to, &error));
    g_assert_nonnull(strstr(error->message, from));
}

static void
testFileDirs(void)
{
    g_autofree gchar *deep = testPath("x/y/z");
    g_autofree gchar *file = testPath("x/file");
    g_autofree gchar *below = testPath("x/file/z");
    g_autoptr(GError) error = NULL;
    struct stat sb;

    g_assert_true(virCheckpointFileMakeDirs(deep, 0700, &error));
    g_assert_true(virCheckpointFileMakeDirs(deep, 0700, &error));
    g_assert_cmpint(stat(deep, &sb), ==, 0);
    g_assert_cmpuint(sb.st_mode & 0777, ==, 0700);
    g_assert_true(virCheckpointFileWrite(file, "", &error));
    g_assert_no_error(error);
    g_assert_false(virCheckpointFileMakeDirs(below, 0700, &error));
    g_assert_nonnull(strstr(error->message, file));
}

static void
testFileDescriptors(void)
{
    VIR_CHECKPOINT_AUTOFD int fd = dup(0);
    int stolen = virCheckpointFdSteal(&fd);

    g_assert_cmpint(fd, ==, -1);
    g_assert_cmpint(stolen, >=, 0);
    virCheckpointFdCleanup(&stolen);
    g_assert_cmpint(stolen, ==, -1);
}

typedef struct testLocker {
    const gchar *path;
    gint holders;
    gint worst;
} testLocker;

static gpointer
testLockThread(gpointer opaque)
{
    testLocker *locker = opaque;
    gint i;

    for (i = 0; i < 100; i++) {
        VIR_CHECKPOINT_AUTOFD int fd = virCheckpointFileLock(locker->path, TRUE, NULL);

        g_assert_cmpint(fd, >=, 0);
        if (g_atomic_int_add(&locker->holders, 1) > 0)
            g_atomic_int_set(&locker->worst, 1);
        g_atomic_int_add(&locker->holders, -1);
        /* Each third time the file goes away, as with a domain's folder: from then on
         * the lock is another's. */
        if (i % 3 == 0)
            unlink(locker->path);
    }
    return NULL;
}

static void
testFileLock(void)
{
    g_autofree gchar *path = testPath("lock");
    g_autoptr(GError) error = NULL;
    VIR_CHECKPOINT_AUTOFD int fd = virCheckpointFileLock(path, FALSE, &error);
    testLocker locker = {path, 0, 0};
    GThread *threads[4];
    gsize i;

    g_assert_no_error(error);
    g_assert_cmpint(virCheckpointFileLock(path, FALSE, &error), ==, -1);
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY);
    g_assert_nonnull(strstr(error->message, "is held by another process"));
    virCheckpointFdCleanup(&fd);

    for (i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("lock", testLockThread, &locker);
    for (i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    g_assert_cmpint(locker.worst, ==, 0);
}

static gpointer
testLetGo(gpointer opaque)
{
    g_usleep(100 * 1000);
    close(GPOINTER_TO_INT(opaque));
    return NULL;
}

/* What holds it only for a moment is waited for, what goes on holding it is not. */
static void
testFileLockSoon(void)
{
    g_autofree gchar *path = testPath("soon");
    g_autoptr(GError) error = NULL;
    int held = virCheckpointFileLock(path, FALSE, NULL);
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    GThread *thread;

    g_assert_cmpint(held, >=, 0);
    g_assert_cmpint(virCheckpointFileLockSoon(path, 50, &error), ==, -1);
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY);
    thread = g_thread_new("holder", testLetGo, GINT_TO_POINTER(held));
    fd = virCheckpointFileLockSoon(path, 60 * 1000, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_thread_join(thread);
}

static void
testRemoveDir(void)
{
    const gchar *argv[] = {"rm", "-rf", testDir, NULL};

    g_spawn_sync(NULL, (gchar **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                 NULL, NULL, NULL);
    g_free(testDir);
}

int
main(int argc, char **argv)
{
    int rc = 0;

    g_test_init(&argc, &argv, NULL);
    testDir = g_dir_make_tmp("filetest-XXXXXX", NULL);
    g_test_add_func("/file/write-and-read", testFileWriteRead);
    g_test_add_func("/file/what-is-no-file", testFileOdd);
    g_test_add_func("/file/rename-and-remove", testFileRename);
    g_test_add_func("/file/make-directories", testFileDirs);
    g_test_add_func("/file/descriptors", testFileDescriptors);
    g_test_add_func("/file/locks-exclude-threads", testFileLock);
    g_test_add_func("/file/lock-soon", testFileLockSoon);
    rc = g_test_run();
    testRemoveDir();
    return rc;
}
