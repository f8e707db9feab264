/*
 * sidecartest.c: sidecars are written, read back, merged; broken ones are refused
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_process.h"
#include "checkpoint_sidecar.h"
#include "qsdguest.h"

static void
testRun(const gchar *const *argv)
{
    g_autoptr(GError) error = NULL;

    virCheckpointProcessRun(argv, NULL, &error);
    g_assert_no_error(error);
}

/* A real file: qcow2 of @size with the bitmap "bits" over what @write wrote. */
static gchar *
testImage(QsdGuest *guest, const gchar *size, const gchar *write)
{
    gchar *path = g_strdup_printf("%s/bits.qcow2", guest->folder);
    const gchar *const create[] = {"qemu-img", "create", "-q", "-f",
                                   "qcow2",    path,     size, NULL};
    const gchar *const add[] = {"qemu-img", "bitmap", "--add", path, "bits", NULL};
    const gchar *const io[] = {"qemu-io", "-c", write, path, NULL};

    testRun(create);
    testRun(add);
    testRun(io);
    return path;
}

/* Without a sync: this is done by the thousand. */
static void
testPut(const gchar *path, const gchar *bytes, gsize length)
{
    FILE *file = fopen(path, "wb");

    g_assert_nonnull(file);
    g_assert_cmpuint(fwrite(bytes, 1, length, file), ==, length);
    g_assert_cmpint(fclose(file), ==, 0);
}

static gboolean
testSkip(void)
{
    if (qsdGuestPossible())
        return FALSE;
    g_test_skip("needs qemu-storage-daemon, qemu-img and qemu-io");
    return TRUE;
}

static void
testReadsWhatQemuWrote(void)
{
    static const struct {
        const gchar *size;
        const gchar *write;
        guint64 sizeBytes;
        guint64 countBytes;
    } cases[] = {
        {"8M", "write 0 512", 8 << 20, 65536},
        {"8M", "write 65535 2", 8 << 20, 2 * 65536},
        {"8M", "read 0 512", 8 << 20, 0},
        {"8M", "write 0 8M", 8 << 20, 8 << 20},
        /* The last granule counts whole. */
        {"1000k", "write 0 1000k", 1000 << 10, 1024 << 10},
        /* Several clusters of bits, most of them all zeroes: one is 32 GiB. */
        {"100G", "write 99G 1M", G_GUINT64_CONSTANT(100) << 30, 1 << 20},
    };
    gsize i;

    if (testSkip())
        return;
    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(QsdGuest) guest = qsdGuestNew();
        g_autofree gchar *path = testImage(guest, cases[i].size, cases[i].write);
        virCheckpointSidecarInfo info;
        g_autoptr(GError) error = NULL;

        virCheckpointSidecarRead(path, &info, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(info.sizeBytes, ==, cases[i].sizeBytes);
        g_assert_cmpuint(info.granularity, ==, 65536);
        g_assert_cmpuint(info.countBytes, ==, cases[i].countBytes);
        g_assert_false(info.inUse);
    }
}

/* QEMU finds nothing wrong with the files that we make, and takes bitmaps into them. */
static void
testMakesWhatQemuTakes(void)
{
    static const guint64 sizes[] = {
        512, 8 << 20, G_GUINT64_CONSTANT(512) << 20,
        /* The last with an L1 table of one cluster, the first with one of two. */
        G_GUINT64_CONSTANT(4) << 40, (G_GUINT64_CONSTANT(4) << 40) + 512,
        G_GUINT64_CONSTANT(63) << 40};
    gsize i;

    if (testSkip())
        return;
    for (i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(QsdGuest) guest = qsdGuestNew();
        g_autofree gchar *path = g_strdup_printf("%s/made.qcow2", guest->folder);
        const gchar *const check[] = {"qemu-img", "check", "-q", path, NULL};
        const gchar *const add[] = {"qemu-img", "bitmap", "--add", "-g",
                                    "2M",       path,     "made",  NULL};
        virCheckpointSidecarInfo info;
        g_autoptr(GError) error = NULL;
        struct stat status;

        virCheckpointSidecarMake(path, sizes[i], &error);
        g_assert_no_error(error);
        g_assert_cmpint(stat(path, &status), ==, 0);
        g_assert_cmpuint(status.st_mode & 0777, ==, 0600);
        testRun(check);
        testRun(add);
        testRun(check);
        virCheckpointSidecarRead(path, &info, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(info.sizeBytes, ==, sizes[i]);
        g_assert_cmpuint(info.countBytes, ==, 0);
    }
}

static void
testMakeRefusesHuge(void)
{
    g_autofree gchar *folder = g_dir_make_tmp("sidecartest-XXXXXX", NULL);
    g_autofree gchar *path = g_build_filename(folder, "huge", NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(virCheckpointSidecarMake(path, G_GUINT64_CONSTANT(1) << 62, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_unlink(path);
    g_rmdir(folder);
}

static void
testRefused(const gchar *path, const gchar *reason)
{
    virCheckpointSidecarInfo info;
    g_autoptr(GError) error = NULL;

    g_assert_false(virCheckpointSidecarRead(path, &info, &error));
    g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(error->message, path));
    if (!strstr(error->message, reason))
        g_error("'%s' does not say '%s'", error->message, reason);
}

static void
testRefusesOtherFiles(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autofree gchar *path = NULL;
    const gchar *const old[] = {"qemu-img", "create",      "-q",        "-f", "qcow2",
                                "-o",       "compat=0.10", "old.qcow2", "1M", NULL};

    if (testSkip())
        return;
    guest = qsdGuestNew();
    path = g_strdup_printf("%s/vda.qcow2", guest->folder);
    testRefused("/nonexistent", "No such file");
    testRefused(guest->folder, "");
    testRefused(path, "holds no");
    g_file_set_contents(path, "QFI\xfb", -1, NULL);
    testRefused(path, "truncated");
    g_file_set_contents(path, "#!/bin/sh", -1, NULL);
    testRefused(path, "truncated");
    g_assert_cmpint(g_chdir(guest->folder), ==, 0);
    testRun(old);
    testRefused("old.qcow2", "not a qcow2 version 3");
    g_assert_cmpint(g_chdir("/"), ==, 0);
}

/* Cut anywhere a file is refused, or what it says is still right. */
static void
testRefusesTruncated(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autofree gchar *path = NULL;
    g_autofree gchar *bytes = NULL;
    virCheckpointSidecarInfo whole;
    gsize length;
    gsize cut;
    guint refused = 0;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    path = testImage(guest, "8M", "write 1M 1M");
    g_assert_true(virCheckpointSidecarRead(path, &whole, NULL));
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    for (cut = 0; cut < length; cut += cut < 1024 ? 1 : 4099) {
        virCheckpointSidecarInfo info;

        testPut(path, bytes, cut);
        if (virCheckpointSidecarRead(path, &info, NULL))
            g_assert_true(info.countBytes == whole.countBytes &&
                          info.sizeBytes == whole.sizeBytes && !info.inUse);
        else
            refused++;
    }
    g_assert_cmpuint(refused, >, 1024);
}

/* Single bytes changed anywhere in the metadata: never a crash, never a huge read. */
static void
testSurvivesChangedBytes(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autofree gchar *path = NULL;
    g_autofree gchar *bytes = NULL;
    gsize length;
    guint i;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    path = testImage(guest, "8M", "write 1M 1M");
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    for (i = 0; i < 3000; i++) {
        const gchar *name = memmem(bytes, length, "bits", 4);
        g_autofree gchar *changed = g_memdup2(bytes, length);
        virCheckpointSidecarInfo info;
        gsize at = (gsize)g_test_rand_int_range(0, 512);

        /* Header and extensions, or the bitmap's directory entry. */
        if (i % 2 && name)
            at = (gsize)(name - bytes) - 24 + at % 28;
        changed[at] = (gchar)g_test_rand_int_range(0, 256);
        if (i % 3 == 0)
            memset(changed + at, 0xff, MIN(8, length - at));
        testPut(path, changed, length);
        virCheckpointSidecarRead(path, &info, NULL);
    }
}

static void
testSeesInUse(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autofree gchar *path = NULL;
    g_autofree gchar *bytes = NULL;
    virCheckpointSidecarInfo info;
    g_autoptr(GError) error = NULL;
    gchar *entry;
    gsize length;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    path = testImage(guest, "8M", "write 1M 1M");
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    /* A directory entry: 24 bytes before the name, flags at 12.  A stale one may be
     * there as well. */
    for (entry = bytes;
         (entry = memmem(entry, length - (gsize)(entry - bytes), "bits", 4)); entry++)
        entry[-24 + 15] |= 1;
    testPut(path, bytes, length);
    virCheckpointSidecarRead(path, &info, &error);
    g_assert_no_error(error);
    g_assert_true(info.inUse);
}

static void
testAddBitmapOf(QsdGuest *guest,
                const gchar *node,
                const gchar *name,
                guint64 granularity,
                guint flags)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GError) error = NULL;

    virCheckpointTxnAdd(txn, node, name, granularity, flags);
    virCheckpointTxnRun(txn, guest->view.monitor, &error);
    g_assert_no_error(error);
}

static void
testAddBitmap(QsdGuest *guest, const gchar *node, const gchar *name, guint flags)
{
    testAddBitmapOf(guest, node, name, 65536, flags);
}

static guint64
testCount(QsdGuest *guest, const gchar *node, const gchar *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointGraph) graph =
        virCheckpointGraphQuery(guest->view.monitor, &error);

    g_assert_no_error(error);
    return virCheckpointNodeBitmap(virCheckpointGraphNode(graph, node), name)
               ->countBytes /
           QSD_GUEST_CLUSTER;
}

/* Writes @count sidecars of one cluster each; returns their names. */
static GPtrArray *
testWriteSidecars(QsdGuest *guest, guint count)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < count; i++) {
        g_autofree gchar *bitmap = g_strdup_printf("b%u", i);
        g_autofree gchar *id = virCheckpointRecordNewId();
        virCheckpointBitmapRef ref = {"vda", bitmap};
        g_autoptr(GArray) sources = g_array_new(FALSE, FALSE, sizeof(ref));
        g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
        g_autoptr(GError) error = NULL;
        gchar *name = g_strdup_printf("%s.1.qcow2", id);

        testAddBitmap(guest, "vda", bitmap, 0);
        if (i < 3)
            qsdGuestWrite(guest, 0, i);
        g_array_append_val(sources, ref);
        virCheckpointSidecarWrite(guest->slot, guest->view.monitor, QSD_GUEST_SIZE,
                                  65536, sources, name, &error);
        g_assert_no_error(error);
        virCheckpointTxnRemove(txn, "vda", bitmap);
        virCheckpointTxnRun(txn, guest->view.monitor, &error);
        g_assert_no_error(error);
        g_ptr_array_add(names, name);
    }
    return names;
}

static void
testManyAreMerged(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GError) error = NULL;
    guint i;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    names = testWriteSidecars(guest, 3);
    /* More than are opened at a time. */
    for (i = 0; i < 32; i++)
        g_ptr_array_add(names, g_strdup(g_ptr_array_index(names, i)));
    testAddBitmap(guest, "vda", "all", VIR_CHECKPOINT_BITMAP_DISABLED);
    virCheckpointSidecarLoad(guest->slot, guest->view.monitor, names, "vda", "all",
                             &error);
    g_assert_no_error(error);
    g_assert_cmpuint(testCount(guest, "vda", "all"), ==, 3);
    g_assert_cmpuint(qsdGuestStrayNodes(guest), ==, 0);
}

static void
testManyBecomeOne(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(GArray) infos = NULL;
    g_autofree gchar *id = virCheckpointRecordNewId();
    g_autofree gchar *name = g_strconcat(id, ".1.qcow2", NULL);
    g_autofree gchar *path = NULL;
    virCheckpointBitmapRef ref = {"vda", "fine"};
    g_autoptr(GArray) sources = g_array_new(FALSE, FALSE, sizeof(ref));
    virCheckpointSidecarInfo info;
    g_autoptr(GError) error = NULL;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    names = testWriteSidecars(guest, 2);
    testAddBitmapOf(guest, "vda", "fine", 4096, 0);
    qsdGuestWrite(guest, 0, 5);
    g_array_append_val(sources, ref);
    virCheckpointSidecarWrite(guest->slot, guest->view.monitor, QSD_GUEST_SIZE, 4096,
                              sources, name, &error);
    g_assert_no_error(error);
    g_ptr_array_add(names, g_strdup(name));
    infos = virCheckpointSidecarReadAll(guest->slot, names, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(infos->len, ==, 3);
    virCheckpointSidecarUnite(guest->slot, names, infos, QSD_GUEST_SIZE, "all.1.qcow2",
                              &error);
    g_assert_no_error(error);
    path = virCheckpointStoreDomainPath(guest->slot, "all.1.qcow2", NULL);
    g_assert_true(virCheckpointSidecarRead(path, &info, NULL));
    g_assert_cmpuint(info.granularity, ==, 4096);
    /* Neither less nor more than they had. */
    g_assert_cmpuint(info.countBytes, ==, 2 * QSD_GUEST_CLUSTER + 4096);
    g_assert_cmpint(unlink(path), ==, 0);
    g_ptr_array_add(names, g_strdup("all.1.qcow2"));
    g_assert_null(virCheckpointSidecarReadAll(guest->slot, names, &error));
    g_assert_nonnull(strstr(error->message, path));
}

static void
testMissingSidecarIsAnError(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autofree gchar *path = NULL;
    g_autoptr(GError) error = NULL;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    names = testWriteSidecars(guest, 3);
    path = virCheckpointStoreDomainPath(guest->slot, g_ptr_array_index(names, 2), NULL);
    g_assert_cmpint(unlink(path), ==, 0);
    testAddBitmap(guest, "vda", "all", VIR_CHECKPOINT_BITMAP_DISABLED);
    g_assert_false(virCheckpointSidecarLoad(guest->slot, guest->view.monitor, names,
                                            "vda", "all", &error));
    g_assert_nonnull(strstr(error->message, path));
    g_assert_cmpuint(testCount(guest, "vda", "all"), ==, 0);
    g_assert_cmpuint(qsdGuestStrayNodes(guest), ==, 0);
}

static void
testResizedDiskKeepsItsBits(void)
{
    g_autoptr(QsdGuest) guest = NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autofree gchar *before = NULL;
    g_autofree gchar *after = NULL;
    g_autofree gchar *path = NULL;
    gsize length;
    g_autoptr(GError) error = NULL;

    if (testSkip())
        return;
    guest = qsdGuestNew();
    names = testWriteSidecars(guest, 3);
    path = virCheckpointStoreDomainPath(guest->slot, g_ptr_array_index(names, 0), NULL);
    g_assert_true(g_file_get_contents(path, &before, &length, NULL));
    reply = virCheckpointMonitorRun(
        guest->view.monitor, "blockdev-add",
        virCheckpointJsonBuild("s:driver", "null-co", "s:node-name", "larger", "u:size",
                               (guint64)QSD_GUEST_SIZE * 2, "b:read-zeroes", TRUE,
                               NULL),
        &error);
    g_assert_no_error(error);
    testAddBitmap(guest, "larger", "all", VIR_CHECKPOINT_BITMAP_DISABLED);
    virCheckpointSidecarLoad(guest->slot, guest->view.monitor, names, "larger", "all",
                             &error);
    g_assert_no_error(error);
    g_assert_cmpuint(testCount(guest, "larger", "all"), ==, 3);
    /* Done in a copy. */
    g_assert_true(g_file_get_contents(path, &after, &length, NULL));
    g_assert_cmpmem(before, length, after, length);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sidecar/reads-what-qemu-wrote", testReadsWhatQemuWrote);
    g_test_add_func("/sidecar/makes-what-qemu-takes", testMakesWhatQemuTakes);
    g_test_add_func("/sidecar/makes-no-huge-files", testMakeRefusesHuge);
    g_test_add_func("/sidecar/refuses-other-files", testRefusesOtherFiles);
    g_test_add_func("/sidecar/refuses-truncated", testRefusesTruncated);
    g_test_add_func("/sidecar/survives-changed-bytes", testSurvivesChangedBytes);
    g_test_add_func("/sidecar/sees-in-use", testSeesInUse);
    g_test_add_func("/sidecar/many-are-merged", testManyAreMerged);
    g_test_add_func("/sidecar/many-become-one", testManyBecomeOne);
    g_test_add_func("/sidecar/missing-one-is-an-error", testMissingSidecarIsAnError);
    g_test_add_func("/sidecar/resized-disk-keeps-its-bits",
                    testResizedDiskKeepsItsBits);
    return g_test_run();
}
