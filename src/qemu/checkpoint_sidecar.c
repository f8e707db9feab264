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
 * What a crash leaves: a *.tmp file, nodes and fdsets in QEMU.  Settling removes them.
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
#include "checkpoint_sidecar.h"

/** Sidecars open at a time. */
#define SIDECAR_BATCH 32

/* A sidecar file as a node of a QEMU. */
typedef struct virCheckpointSidecarNode {
    virCheckpointMonitor *monitor; /* borrowed */
    gchar *node;
    guint64 set;
    gboolean hasSet;
    gboolean hasNode;
    gchar *scratch; /* a copy to be removed, or NULL */
    gchar *bitmap;
} virCheckpointSidecarNode;

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

/* Closes what is open; goes on after a failure and reports the first.  The node of the
 * file below goes with the format's: nobody else named it. */
static gboolean
virCheckpointSidecarDetach(virCheckpointSidecarNode *sidecar, GError **error)
{
    gboolean ok = TRUE;

    if (sidecar->hasNode) {
        g_autoptr(virCheckpointJson) reply = virCheckpointMonitorRun(
            sidecar->monitor, "blockdev-del",
            virCheckpointJsonBuild("s:node-name", sidecar->node, NULL), error);

        ok = reply != NULL;
    }
    sidecar->hasNode = FALSE;
    if (sidecar->hasSet)
        ok = virCheckpointMonitorRemoveFd(sidecar->monitor, sidecar->set,
                                          ok ? error : NULL) &&
             ok;
    sidecar->hasSet = FALSE;
    return ok;
}

static void
virCheckpointSidecarNodeFree(virCheckpointSidecarNode *sidecar)
{
    if (!sidecar)
        return;
    virCheckpointSidecarDetach(sidecar, NULL);
    if (sidecar->scratch)
        unlink(sidecar->scratch);
    g_free(sidecar->scratch);
    g_free(sidecar->node);
    g_free(sidecar->bitmap);
    g_free(sidecar);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointSidecarNode, virCheckpointSidecarNodeFree)

/* Where the peer opens @path: a descriptor of ours if it takes any. */
static gchar *
virCheckpointSidecarHandOver(virCheckpointSidecarNode *sidecar,
                             const gchar *path,
                             gboolean readOnly,
                             GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;

    if (!virCheckpointMonitorHasFds(sidecar->monitor))
        return g_strdup(path);
    fd = open(path, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sidecar '%s': %s", path, g_strerror(errno));
        return NULL;
    }
    if (!virCheckpointMonitorAddFd(sidecar->monitor, fd, &sidecar->set, error))
        return NULL;
    sidecar->hasSet = TRUE;
    return g_strdup_printf("/dev/fdset/%" G_GUINT64_FORMAT, sidecar->set);
}

static virCheckpointSidecarNode *
virCheckpointSidecarAttach(virCheckpointMonitor *monitor,
                           const gchar *path,
                           gboolean readOnly,
                           GError **error)
{
    g_autoptr(virCheckpointSidecarNode) sidecar = g_new0(virCheckpointSidecarNode, 1);
    g_autofree gchar *fileNode = NULL;
    g_autofree gchar *name = NULL;
    virCheckpointJson *file;
    virCheckpointJson *node;

    sidecar->monitor = monitor;
    sidecar->bitmap = virCheckpointSidecarBitmap(path);
    /* QEMU takes 31 bytes at most. */
    sidecar->node =
        g_strdup_printf(VIR_CHECKPOINT_HELPER_PREFIX "%08x", g_random_int());
    fileNode = g_strconcat(sidecar->node, "f", NULL);
    if (!(name = virCheckpointSidecarHandOver(sidecar, path, readOnly, error)))
        return NULL;
    file = virCheckpointJsonBuild("s:node-name", fileNode, "s:driver", "file",
                                  "s:filename", name, "b:read-only", readOnly, NULL);
    node = virCheckpointJsonBuild("s:node-name", sidecar->node, "s:driver", "qcow2",
                                  "a:file", file, "b:read-only", readOnly, "a:backing",
                                  virCheckpointJsonNewNull(), NULL);
    /* What is written counts once we have synced the file ourselves. */
    if (!readOnly)
        virCheckpointJsonAdd(node, "cache",
                             virCheckpointJsonBuild("b:no-flush", TRUE, NULL));
    if (!virCheckpointMonitorDo(monitor, "blockdev-add", node, error))
        return NULL;
    sidecar->hasNode = TRUE;
    return g_steal_pointer(&sidecar);
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

/* Some sidecars on their way: three arrays in step. */
typedef struct virCheckpointSidecarBatch {
    virCheckpointStoreDomain *store;
    virCheckpointMonitor *monitor;
    virCheckpointSidecarPart **parts;
    guint count;
    GPtrArray *temporary; /* gchar*: paths; what is left of them is removed at last */
    GPtrArray *nodes;     /* virCheckpointSidecarNode* */
    guint64 *counted;     /* bytes, as QEMU shows them */
} virCheckpointSidecarBatch;

static void
virCheckpointSidecarBatchClear(virCheckpointSidecarBatch *batch)
{
    guint i;

    g_ptr_array_unref(batch->nodes);
    for (i = 0; i < batch->temporary->len; i++)
        unlink(g_ptr_array_index(batch->temporary, i));
    g_ptr_array_unref(batch->temporary);
    g_free(batch->counted);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointSidecarBatch,
                                 virCheckpointSidecarBatchClear)

/* Every file of the batch is made and opened. */
static gboolean
virCheckpointSidecarBatchOpen(virCheckpointSidecarBatch *batch, GError **error)
{
    guint i;

    for (i = 0; i < batch->count; i++) {
        const virCheckpointSidecarPart *part = batch->parts[i];
        g_autofree gchar *path =
            virCheckpointStoreDomainPath(batch->store, part->fileName, error);
        gchar *temporary = path ? g_strconcat(path, ".tmp", NULL) : NULL;
        virCheckpointSidecarNode *node;

        if (!temporary)
            return FALSE;
        g_ptr_array_add(batch->temporary, temporary);
        if (!virCheckpointSidecarMake(temporary, part->sizeBytes, error) ||
            !virCheckpointFaultPoint("sidecar/made", error) ||
            !(node =
                  virCheckpointSidecarAttach(batch->monitor, temporary, FALSE, error)))
            return FALSE;
        g_ptr_array_add(batch->nodes, node);
        if (!virCheckpointFaultPoint("sidecar/attached", error))
            return FALSE;
    }
    return TRUE;
}

/* What QEMU shows of the new bitmaps, unless it showed that of their sources. */
static gboolean
virCheckpointSidecarBatchCount(virCheckpointSidecarBatch *batch, GError **error)
{
    g_autoptr(virCheckpointGraph) graph = NULL;
    guint i;

    for (i = 0; i < batch->count; i++) {
        const virCheckpointSidecarPart *part = batch->parts[i];
        const virCheckpointSidecarNode *sidecar = g_ptr_array_index(batch->nodes, i);
        const virCheckpointNode *node;
        const virCheckpointBitmapInfo *bits = NULL;

        batch->counted[i] = part->countBytes;
        if (part->counted)
            continue;
        if (!graph && !(graph = virCheckpointGraphQueryNodes(batch->monitor, error)))
            return FALSE;
        if ((node = virCheckpointGraphNode(graph, sidecar->node)))
            bits = virCheckpointNodeBitmap(node, sidecar->bitmap);
        if (!bits) {
            g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                                "the sidecar's bitmap went away");
            return FALSE;
        }
        batch->counted[i] = bits->countBytes;
    }
    return TRUE;
}

/* Merges the sources into new bitmaps. */
static gboolean
virCheckpointSidecarBatchFill(virCheckpointSidecarBatch *batch, GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < batch->count; i++) {
        const virCheckpointSidecarPart *part = batch->parts[i];
        const virCheckpointSidecarNode *node = g_ptr_array_index(batch->nodes, i);

        g_assert(part->sources->len > 0);
        virCheckpointTxnAdd(txn, node->node, node->bitmap, part->granularity,
                            VIR_CHECKPOINT_BITMAP_PERSISTENT |
                                VIR_CHECKPOINT_BITMAP_DISABLED);
        virCheckpointTxnMerge(txn, node->node, node->bitmap, part->sources);
    }
    return virCheckpointTxnRun(txn, batch->monitor, error) &&
           virCheckpointSidecarBatchCount(batch, error) &&
           virCheckpointFaultPoint("sidecar/filled", error);
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

/* Closed, read back and synced, the files get their names. */
static gboolean
virCheckpointSidecarBatchClose(virCheckpointSidecarBatch *batch, GError **error)
{
    guint i;

    for (i = 0; i < batch->count; i++) {
        if (!virCheckpointSidecarDetach(g_ptr_array_index(batch->nodes, i), error))
            return FALSE;
    }
    if (!virCheckpointFaultPoint("sidecar/detached", error))
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
        g_auto(virCheckpointSidecarBatch) batch = {
            .store = store,
            .monitor = monitor,
            .parts = (virCheckpointSidecarPart **)parts->pdata + done,
            .count = MIN(SIDECAR_BATCH, parts->len - done),
            .temporary = g_ptr_array_new_with_free_func(g_free),
            .nodes = g_ptr_array_new_with_free_func(
                (GDestroyNotify)virCheckpointSidecarNodeFree),
            .counted = g_new0(guint64, SIDECAR_BATCH),
        };

        if (!virCheckpointSidecarBatchOpen(&batch, error) ||
            !virCheckpointSidecarBatchFill(&batch, error) ||
            !virCheckpointSidecarBatchClose(&batch, error))
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
    g_autoptr(virCheckpointSidecarNode) attached = NULL;
    g_autoptr(virCheckpointGraph) graph = NULL;
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    virCheckpointBitmapRef ref = {.name = bitmap};
    const virCheckpointNode *node;
    const virCheckpointBitmapInfo *info = NULL;

    *saved = FALSE;
    if (!g_file_test(image, G_FILE_TEST_IS_REGULAR))
        return TRUE;
    if (!(attached = virCheckpointSidecarAttach(monitor, image, TRUE, error)) ||
        !(graph = virCheckpointGraphQueryNodes(monitor, error)))
        return FALSE;
    if ((node = virCheckpointGraphNode(graph, attached->node)))
        info = virCheckpointNodeBitmap(node, bitmap);
    if (!info || info->inconsistent)
        return virCheckpointSidecarDetach(attached, error);
    ref.node = attached->node;
    g_array_append_val(sources, ref);
    if (!virCheckpointSidecarWrite(store, monitor, node->sizeBytes, info->granularity,
                                   sources, fileName, error) ||
        !virCheckpointSidecarDetach(attached, error))
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
    g_autoptr(virCheckpointSidecarNode) scratch = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GError) ended = NULL;
    gboolean made;

    if (!path)
        return FALSE;
    made = virCheckpointSidecarMake(path, sizeBytes, error) &&
           (scratch = virCheckpointSidecarAttach(monitor, path, FALSE, error));
    /* Open is enough: nothing is left however this ends. */
    unlink(path);
    if (!made || !virCheckpointFaultPoint("flush/attached", error))
        return FALSE;
    virCheckpointTxnAction(
        txn, "blockdev-snapshot",
        virCheckpointJsonBuild("s:node", node, "s:overlay", scratch->node, NULL));
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
    return virCheckpointSidecarDetach(scratch, error) &&
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

static virCheckpointSidecarNode *
virCheckpointSidecarAttachForLoad(virCheckpointStoreDomain *store,
                                  virCheckpointMonitor *monitor,
                                  const gchar *fileName,
                                  guint64 sizeBytes,
                                  GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, fileName, error);
    g_autofree gchar *resized = NULL;
    virCheckpointSidecarNode *sidecar;
    virCheckpointSidecarInfo info;

    if (!path || !virCheckpointSidecarRead(path, &info, error))
        return NULL;
    if (info.sizeBytes != sizeBytes &&
        !(resized = virCheckpointSidecarResized(path, sizeBytes, error)))
        return NULL;
    sidecar =
        virCheckpointSidecarAttach(monitor, resized ? resized : path, TRUE, error);
    if (sidecar && resized) {
        sidecar->scratch = g_steal_pointer(&resized);
        g_free(sidecar->bitmap);
        sidecar->bitmap = virCheckpointSidecarBitmap(path);
    } else if (resized)
        unlink(resized);
    return sidecar;
}

/* QEMU itself must show each bitmap, consistent, before it is merged. */
static gboolean
virCheckpointSidecarSeen(virCheckpointMonitor *monitor, GPtrArray *open, GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphQueryNodes(monitor, error);
    guint i;

    for (i = 0; graph && i < open->len; i++) {
        const virCheckpointSidecarNode *sidecar = g_ptr_array_index(open, i);
        const virCheckpointNode *node = virCheckpointGraphNode(graph, sidecar->node);
        const virCheckpointBitmapInfo *info = NULL;

        if (node)
            info = virCheckpointNodeBitmap(node, sidecar->bitmap);
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
                              guint count,
                              const virCheckpointBitmapRef *target,
                              guint64 sizeBytes,
                              GError **error)
{
    g_autoptr(GPtrArray) open =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointSidecarNodeFree);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < count; i++) {
        virCheckpointSidecarNode *sidecar = virCheckpointSidecarAttachForLoad(
            store, monitor, names[i], sizeBytes, error);
        virCheckpointBitmapRef ref;

        if (!sidecar)
            return FALSE;
        g_ptr_array_add(open, sidecar);
        ref.node = sidecar->node;
        ref.name = sidecar->bitmap;
        g_array_append_val(sources, ref);
    }
    virCheckpointTxnMerge(txn, target->node, target->name, sources);
    if (!virCheckpointSidecarSeen(monitor, open, error) ||
        !virCheckpointFaultPoint("load/attached", error) ||
        !virCheckpointTxnRun(txn, monitor, error) ||
        !virCheckpointFaultPoint("load/merged", error))
        return FALSE;
    for (i = 0; i < count; i++) {
        if (!virCheckpointSidecarDetach(g_ptr_array_index(open, i), error))
            return FALSE;
    }
    return TRUE;
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
    const virCheckpointNode *into;
    guint done;

    if (sidecars->len == 0)
        return TRUE;
    if (!(graph = virCheckpointGraphQueryNodes(monitor, error)))
        return FALSE;
    if (!(into = virCheckpointGraphNode(graph, node))) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "there is no node '%s'", node);
        return FALSE;
    }
    for (done = 0; done < sidecars->len; done += SIDECAR_BATCH) {
        if (!virCheckpointSidecarLoadBatch(store, monitor,
                                           (gchar **)sidecars->pdata + done,
                                           MIN(SIDECAR_BATCH, sidecars->len - done),
                                           &target, into->sizeBytes, error))
            return FALSE;
    }
    return TRUE;
}
