/*
 * checkpoint_sidecar.c: frozen bits in small qcow2 files of their own
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a sidecar is a qcow2 file of the disk's size without data and with one
 * bitmap. QEMU writes it: the file is handed over as a descriptor (so that confinement
 * does not matter), opened as a node, given a persistent bitmap and closed again.  A
 * sidecar that has its final name is complete: it was read back, synced and then
 * renamed.  It is never opened read-write again, because a crash while a qcow2 is open
 * that way spoils every bitmap in it; whatever changes one writes a new file.
 *
 * Several are written together: opened, filled in one transaction (their own, or one
 * that the caller has anyway), closed (checkpoint_sidecar_nodes.c).
 *
 * What a crash leaves: *.tmp files, nodes and fdsets in QEMU.  Settling removes them.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_process.h"
#include "checkpoint_record.h"
#include "checkpoint_sidecarpriv.h"

/** Sidecars open at a time. */
#define SIDECAR_BATCH 32
/** From so many on a storage daemon of its own pays, which takes some 0.1 s to start.
 */
#define SIDECAR_MANY 48

gchar *
virCheckpointSidecarBitmap(const gchar *file)
{
    static const gchar *const suffixes[] = {".tmp", ".qcow2"};
    gchar *name = g_path_get_basename(file);
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        if (g_str_has_suffix(name, suffixes[i]))
            name[strlen(name) - strlen(suffixes[i])] = '\0';
    }
    return name;
}

virCheckpointSidecarPart *
virCheckpointSidecarPartNew(const gchar *fileName,
                            guint64 sizeBytes,
                            guint64 granularity)
{
    virCheckpointSidecarPart *part = g_new0(virCheckpointSidecarPart, 1);

    part->fileName = g_strdup(fileName);
    part->sizeBytes = sizeBytes;
    part->granularity = granularity;
    part->sources = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    return part;
}

void
virCheckpointSidecarPartFree(virCheckpointSidecarPart *part)
{
    if (!part)
        return;
    g_free(part->fileName);
    g_array_unref(part->sources);
    g_free(part);
}

struct virCheckpointSidecarBatch {
    virCheckpointStoreDomain *store;
    virCheckpointMonitor *monitor;
    virCheckpointSidecarPart **parts; /* borrowed */
    guint count;
    /* In step with @parts: */
    GPtrArray *temporary; /* gchar*: paths; what is left of them is removed at last */
    virCheckpointSidecarNodes *nodes;
    guint64 *counted; /* bytes, as QEMU shows them */
};

void
virCheckpointSidecarBatchFree(virCheckpointSidecarBatch *batch)
{
    guint i;

    if (!batch)
        return;
    virCheckpointSidecarNodesFree(batch->nodes);
    for (i = 0; i < batch->temporary->len; i++)
        unlink(g_ptr_array_index(batch->temporary, i));
    g_ptr_array_unref(batch->temporary);
    g_free(batch->counted);
    g_free(batch);
}

/* Makes the file of @part and hands it over. */
static gboolean
virCheckpointSidecarBatchMake(virCheckpointSidecarBatch *batch,
                              const virCheckpointSidecarPart *part,
                              GError **error)
{
    g_autofree gchar *path =
        virCheckpointStoreDomainPath(batch->store, part->fileName, error);
    g_autofree gchar *bitmap = virCheckpointSidecarBitmap(part->fileName);
    gchar *temporary;

    if (!path)
        return FALSE;
    temporary = g_strconcat(path, ".tmp", NULL);
    g_ptr_array_add(batch->temporary, temporary);
    return virCheckpointSidecarMake(temporary, part->sizeBytes, error) &&
           virCheckpointFaultPoint("sidecar/made", error) &&
           virCheckpointSidecarNodesAdd(batch->nodes, temporary, bitmap, FALSE, error);
}

virCheckpointSidecarBatch *
virCheckpointSidecarBatchOpen(virCheckpointStoreDomain *store,
                              virCheckpointMonitor *monitor,
                              virCheckpointSidecarPart **parts,
                              guint count,
                              GError **error)
{
    g_autoptr(virCheckpointSidecarBatch) batch = g_new0(virCheckpointSidecarBatch, 1);
    guint i;

    batch->store = store;
    batch->monitor = monitor;
    batch->parts = parts;
    batch->count = count;
    batch->temporary = g_ptr_array_new_with_free_func(g_free);
    batch->nodes = virCheckpointSidecarNodesNew(monitor, FALSE);
    batch->counted = g_new0(guint64, count);
    for (i = 0; i < count; i++) {
        if (!virCheckpointSidecarBatchMake(batch, parts[i], error))
            return NULL;
    }
    if (!virCheckpointSidecarNodesOpen(batch->nodes, error) ||
        !virCheckpointFaultPoint("sidecar/attached", error))
        return NULL;
    return g_steal_pointer(&batch);
}

void
virCheckpointSidecarBatchFill(virCheckpointSidecarBatch *batch, virCheckpointTxn *txn)
{
    guint i;

    for (i = 0; i < batch->count; i++) {
        const virCheckpointSidecarPart *part = batch->parts[i];
        virCheckpointBitmapRef ref = virCheckpointSidecarNodesRef(batch->nodes, i);

        g_assert(part->sources->len > 0);
        virCheckpointTxnAdd(txn, ref.node, ref.name, part->granularity,
                            VIR_CHECKPOINT_BITMAP_PERSISTENT |
                                VIR_CHECKPOINT_BITMAP_DISABLED);
        virCheckpointTxnMerge(txn, ref.node, ref.name, part->sources);
    }
}

/* What QEMU shows of the new bitmaps, unless it showed that of their sources. */
static gboolean
virCheckpointSidecarBatchCount(virCheckpointSidecarBatch *batch, GError **error)
{
    g_autoptr(virCheckpointGraph) graph = NULL;
    guint i;

    for (i = 0; i < batch->count; i++) {
        const virCheckpointSidecarPart *part = batch->parts[i];
        virCheckpointBitmapRef ref = virCheckpointSidecarNodesRef(batch->nodes, i);
        const virCheckpointNode *node;
        const virCheckpointBitmapInfo *bits = NULL;

        batch->counted[i] = part->countBytes;
        if (part->counted)
            continue;
        if (!graph && !(graph = virCheckpointGraphQueryNodes(batch->monitor, error)))
            return FALSE;
        if ((node = virCheckpointGraphNode(graph, ref.node)))
            bits = virCheckpointNodeBitmap(node, ref.name);
        if (!bits) {
            g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                                "the sidecar's bitmap went away");
            return FALSE;
        }
        batch->counted[i] = bits->countBytes;
    }
    return TRUE;
}

static gboolean
virCheckpointSidecarVerify(const gchar *path,
                           const virCheckpointSidecarPart *part,
                           guint64 countBytes,
                           GError **error)
{
    virCheckpointSidecarInfo info;

    if (!virCheckpointSidecarRead(path, &info, error))
        return FALSE;
    if (info.inUse || info.sizeBytes != part->sizeBytes ||
        info.granularity != part->granularity || info.countBytes != countBytes) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sidecar '%s' does not hold what was written into it", path);
        return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointSidecarBatchClose(virCheckpointSidecarBatch *batch, GError **error)
{
    guint i;

    if (!virCheckpointSidecarBatchCount(batch, error) ||
        !virCheckpointFaultPoint("sidecar/filled", error) ||
        !virCheckpointSidecarNodesClose(batch->nodes, error) ||
        !virCheckpointFaultPoint("sidecar/detached", error))
        return FALSE;
    for (i = 0; i < batch->count; i++) {
        const gchar *path = g_ptr_array_index(batch->temporary, i);

        if (!virCheckpointSidecarVerify(path, batch->parts[i], batch->counted[i],
                                        error) ||
            !virCheckpointFileSyncData(path, error))
            return FALSE;
    }
    if (!virCheckpointFaultPoint("sidecar/synced", error))
        return FALSE;
    for (i = 0; i < batch->count; i++) {
        const gchar *path = g_ptr_array_index(batch->temporary, i);
        g_autofree gchar *final = g_strndup(path, strlen(path) - strlen(".tmp"));

        if (!virCheckpointFileMove(path, final, error) ||
            !virCheckpointFaultPoint("sidecar/renamed", error))
            return FALSE;
    }
    virCheckpointStoreTouched(batch->store);
    /* All are in one folder. */
    return virCheckpointFileSyncName(g_ptr_array_index(batch->temporary, 0), error);
}

gboolean
virCheckpointSidecarWriteAll(virCheckpointStoreDomain *store,
                             virCheckpointMonitor *monitor,
                             GPtrArray *parts,
                             GError **error)
{
    guint done;

    for (done = 0; done < parts->len; done += SIDECAR_BATCH) {
        g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
        g_autoptr(virCheckpointSidecarBatch) batch = virCheckpointSidecarBatchOpen(
            store, monitor, (virCheckpointSidecarPart **)parts->pdata + done,
            MIN(SIDECAR_BATCH, parts->len - done), error);

        if (!batch)
            return FALSE;
        virCheckpointSidecarBatchFill(batch, txn);
        if (!virCheckpointTxnRun(txn, monitor, error) ||
            !virCheckpointSidecarBatchClose(batch, error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointSidecarWrite(virCheckpointStoreDomain *store,
                          virCheckpointMonitor *monitor,
                          guint64 sizeBytes,
                          guint64 granularity,
                          GArray *sources,
                          const gchar *fileName,
                          GError **error)
{
    g_autoptr(virCheckpointSidecarPart) part =
        virCheckpointSidecarPartNew(fileName, sizeBytes, granularity);
    g_autoptr(GPtrArray) parts = g_ptr_array_new();

    g_array_append_vals(part->sources, sources->data, sources->len);
    g_ptr_array_add(parts, part);
    return virCheckpointSidecarWriteAll(store, monitor, parts, error);
}

gboolean
virCheckpointSidecarSalvage(virCheckpointStoreDomain *store,
                            virCheckpointMonitor *monitor,
                            const gchar *image,
                            const gchar *bitmap,
                            const gchar *fileName,
                            gboolean *saved,
                            GError **error)
{
    g_autoptr(virCheckpointSidecarNodes) attached =
        virCheckpointSidecarNodesNew(monitor, TRUE);
    g_autoptr(virCheckpointGraph) graph = NULL;
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    virCheckpointBitmapRef ref;
    const virCheckpointNode *node;
    const virCheckpointBitmapInfo *info = NULL;

    *saved = FALSE;
    if (!g_file_test(image, G_FILE_TEST_IS_REGULAR))
        return TRUE;
    if (!virCheckpointSidecarNodesAdd(attached, image, bitmap, FALSE, error) ||
        !virCheckpointSidecarNodesOpen(attached, error) ||
        !(graph = virCheckpointGraphQueryNodes(monitor, error)))
        return FALSE;
    ref = virCheckpointSidecarNodesRef(attached, 0);
    if ((node = virCheckpointGraphNode(graph, ref.node)))
        info = virCheckpointNodeBitmap(node, bitmap);
    if (!info || info->inconsistent)
        return virCheckpointSidecarNodesClose(attached, error);
    g_array_append_val(sources, ref);
    if (!virCheckpointSidecarWrite(store, monitor, node->sizeBytes, info->granularity,
                                   sources, fileName, error) ||
        !virCheckpointSidecarNodesClose(attached, error))
        return FALSE;
    *saved = TRUE;
    return TRUE;
}

/* QEMU's words for the end of a transaction that does what it is for. */
#define FLUSH_ABORTED "aborted using Abort action"

gboolean
virCheckpointSidecarFlush(virCheckpointStoreDomain *store,
                          virCheckpointMonitor *monitor,
                          const gchar *node,
                          guint64 sizeBytes,
                          GError **error)
{
    g_autofree gchar *name = g_strdup_printf("flush-%08x.tmp", g_random_int());
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, name, error);
    g_autoptr(virCheckpointSidecarNodes) scratch =
        virCheckpointSidecarNodesNew(monitor, FALSE);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GError) ended = NULL;
    gboolean made;

    if (!path)
        return FALSE;
    made = virCheckpointSidecarMake(path, sizeBytes, error) &&
           virCheckpointSidecarNodesAdd(scratch, path, NULL, FALSE, error) &&
           virCheckpointSidecarNodesOpen(scratch, error);
    /* Open is enough: nothing is left however this ends. */
    unlink(path);
    if (!made || !virCheckpointFaultPoint("flush/attached", error))
        return FALSE;
    virCheckpointTxnAction(
        txn, "blockdev-snapshot",
        virCheckpointJsonBuild("s:node", node, "s:overlay",
                               virCheckpointSidecarNodesRef(scratch, 0).node, NULL));
    virCheckpointTxnAction(txn, "abort", virCheckpointJsonNewObject());
    if (virCheckpointTxnRun(txn, monitor, &ended)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                            "a transaction that aborts succeeded");
        return FALSE;
    }
    if (!virCheckpointMonitorAnswered(monitor) ||
        !strstr(ended->message, FLUSH_ABORTED)) {
        g_propagate_prefixed_error(error, g_steal_pointer(&ended),
                                   "the disk cannot be flushed: ");
        return FALSE;
    }
    return virCheckpointSidecarNodesClose(scratch, error) &&
           virCheckpointFaultPoint("flush/done", error);
}

/*
 * Bitmaps merge only between disks of equal size.  A disk that was resized since has
 * its older sidecars resized in a copy; QEMU keeps the bits.
 */
static gchar *
virCheckpointSidecarResized(const gchar *path, guint64 sizeBytes, GError **error)
{
    g_autofree gchar *copy = g_strconcat(path, ".resized.tmp", NULL);
    g_autofree gchar *size = g_strdup_printf("%" G_GUINT64_FORMAT, sizeBytes);
    g_autoptr(GFile) from = g_file_new_for_path(path);
    g_autoptr(GFile) to = g_file_new_for_path(copy);
    const gchar *const argv[] = {"qemu-img", "resize", "-q", "-f", "qcow2",
                                 "--shrink", copy,     size, NULL};

    if (!g_file_copy(from, to, G_FILE_COPY_OVERWRITE, NULL, NULL, NULL, error) ||
        !virCheckpointProcessRun(argv, NULL, error)) {
        unlink(copy);
        return NULL;
    }
    return g_steal_pointer(&copy);
}

GArray *
virCheckpointSidecarReadAll(virCheckpointStoreDomain *store,
                            GPtrArray *sidecars,
                            GError **error)
{
    g_autoptr(GArray) infos =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointSidecarInfo));
    guint i;

    for (i = 0; i < sidecars->len; i++) {
        g_autofree gchar *path =
            virCheckpointStoreDomainPath(store, g_ptr_array_index(sidecars, i), error);
        virCheckpointSidecarInfo info;

        if (!path || !virCheckpointSidecarRead(path, &info, error))
            return NULL;
        g_array_append_val(infos, info);
    }
    return g_steal_pointer(&infos);
}

/* Hands sidecar @fileName, of @fileSizeBytes, over to be merged into a bitmap of a disk
 * of @sizeBytes. */
static gboolean
virCheckpointSidecarLoadAdd(virCheckpointStoreDomain *store,
                            virCheckpointSidecarNodes *nodes,
                            const gchar *fileName,
                            guint64 fileSizeBytes,
                            guint64 sizeBytes,
                            GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, fileName, error);
    g_autofree gchar *bitmap = virCheckpointSidecarBitmap(fileName);
    g_autofree gchar *resized = NULL;

    if (!path)
        return FALSE;
    if (fileSizeBytes != sizeBytes &&
        !(resized = virCheckpointSidecarResized(path, sizeBytes, error)))
        return FALSE;
    return virCheckpointSidecarNodesAdd(nodes, resized ? resized : path, bitmap,
                                        resized != NULL, error);
}

/* QEMU itself must show each bitmap, consistent, before it is merged. */
static gboolean
virCheckpointSidecarSeen(virCheckpointMonitor *monitor, GArray *sources, GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphQueryNodes(monitor, error);
    guint i;

    for (i = 0; graph && i < sources->len; i++) {
        const virCheckpointBitmapRef *ref =
            &g_array_index(sources, virCheckpointBitmapRef, i);
        const virCheckpointNode *node = virCheckpointGraphNode(graph, ref->node);
        const virCheckpointBitmapInfo *info = NULL;

        if (node)
            info = virCheckpointNodeBitmap(node, ref->name);
        if (!info || info->inconsistent) {
            g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                                "a sidecar's bitmap is not there for QEMU");
            return FALSE;
        }
    }
    return graph != NULL;
}

static gboolean
virCheckpointSidecarLoadBatch(virCheckpointStoreDomain *store,
                              virCheckpointMonitor *monitor,
                              gchar **names,
                              const virCheckpointSidecarInfo *infos,
                              guint count,
                              const virCheckpointBitmapRef *target,
                              guint64 sizeBytes,
                              GError **error)
{
    g_autoptr(virCheckpointSidecarNodes) nodes =
        virCheckpointSidecarNodesNew(monitor, TRUE);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < count; i++) {
        virCheckpointBitmapRef ref;

        if (!virCheckpointSidecarLoadAdd(store, nodes, names[i], infos[i].sizeBytes,
                                         sizeBytes, error))
            return FALSE;
        ref = virCheckpointSidecarNodesRef(nodes, i);
        g_array_append_val(sources, ref);
    }
    virCheckpointTxnMerge(txn, target->node, target->name, sources);
    return virCheckpointSidecarNodesOpen(nodes, error) &&
           virCheckpointSidecarSeen(monitor, sources, error) &&
           virCheckpointFaultPoint("load/attached", error) &&
           virCheckpointTxnRun(txn, monitor, error) &&
           virCheckpointFaultPoint("load/merged", error) &&
           virCheckpointSidecarNodesClose(nodes, error);
}

gboolean
virCheckpointSidecarLoadRead(virCheckpointStoreDomain *store,
                             virCheckpointMonitor *monitor,
                             GPtrArray *sidecars,
                             GArray *infos,
                             const virCheckpointBitmapRef *target,
                             guint64 sizeBytes,
                             GError **error)
{
    guint done;

    for (done = 0; done < sidecars->len; done += SIDECAR_BATCH) {
        if (!virCheckpointSidecarLoadBatch(
                store, monitor, (gchar **)sidecars->pdata + done,
                &g_array_index(infos, virCheckpointSidecarInfo, done),
                MIN(SIDECAR_BATCH, sidecars->len - done), target, sizeBytes, error))
            return FALSE;
    }
    return TRUE;
}

/* Loads one sidecar with the bits of all of @sidecars, which goes again. */
static gboolean
virCheckpointSidecarLoadUnited(virCheckpointStoreDomain *store,
                               virCheckpointMonitor *monitor,
                               GPtrArray *sidecars,
                               GArray *infos,
                               const virCheckpointBitmapRef *target,
                               guint64 sizeBytes,
                               GError **error)
{
    virCheckpointSidecarInfo united = {.sizeBytes = sizeBytes};
    g_autofree gchar *id = virCheckpointRecordNewId();
    g_autofree gchar *name = g_strconcat(id, ".0.qcow2", NULL);
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, name, error);
    gboolean loaded;

    loaded =
        path &&
        virCheckpointSidecarUnite(store, sidecars, infos, sizeBytes, name, error) &&
        virCheckpointFaultPoint("load/united", error) &&
        virCheckpointSidecarLoadBatch(store, monitor, &name, &united, 1, target,
                                      sizeBytes, error);
    if (path)
        unlink(path);
    return loaded;
}

gboolean
virCheckpointSidecarLoad(virCheckpointStoreDomain *store,
                         virCheckpointMonitor *monitor,
                         GPtrArray *sidecars,
                         const gchar *node,
                         const gchar *name,
                         GError **error)
{
    virCheckpointBitmapRef target = {.node = node, .name = name};
    g_autoptr(virCheckpointGraph) graph = NULL;
    g_autoptr(GArray) infos = NULL;
    const virCheckpointNode *into;

    if (sidecars->len == 0)
        return TRUE;
    if (!(graph = virCheckpointGraphQueryNodes(monitor, error)))
        return FALSE;
    if (!(into = virCheckpointGraphNode(graph, node))) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "there is no node '%s'", node);
        return FALSE;
    }
    if (!(infos = virCheckpointSidecarReadAll(store, sidecars, error)))
        return FALSE;
    if (sidecars->len >= SIDECAR_MANY && virCheckpointMonitorHasFds(monitor))
        return virCheckpointSidecarLoadUnited(store, monitor, sidecars, infos, &target,
                                              into->sizeBytes, error);
    return virCheckpointSidecarLoadRead(store, monitor, sidecars, infos, &target,
                                        into->sizeBytes, error);
}
