/*
 * stamptest.c: the texts that say which file it is and how it looks
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_file.h"
#include "checkpoint_stamp.h"

#include <fcntl.h>
#include <unistd.h>

/* Earlier daemons wrote them into records. */
static void
testStampForms(void)
{
    struct stat st = {.st_dev = 7, .st_ino = 12, .st_size = 4096};
    g_autofree gchar *file = virCheckpointStampFile(&st);
    g_autofree gchar *look = NULL;
    g_autofree gchar *changed = NULL;
    g_autofree gchar *all = NULL;

    st.st_mtim.tv_sec = 5;
    st.st_mtim.tv_nsec = 60;
    st.st_ctim.tv_sec = 8;
    st.st_ctim.tv_nsec = 900;
    look = virCheckpointStampLook(&st, 0);
    changed = virCheckpointStampLook(&st, VIR_CHECKPOINT_STAMP_CHANGE);
    all = virCheckpointStampLook(&st, VIR_CHECKPOINT_STAMP_DEVICE |
                                          VIR_CHECKPOINT_STAMP_CHANGE);
    g_assert_cmpstr(file, ==, "7:12");
    g_assert_cmpstr(look, ==, "12:4096:5.000000060");
    g_assert_cmpstr(changed, ==, "12:4096:5.000000060:8.000000900");
    g_assert_cmpstr(all, ==, "7:12:4096:5.000000060:8.000000900");
}

static void
testStampPaths(void)
{
    g_autofree gchar *folder = g_dir_make_tmp("stamptest-XXXXXX", NULL);
    g_autofree gchar *path = g_build_filename(folder, "file", NULL);
    VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_autofree gchar *before = virCheckpointStampLookPath(path, 0);
    g_autofree gchar *after = NULL;
    g_autofree gchar *which = virCheckpointStampFileFd(fd);

    g_assert_nonnull(before);
    g_assert_nonnull(which);
    g_assert_cmpint(ftruncate(fd, 1), ==, 0);
    after = virCheckpointStampLookPath(path, 0);
    g_assert_cmpstr(after, !=, before);
    g_assert_null(virCheckpointStampFileFd(-1));
    g_assert_null(virCheckpointStampLookPath(NULL, 0));
    g_assert_null(virCheckpointStampLookPath("file", 0));
    g_assert_null(virCheckpointStampLookPath(folder, 0));
    g_assert_null(virCheckpointStampLookPath("/dev/null", 0));
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(rmdir(folder), ==, 0);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/stamp/forms", testStampForms);
    g_test_add_func("/stamp/paths", testStampPaths);
    return g_test_run();
}
