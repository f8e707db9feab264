/*
 * qsdguest.c: a storage daemon that stands in for a guest's QEMU
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The monitor that tests hand to the engine's code passes everything on to a storage
 * daemon's, whose bitmaps and transactions are QEMU's own.  A storage daemon has no
 * devices: query-block is answered here.  Guest writes go over an NBD export.
 */

#include "config.h"

#include <glib/gstdio.h>
#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_process.h"
#include "qsdguest.h"

static const gchar *const disks[QSD_GUEST_DISKS] = {"vda", "vdb"};

static void
qsdGuestRun(const gchar *const *argv)
{
    g_autoptr(GError) error = NULL;

    virCheckpointProcessRun(argv, NULL, &error);
    g_assert_no_error(error);
}

gboolean
qsdGuestPossible(void)
{
    g_autofree gchar *qsd = g_find_program_in_path("qemu-storage-daemon");
    g_autofree gchar *img = g_find_program_in_path("qemu-img");
    g_autofree gchar *io = g_find_program_in_path("qemu-io");

    return qsd && img && io;
}

static virCheckpointJson *
qsdGuestBlocks(void)
{
    virCheckpointJson *list = virCheckpointJsonNewArray();
    guint i;

    for (i = 0; i < QSD_GUEST_DISKS; i++) {
        g_autofree gchar *qdev = g_strdup_printf("/machine/peripheral/disk%u/b", i);

        virCheckpointJsonAppend(
            list, virCheckpointJsonBuild(
                      "s:qdev", qdev, "a:inserted",
                      virCheckpointJsonBuild("s:node-name", disks[i], NULL), NULL));
    }
    return list;
}

static gchar *
qsdGuestPass(gpointer peer, const gchar *command, GError **error)
{
    QsdGuest *guest = peer;
    g_autoptr(virCheckpointJson) message = virCheckpointJsonParse(command, -1, error);
    const gchar *name = virCheckpointJsonGetString(message, "execute");
    const virCheckpointJson *arguments = virCheckpointJsonGet(message, "arguments");
    g_autoptr(virCheckpointJson) answer = NULL;
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autoptr(GError) failed = NULL;

    if (g_str_equal(name, "query-block"))
        reply = qsdGuestBlocks();
    else
        reply = virCheckpointMonitorRun(
            guest->inner, name, arguments ? virCheckpointJsonCopy(arguments) : NULL,
            &failed);
    if (!reply && !virCheckpointMonitorAnswered(guest->inner)) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return NULL;
    }
    if (reply)
        answer = virCheckpointJsonBuild("a:return", g_steal_pointer(&reply), NULL);
    else
        answer = virCheckpointJsonBuild(
            "a:error", virCheckpointJsonBuild("s:desc", failed->message, NULL), NULL);
    return virCheckpointJsonFormat(answer);
}

static void
qsdGuestStart(QsdGuest *guest)
{
    static const virCheckpointMonitorOps ops = {.run = qsdGuestPass};
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    guint i;

    g_ptr_array_add(argv, g_strdup("--nbd-server"));
    g_ptr_array_add(argv,
                    g_strdup_printf("addr.type=unix,addr.path=%s/nbd", guest->folder));
    for (i = 0; i < QSD_GUEST_DISKS; i++) {
        g_ptr_array_add(argv, g_strdup("--blockdev"));
        g_ptr_array_add(argv,
                        g_strdup_printf("driver=qcow2,node-name=%s,file.driver=file,"
                                        "file.filename=%s/%s.qcow2,file.node-name=f%s",
                                        disks[i], guest->folder, disks[i], disks[i]));
        g_ptr_array_add(argv, g_strdup("--export"));
        g_ptr_array_add(argv, g_strdup_printf("nbd,id=%s,node-name=%s,writable=on",
                                              disks[i], disks[i]));
    }
    g_ptr_array_add(argv, NULL);
    guest->inner = virCheckpointMonitorNewStorageDaemon(
        (const gchar *const *)argv->pdata, NULL, &error);
    g_assert_no_error(error);
    guest->view.monitor = virCheckpointMonitorNew(&ops, guest, "guest");
}

static void
qsdGuestStop(QsdGuest *guest)
{
    g_clear_pointer(&guest->view.monitor, virCheckpointMonitorFree);
    g_clear_pointer(&guest->inner, virCheckpointMonitorFree);
}

void
qsdGuestRestart(QsdGuest *guest)
{
    qsdGuestStop(guest);
    qsdGuestStart(guest);
}

static void
qsdGuestMakeDisks(QsdGuest *guest)
{
    guint i;

    guest->view.disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskFree);
    for (i = 0; i < QSD_GUEST_DISKS; i++) {
        virCheckpointDisk *disk = g_new0(virCheckpointDisk, 1);
        g_autofree gchar *path =
            g_strdup_printf("%s/%s.qcow2", guest->folder, disks[i]);
        const gchar *const argv[] = {"qemu-img", "create", "-q", "-f",
                                     "qcow2",    path,     "8M", NULL};

        qsdGuestRun(argv);
        disk->target = g_strdup(disks[i]);
        disk->alias = g_strdup_printf("disk%u", i);
        disk->source = g_strdup(path);
        disk->type = g_strdup("file");
        disk->format = g_strdup("qcow2");
        g_ptr_array_add(guest->view.disks, disk);
    }
}

QsdGuest *
qsdGuestNew(void)
{
    QsdGuest *guest = g_new0(QsdGuest, 1);
    g_autoptr(GError) error = NULL;
    g_autofree gchar *root = NULL;
    char uuid[VIR_UUID_STRING_BUFLEN];

    guest->folder = g_dir_make_tmp("qsdguest-XXXXXX", &error);
    g_assert_no_error(error);
    guest->conn = virConnectOpen("test:///default");
    g_assert_nonnull(guest->conn);
    guest->view.domain = virDomainLookupByName(guest->conn, "test");
    g_assert_nonnull(guest->view.domain);
    virDomainGetUUIDString(guest->view.domain, uuid);
    guest->view.uuid = g_strdup(uuid);
    guest->view.name = g_strdup("test");
    guest->view.running = TRUE;
    qsdGuestMakeDisks(guest);
    qsdGuestStart(guest);
    root = g_build_filename(guest->folder, "store", NULL);
    guest->store = virCheckpointStoreOpen(root, &error);
    g_assert_no_error(error);
    guest->slot = virCheckpointStoreDomainOpen(guest->store, uuid, &error);
    g_assert_no_error(error);
    return guest;
}

void
qsdGuestFree(QsdGuest *guest)
{
    const gchar *argv[] = {"rm", "-rf", NULL, NULL};

    if (!guest)
        return;
    qsdGuestStop(guest);
    virCheckpointStoreDomainClose(guest->slot);
    virCheckpointStoreFree(guest->store);
    argv[2] = guest->folder;
    qsdGuestRun(argv);
    virDomainFree(guest->view.domain);
    virConnectClose(guest->conn);
    g_ptr_array_unref(guest->view.disks);
    g_free(guest->view.uuid);
    g_free(guest->view.name);
    g_free(guest->folder);
    g_free(guest);
}

void
qsdGuestWrite(QsdGuest *guest, guint disk, guint cluster)
{
    g_autofree gchar *image =
        g_strdup_printf("nbd+unix:///%s?socket=%s/nbd", disks[disk], guest->folder);
    g_autofree gchar *write =
        g_strdup_printf("write -P 1 %uk 512", cluster * (QSD_GUEST_CLUSTER / 1024));
    const gchar *const argv[] = {"qemu-io", "-f", "raw", "-c", write, image, NULL};

    qsdGuestRun(argv);
}

guint
qsdGuestStrayNodes(QsdGuest *guest)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointGraph) graph =
        virCheckpointGraphQuery(guest->view.monitor, &error);

    g_assert_no_error(error);
    return virCheckpointGraphNodes(graph)->len - 2 * QSD_GUEST_DISKS;
}
