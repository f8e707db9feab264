/*
 * checkpoint_offline_open.c: opening the disks of a guest that is off
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the arguments are made by checkpoint_storage_argv.c; what that needs of
 * libvirt comes from checkpoint_offline_world.c, and here are the headers of images.
 * Those of plain qcow2 files are read here; any other image is opened by a storage
 * daemon of its own first, with the same arguments, and asked what it has below.
 *
 * The images are locked from the moment when they are open (a qcow2 node shares write
 * access with nobody, read-only or not): a guest that is started past us meanwhile
 * fails with QEMU's message, and so do we if it was faster.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_offline_guard.h"
#include "checkpoint_offline_witness.h"
#include "checkpoint_offlinepriv.h"
#include "checkpoint_stamp.h"
#include "checkpoint_storage_volume.h"

#define QCOW2_MAGIC "QFI\xfb"
#define QCOW2_V2_HEADER_BYTES 72
#define QCOW2_V3_HEADER_BYTES 104
#define QCOW2_EXTENSION_BACKING_FORMAT 0xE2792ACAu
/** The header, its extensions and the name lie in the first cluster. */
#define QCOW2_HEAD_BYTES (64 * 1024)
#define QCOW2_BACKING_MAX_BYTES 1023

static guint32
virCheckpointOfflineGet32(const guint8 *at)
{
    guint32 value;

    memcpy(&value, at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static guint64
virCheckpointOfflineGet64(const guint8 *at)
{
    guint64 value;

    memcpy(&value, at, sizeof(value));
    return GUINT64_FROM_BE(value);
}

/* Source: QEMU's docs/interop/qcow2.txt. */
static gboolean
virCheckpointOfflineReadQcow2(const guint8 *head,
                              gsize length,
                              gchar **backing,
                              gchar **format)
{
    guint64 nameAt = virCheckpointOfflineGet64(head + 8);
    guint32 nameBytes = virCheckpointOfflineGet32(head + 16);
    gsize at = QCOW2_V2_HEADER_BYTES;

    if (nameAt == 0 || nameBytes == 0)
        return TRUE;
    if (nameBytes > QCOW2_BACKING_MAX_BYTES || nameAt > length ||
        nameBytes > length - nameAt)
        return FALSE;
    *backing = g_strndup((const gchar *)head + nameAt, nameBytes);
    if (virCheckpointOfflineGet32(head + 4) >= 3)
        at = virCheckpointOfflineGet32(head + 100);
    while (at + 8 <= length) {
        guint32 type = virCheckpointOfflineGet32(head + at);
        guint32 bytes = virCheckpointOfflineGet32(head + at + 4);

        if (type == 0 || bytes > length - at - 8)
            break;
        if (type == QCOW2_EXTENSION_BACKING_FORMAT) {
            *format = g_strndup((const gchar *)head + at + 8, bytes);
            break;
        }
        at += 8 + ((gsize)bytes + 7) / 8 * 8;
    }
    return TRUE;
}

static gboolean
virCheckpointOfflineProbeFile(virCheckpointStorageLayer *layer,
                              gchar **backing,
                              gchar **format,
                              gboolean *done,
                              GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd =
        open(layer->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    g_autofree guint8 *head = g_malloc0(QCOW2_HEAD_BYTES);
    gboolean qcow2;
    struct stat st;
    gssize got;

    if (fd < 0 || fstat(fd, &st) < 0 ||
        (got = pread(fd, head, QCOW2_HEAD_BYTES, 0)) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "cannot open '%s': %s", layer->path, g_strerror(errno));
        return FALSE;
    }
    layer->type = S_ISBLK(st.st_mode) ? VIR_CHECKPOINT_STORAGE_BLOCK
                                      : VIR_CHECKPOINT_STORAGE_FILE;
    qcow2 = got >= QCOW2_V3_HEADER_BYTES && memcmp(head, QCOW2_MAGIC, 4) == 0;
    if (!layer->format) {
        /* As libvirt: what a guest may have written is not believed. */
        if (qcow2) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                        "the format of image '%s' is said nowhere", layer->path);
            return FALSE;
        }
        layer->format = g_strdup("raw");
    }
    *done = g_str_equal(layer->format, "raw") || g_str_equal(layer->format, "qcow2");
    if (!g_str_equal(layer->format, "qcow2"))
        return TRUE;
    if (qcow2 && virCheckpointOfflineReadQcow2(head, (gsize)got, backing, format))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "image '%s' is not in qcow2 format", layer->path);
    return FALSE;
}

/* Images that somebody else has open read-write can then be read. */
static void
virCheckpointOfflineShare(gchar **argv)
{
    for (; *argv; argv++) {
        g_autoptr(virCheckpointJson) node = NULL;

        if (!g_str_equal(*argv, "--blockdev") || !argv[1] ||
            !(node = virCheckpointJsonParse(argv[1], -1, NULL)))
            continue;
        virCheckpointJsonAddBoolean(node, "force-share", TRUE);
        g_free(argv[1]);
        argv[1] = virCheckpointJsonFormat(node);
    }
}

/* The disks of which something is on a server, for errors: "'vda', 'vdb'", or NULL. */
static gchar *
virCheckpointOfflineServed(GPtrArray *disks)
{
    GString *names = g_string_new(NULL);
    guint i;
    guint j;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);
        gboolean served = FALSE;

        for (j = 0; j < disk->layers->len; j++) {
            const virCheckpointStorageLayer *layer = g_ptr_array_index(disk->layers, j);

            served = served || (layer->type != VIR_CHECKPOINT_STORAGE_FILE &&
                                layer->type != VIR_CHECKPOINT_STORAGE_BLOCK);
        }
        if (served)
            g_string_append_printf(names, "%s'%s'", names->len > 0 ? ", " : "",
                                   disk->target ? disk->target : "destination");
    }
    return g_string_free(names, names->len == 0);
}

static virCheckpointMonitor *
virCheckpointOfflineStart(GPtrArray *disks,
                          gboolean writable,
                          const virCheckpointOfflineService *service,
                          GArray *fds,
                          GError **error)
{
    g_autofree gchar *served = virCheckpointOfflineServed(disks);
    virCheckpointStorageDaemonOptions options = {
        .fds = (const int *)(gpointer)fds->data,
        .fdCount = fds->len,
        .network = virCheckpointStorageNeedsNetwork(disks),
        .orderly = writable,
        .served = served,
        .pid = service ? service->pid : NULL,
    };
    g_auto(GStrv) argv = virCheckpointStorageArgv(disks, writable);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    g_autoptr(GError) failed = NULL;
    virCheckpointMonitor *monitor;
    gsize i;

    if (service && service->shared)
        virCheckpointOfflineShare(argv);
    for (i = 0; argv[i]; i++)
        g_ptr_array_add(all, argv[i]);
    for (i = 0; service && service->argv && service->argv[i]; i++)
        g_ptr_array_add(all, (gpointer)service->argv[i]);
    g_ptr_array_add(all, NULL);
    monitor = virCheckpointMonitorNewStorageDaemon((const gchar *const *)all->pdata,
                                                   &options, &failed);
    if (!monitor)
        g_set_error(error, VIR_CHECKPOINT_ERROR,
                    strstr(failed->message, "\" lock") ? VIR_ERR_RESOURCE_BUSY
                                                       : failed->code,
                    "the domain's images cannot be opened: %s", failed->message);
    return monitor;
}

/*
 * Any image that QEMU can open: a storage daemon that opens nothing else says what its
 * header has.
 */
static gboolean
virCheckpointOfflineProbeImage(virCheckpointStorageLayer *layer,
                               gchar **backing,
                               gchar **format,
                               virConnectPtr conn,
                               GError **error)
{
    g_autoptr(GPtrArray) layers = g_ptr_array_new();
    g_autoptr(GPtrArray) disks = g_ptr_array_new();
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    virCheckpointStorageDisk disk = {.layers = layers, .complete = TRUE};
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(virCheckpointJson) nodes = NULL;
    gsize i;

    g_ptr_array_add(layers, layer);
    g_ptr_array_add(disks, &disk);
    if (virCheckpointOfflineSecrets(conn, &disk, fds, error))
        monitor = virCheckpointOfflineStart(disks, FALSE, NULL, fds, error);
    virCheckpointOfflineCloseFds(&disk);
    if (!monitor || !(nodes = virCheckpointMonitorQueryNodes(monitor, error)))
        return FALSE;
    for (i = 0; i < virCheckpointJsonLength(nodes); i++) {
        const virCheckpointJson *node = virCheckpointJsonIndex(nodes, i);
        const virCheckpointJson *image = virCheckpointJsonGet(node, "image");

        if (!g_str_has_suffix(virCheckpointJsonGetString(node, "node-name"), "-format"))
            continue;
        *backing = g_strdup(virCheckpointJsonGetString(image, "backing-filename"));
        *format =
            g_strdup(virCheckpointJsonGetString(image, "backing-filename-format"));
    }
    return TRUE;
}

static gboolean
virCheckpointOfflineProbe(virCheckpointStorageLayer *layer,
                          gchar **backing,
                          gchar **format,
                          gpointer data,
                          GError **error)
{
    gboolean done = FALSE;

    if ((layer->type == VIR_CHECKPOINT_STORAGE_FILE ||
         layer->type == VIR_CHECKPOINT_STORAGE_BLOCK) &&
        !layer->slice &&
        !virCheckpointOfflineProbeFile(layer, backing, format, &done, error))
        return FALSE;
    return done || virCheckpointOfflineProbeImage(layer, backing, format, data, error);
}

virCheckpointMonitor *
virCheckpointOfflineOpenDisks(virConnectPtr conn,
                              GPtrArray *disks,
                              gboolean writable,
                              GArray *inherited,
                              GError **error)
{
    return virCheckpointOfflineServe(conn, disks, writable, NULL, inherited, error);
}

virCheckpointMonitor *
virCheckpointOfflineServe(virConnectPtr conn,
                          GPtrArray *disks,
                          gboolean writable,
                          const virCheckpointOfflineService *service,
                          GArray *inherited,
                          GError **error)
{
    virCheckpointMonitor *monitor = NULL;
    gboolean ready = TRUE;
    guint i;

    if (!virCheckpointStorageComplete(disks, virCheckpointOfflineProbe, conn, error))
        return NULL;
    for (i = 0; ready && i < disks->len; i++)
        ready = virCheckpointOfflineSecrets(conn, g_ptr_array_index(disks, i),
                                            inherited, error);
    if (ready)
        monitor = virCheckpointOfflineStart(disks, writable, service, inherited, error);
    for (i = 0; i < disks->len; i++)
        virCheckpointOfflineCloseFds(g_ptr_array_index(disks, i));
    return monitor;
}

/* The disks that are open get the names of their nodes, the others none. */
static void
virCheckpointOfflineName(virCheckpointDomainView *view, GPtrArray *open)
{
    guint i;
    guint j;

    for (i = 0; i < view->disks->len; i++) {
        virCheckpointDisk *disk = g_ptr_array_index(view->disks, i);

        g_clear_pointer(&disk->alias, g_free);
        for (j = 0; open && j < open->len; j++) {
            const virCheckpointStorageDisk *found = g_ptr_array_index(open, j);

            if (g_str_equal(found->target, disk->target))
                disk->alias = g_strdup(found->node);
        }
    }
}

void
virCheckpointOfflineClose(virCheckpointDomainView *view)
{
    if (view->running)
        return;
    virCheckpointOfflineUnguardRest(view);
    g_clear_pointer(&view->monitor, virCheckpointMonitorFree);
    g_clear_pointer(&view->witness, virCheckpointOfflineWitnessFree);
    virCheckpointOfflineUnguard(view);
    view->writable = FALSE;
    virCheckpointOfflineName(view, NULL);
}

/* The top images; what is no plain file is left out by the witness. */
static GPtrArray *
virCheckpointOfflineTops(GPtrArray *disks)
{
    GPtrArray *paths = g_ptr_array_new();
    guint i;

    for (i = 0; i < disks->len; i++) {
        const virCheckpointStorageDisk *disk = g_ptr_array_index(disks, i);
        const virCheckpointStorageLayer *top = g_ptr_array_index(disk->layers, 0);

        if (top->type == VIR_CHECKPOINT_STORAGE_FILE)
            g_ptr_array_add(paths, top->path);
    }
    return paths;
}

gboolean
virCheckpointOfflineOpen(virCheckpointDomainView *view,
                         GPtrArray *targets,
                         gboolean writable,
                         const int *fds,
                         guint fdCount,
                         GError **error)
{
    g_autoptr(GArray) inherited = g_array_new(FALSE, FALSE, sizeof(int));
    virCheckpointOfflineService service = {0};
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GPtrArray) tops = NULL;
    g_autofree gchar *xml = NULL;
    /* A copy runs for long, and has its own way (virCheckpointOfflineHold). */
    gboolean guarded = writable || fdCount == 0;

    g_assert(!view->running);
    virCheckpointOfflineClose(view);
    if (!(xml = virCheckpointStorageTranslate(
              view->xml, targets, virCheckpointOfflineVolume, view->conn, error)) ||
        !(disks = virCheckpointStorageDisks(xml, targets, error)))
        return FALSE;
    if (!virCheckpointOfflineGuard(view, targets, guarded ? error : NULL) && guarded)
        return FALSE;
    if (writable)
        virCheckpointOfflineLend(view);
    if (fdCount > 0)
        g_array_append_vals(inherited, fds, fdCount);
    if (writable && fdCount > 0) {
        tops = virCheckpointOfflineTops(disks);
        view->witness = virCheckpointOfflineWitnessNew(fds[0], tops);
        service.pid = virCheckpointOfflineWitnessPid(view->witness);
    }
    view->monitor = virCheckpointOfflineServe(view->conn, disks, writable, &service,
                                              inherited, error);
    if (!view->monitor ||
        (guarded && !virCheckpointOfflineGuardRest(view, targets, error))) {
        virCheckpointOfflineClose(view);
        return FALSE;
    }
    view->writable = writable;
    virCheckpointOfflineName(view, disks);
    return TRUE;
}

gchar *
virCheckpointOfflineStamp(const gchar *path)
{
    return virCheckpointStampLookPath(path, VIR_CHECKPOINT_STAMP_CHANGE);
}
