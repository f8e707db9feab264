/*
 * mirrortargettest.c: targets are judged by what was opened, overlays fit their source
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_process.h"

#define SIZE (8ULL * 1024 * 1024)

static gchar *dir;

static gchar *
testPath(const gchar *name)
{
    return g_build_filename(dir, name, NULL);
}

static void
testRun(const gchar *const *argv)
{
    g_autoptr(GError) error = NULL;

    virCheckpointProcessRun(argv, NULL, &error);
    g_assert_no_error(error);
}

static gchar *
testImage(const gchar *name, const gchar *format, const gchar *size)
{
    gchar *path = testPath(name);
    const gchar *argv[] = {"qemu-img", "create", "-q", "-f", format, path, size, NULL};

    testRun(argv);
    return path;
}

static gint
testOpen(const gchar *path, const gchar *format, GPtrArray *images, gchar **found)
{
    virCheckpointMirrorTargetNeeds needs = {"vda", format, SIZE, images};
    g_autoptr(GError) error = NULL;
    VIR_CHECKPOINT_AUTOFD int fd =
        virCheckpointMirrorTargetOpen(path, &needs, found, &error);

    g_assert_true((fd >= 0) == (error == NULL));
    return error ? error->code : 0;
}

static void
testOpenGood(void)
{
    g_autofree gchar *qcow2 = testImage("good.qcow2", "qcow2", "8M");
    g_autofree gchar *raw = testImage("good.raw", "raw", "8M");
    g_autofree gchar *given = NULL;
    g_autofree gchar *probed = NULL;
    g_autofree gchar *flat = NULL;

    g_assert_cmpint(testOpen(qcow2, "qcow2", NULL, &given), ==, 0);
    g_assert_cmpstr(given, ==, "qcow2");
    g_assert_cmpint(testOpen(qcow2, NULL, NULL, &probed), ==, 0);
    g_assert_cmpstr(probed, ==, "qcow2");
    g_assert_cmpint(testOpen(raw, NULL, NULL, &flat), ==, 0);
    g_assert_cmpstr(flat, ==, "raw");
}

static void
testOpenBad(void)
{
    g_autofree gchar *small = testImage("small.qcow2", "qcow2", "4M");
    g_autofree gchar *raw = testImage("bad.raw", "raw", "8M");
    g_autofree gchar *missing = testPath("missing");
    g_autofree gchar *found = NULL;

    g_assert_cmpint(testOpen(missing, "qcow2", NULL, &found), ==, VIR_ERR_SYSTEM_ERROR);
    g_assert_cmpint(testOpen(small, "qcow2", NULL, &found), ==, VIR_ERR_INVALID_ARG);
    g_assert_cmpint(testOpen(raw, "qcow2", NULL, &found), ==, VIR_ERR_OPERATION_FAILED);
    g_assert_cmpint(testOpen(dir, "raw", NULL, &found), ==, VIR_ERR_CONFIG_UNSUPPORTED);
    g_assert_cmpint(testOpen("/dev/null", "raw", NULL, &found), ==,
                    VIR_ERR_CONFIG_UNSUPPORTED);
    g_assert_null(found);
}

static void
testOpenBacked(void)
{
    g_autofree gchar *base = testImage("base.qcow2", "qcow2", "8M");
    g_autofree gchar *path = testPath("backed.qcow2");
    g_autofree gchar *found = NULL;
    const gchar *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-F",
                           "qcow2",    "-b",     base, path, NULL};

    testRun(argv);
    g_assert_cmpint(testOpen(path, "qcow2", NULL, &found), ==,
                    VIR_ERR_CONFIG_UNSUPPORTED);
}

static void
testOpenSource(void)
{
    g_autofree gchar *path = testImage("self.qcow2", "qcow2", "8M");
    g_autofree gchar *other = testPath("self.link");
    g_autofree gchar *found = NULL;
    g_autoptr(GPtrArray) images = g_ptr_array_new();

    g_ptr_array_add(images, path);
    g_assert_cmpint(link(path, other), ==, 0);
    g_assert_cmpint(testOpen(path, "qcow2", images, &found), ==, VIR_ERR_INVALID_ARG);
    g_assert_cmpint(testOpen(other, "qcow2", images, &found), ==, VIR_ERR_INVALID_ARG);
}

static void
testOpenBusy(void)
{
    g_autofree gchar *path = testImage("busy.raw", "raw", "8M");
    g_autofree gchar *found = NULL;
    struct flock lock = {.l_type = F_RDLCK, .l_start = 101, .l_len = 1};
    VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDWR | O_CLOEXEC);

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    g_assert_cmpint(testOpen(path, "raw", NULL, &found), ==, VIR_ERR_RESOURCE_BUSY);
}

static void
testCreate(void)
{
    g_autofree gchar *like = testImage("like.qcow2", "qcow2", "8M");
    g_autofree gchar *path = testPath("created.qcow2");
    g_autofree gchar *found = NULL;
    g_autoptr(GError) error = NULL;
    struct stat st;

    g_assert_cmpint(chmod(like, 0640), ==, 0);
    g_assert_true(virCheckpointMirrorTargetMayCreate(path, "vda", &error));
    g_assert_true(virCheckpointMirrorTargetCreate(path, like, "qcow2", SIZE, &error));
    g_assert_no_error(error);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0640);
    g_assert_cmpint(testOpen(path, "qcow2", NULL, &found), ==, 0);
    g_assert_false(virCheckpointMirrorTargetMayCreate(path, "vda", &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED);
}

static void
testCreateFails(void)
{
    g_autofree gchar *like = testImage("like2.qcow2", "qcow2", "8M");
    g_autofree gchar *path = testPath("failed.qcow2");
    g_autoptr(GError) error = NULL;

    g_assert_false(
        virCheckpointMirrorTargetCreate(path, like, "no-such-format", SIZE, &error));
    g_assert_nonnull(error);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void
testClean(void)
{
    g_autofree gchar *path = testImage("clean.qcow2", "qcow2", "8M");
    g_autofree gchar *output = NULL;
    g_autoptr(GError) error = NULL;
    const gchar *ours[] = {"qemu-img",          "bitmap", "--add", path,
                           "virtcheckpoint.aa", NULL};
    const gchar *work[] = {"qemu-img",  "bitmap", "--add",
                           "--disable", path,     "virtcheckpoint-work.b",
                           NULL};
    const gchar *theirs[] = {"qemu-img", "bitmap", "--add", path, "nightly", NULL};
    const gchar *info[] = {"qemu-img", "info", path, NULL};

    testRun(ours);
    testRun(work);
    testRun(theirs);
    g_assert_true(virCheckpointMirrorTargetClean(path, "qcow2", &error));
    g_assert_no_error(error);
    g_assert_true(virCheckpointProcessRun(info, &output, &error));
    g_assert_null(strstr(output, "name: virtcheckpoint"));
    g_assert_nonnull(strstr(output, "name: nightly"));
}

static void
testOverlay(void)
{
    g_autofree gchar *source = testImage("source.qcow2", "qcow2", "8M");
    g_autofree gchar *overlay =
        virCheckpointMirrorOverlayPath(source, NULL, "0123456789abcdef");
    g_autofree gchar *elsewhere =
        virCheckpointMirrorOverlayPath(source, "/over", "0123456789abcdef");
    g_autofree gchar *output = NULL;
    g_autofree gchar *backing = NULL;
    g_autoptr(GError) error = NULL;
    const gchar *info[] = {"qemu-img", "info", overlay, NULL};

    g_assert_true(g_str_has_suffix(overlay, "/source.qcow2.virtcheckpoint-01234567"));
    g_assert_cmpstr(elsewhere, ==, "/over/source.qcow2.virtcheckpoint-01234567");
    g_assert_true(
        virCheckpointMirrorOverlayCreate(overlay, source, "qcow2", SIZE, &error));
    g_assert_no_error(error);
    g_assert_true(virCheckpointProcessRun(info, &output, &error));
    backing = g_strdup_printf("backing file: %s\n", source);
    g_assert_nonnull(strstr(output, backing));
    g_assert_nonnull(strstr(output, "extended l2: true"));
    g_assert_nonnull(strstr(output, "(8388608 bytes)"));
    g_assert_false(
        virCheckpointMirrorOverlayCreate(overlay, source, "qcow2", SIZE, &error));
}

static void
testRemoveDir(void)
{
    g_autoptr(GDir) handle = g_dir_open(dir, 0, NULL);
    const gchar *name;

    while ((name = g_dir_read_name(handle))) {
        g_autofree gchar *path = testPath(name);

        unlink(path);
    }
    rmdir(dir);
    g_free(dir);
}

int
main(int argc, char **argv)
{
    int rc;

    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("mirrortarget-XXXXXX", NULL);
    g_test_add_func("/mirror-target/good-ones-are-opened", testOpenGood);
    g_test_add_func("/mirror-target/bad-ones-are-refused", testOpenBad);
    g_test_add_func("/mirror-target/one-with-a-backing-file-is-refused",
                    testOpenBacked);
    g_test_add_func("/mirror-target/the-source-is-refused-by-any-name", testOpenSource);
    g_test_add_func("/mirror-target/one-in-use-is-refused", testOpenBusy);
    g_test_add_func("/mirror-target/a-new-one-is-as-private-as-the-source", testCreate);
    g_test_add_func("/mirror-target/a-failed-one-leaves-nothing", testCreateFails);
    g_test_add_func("/mirror-target/only-our-bitmaps-are-removed", testClean);
    g_test_add_func("/mirror-target/overlay-fits-its-source", testOverlay);
    rc = g_test_run();
    testRemoveDir();
    return rc;
}
