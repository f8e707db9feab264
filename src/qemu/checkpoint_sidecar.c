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

/** Sidecars open at a time while loading. */
#define LOAD_BATCH 32

/* A sidecar file as a node of a QEMU. */
typedef struct virCheckpointSidecarNode {
    virCheckpointMonitor *monitor; /* borrowed */
    gchar *node;
    gchar *fileNode;
    guint64 set;
    gboolean hasSet;
    gboolean hasFile;
    gboolean hasNode;
    gchar *scratch; /* a copy to be removed, or NULL */
} virCheckpointSidecarNode;

static gboolean
virCheckpointSidecarDelNode(virCheckpointMonitor *monitor,
                            const gchar *node,
                            GError **error)
{
    g_autoptr(virCheckpointJson) reply = virCheckpointMonitorRun(
        monitor, "blockdev-del", virCheckpointJsonBuild("s:node-name", node, NULL),
        error);

    return reply != NULL;
}

/* Closes what is open; goes on after a failure and reports the first. */
static gboolean
virCheckpointSidecarDetach(virCheckpointSidecarNode *sidecar, GError **error)
{
    gboolean ok = TRUE;

    if (sidecar->hasNode)
        ok = virCheckpointSidecarDelNode(sidecar->monitor, sidecar->node, error);
    sidecar->hasNode = FALSE;
    if (sidecar->hasFile)
        ok = virCheckpointSidecarDelNode(sidecar->monitor, sidecar->fileNode,
                                         ok ? error : NULL) &&
             ok;
    sidecar->hasFile = FALSE;
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
    g_free(sidecar->fileNode);
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
    g_autofree gchar *name = NULL;
    g_autoptr(virCheckpointJson) file = NULL;
    g_autoptr(virCheckpointJson) format = NULL;

    sidecar->monitor = monitor;
    /* QEMU takes 31 bytes at most. */
    sidecar->node =
        g_strdup_printf(VIR_CHECKPOINT_HELPER_PREFIX "%08x", g_random_int());
    sidecar->fileNode = g_strconcat(sidecar->node, "f", NULL);
    if (!(name = virCheckpointSidecarHandOver(sidecar, path, readOnly, error)))
        return NULL;
    if (!(file = virCheckpointMonitorRun(
              monitor, "blockdev-add",
              virCheckpointJsonBuild("s:node-name", sidecar->fileNode, "s:driver",
                                     "file", "s:filename", name, "b:read-only",
                                     readOnly, NULL),
              error)))
        return NULL;
    sidecar->hasFile = TRUE;
    if (!(format = virCheckpointMonitorRun(
              monitor, "blockdev-add",
              virCheckpointJsonBuild("s:node-name", sidecar->node, "s:driver", "qcow2",
                                     "s:file", sidecar->fileNode, "b:read-only",
                                     readOnly, "a:backing", virCheckpointJsonNewNull(),
                                     NULL),
              error)))
        return NULL;
    sidecar->hasNode = TRUE;
    return g_steal_pointer(&sidecar);
}

/* An empty qcow2 of @sizeBytes that only we can read. */
static gboolean
virCheckpointSidecarMakeFile(const gchar *path, guint64 sizeBytes, GError **error)
{
    g_autofree gchar *size = g_strdup_printf("%" G_GUINT64_FORMAT, sizeBytes);
    const gchar *const argv[] = {"qemu-img", "create",     "-q", "-f", "qcow2",
                                 "-o",       "compat=1.1", path, size, NULL};

    if (unlink(path) < 0 && errno != ENOENT) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "remove '%s': %s", path, g_strerror(errno));
        return FALSE;
    }
    if (!virCheckpointProcessRun(argv, NULL, error))
        return FALSE;
    if (chmod(path, 0600) < 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sidecar '%s': %s", path, g_strerror(errno));
        return FALSE;
    }
    return TRUE;
}

/* Merges @sources into the sidecar's new bitmap and says how much QEMU sees there. */
static gboolean
virCheckpointSidecarFill(virCheckpointSidecarNode *sidecar,
                         guint64 granularity,
                         GArray *sources,
                         guint64 *countBytes,
                         GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(virCheckpointGraph) graph = NULL;
    const virCheckpointNode *node;
    const virCheckpointBitmapInfo *bits = NULL;

    virCheckpointTxnAdd(txn, sidecar->node, VIR_CHECKPOINT_SIDECAR_BITMAP, granularity,
                        VIR_CHECKPOINT_BITMAP_PERSISTENT |
                            VIR_CHECKPOINT_BITMAP_DISABLED);
    virCheckpointTxnMerge(txn, sidecar->node, VIR_CHECKPOINT_SIDECAR_BITMAP, sources);
    if (!virCheckpointTxnRun(txn, sidecar->monitor, error) ||
        !(graph = virCheckpointGraphQuery(sidecar->monitor, error)))
        return FALSE;
    if ((node = virCheckpointGraphNode(graph, sidecar->node)))
        bits = virCheckpointNodeBitmap(node, VIR_CHECKPOINT_SIDECAR_BITMAP);
    if (!bits) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "the sidecar's bitmap went away");
        return FALSE;
    }
    *countBytes = bits->countBytes;
    return TRUE;
}

static gboolean
virCheckpointSidecarVerify(const gchar *path,
                           guint64 sizeBytes,
                           guint64 granularity,
                           guint64 countBytes,
                           GError **error)
{
    virCheckpointSidecarInfo info;

    if (!virCheckpointSidecarRead(path, &info, error))
        return FALSE;
    if (info.inUse || info.sizeBytes != sizeBytes || info.granularity != granularity ||
        info.countBytes != countBytes) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sidecar '%s' does not hold what was written into it", path);
        return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointSidecarWriteFile(virCheckpointMonitor *monitor,
                              guint64 sizeBytes,
                              guint64 granularity,
                              GArray *sources,
                              const gchar *path,
                              GError **error)
{
    g_autoptr(virCheckpointSidecarNode) sidecar = NULL;
    guint64 countBytes;

    if (!virCheckpointSidecarMakeFile(path, sizeBytes, error) ||
        !virCheckpointFaultPoint("sidecar/made", error) ||
        !(sidecar = virCheckpointSidecarAttach(monitor, path, FALSE, error)) ||
        !virCheckpointFaultPoint("sidecar/attached", error) ||
        !virCheckpointSidecarFill(sidecar, granularity, sources, &countBytes, error) ||
        !virCheckpointFaultPoint("sidecar/filled", error) ||
        !virCheckpointSidecarDetach(sidecar, error) ||
        !virCheckpointFaultPoint("sidecar/detached", error))
        return FALSE;
    return virCheckpointSidecarVerify(path, sizeBytes, granularity, countBytes,
                                      error) &&
           virCheckpointFileSync(path, error);
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
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, fileName, error);
    g_autofree gchar *temporary = NULL;

    g_assert(sources->len > 0);
    if (!path)
        return FALSE;
    temporary = g_strconcat(path, ".tmp", NULL);
    if (!virCheckpointSidecarWriteFile(monitor, sizeBytes, granularity, sources,
                                       temporary, error) ||
        !virCheckpointFaultPoint("sidecar/synced", error) ||
        !virCheckpointFileRename(temporary, path, error)) {
        unlink(temporary);
        return FALSE;
    }
    return virCheckpointFaultPoint("sidecar/renamed", error);
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
        !(graph = virCheckpointGraphQuery(monitor, error)))
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
    made = virCheckpointSidecarMakeFile(path, sizeBytes, error) &&
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
    if (sidecar)
        sidecar->scratch = g_steal_pointer(&resized);
    else if (resized)
        unlink(resized);
    return sidecar;
}

/* QEMU itself must show each bitmap, consistent, before it is merged. */
static gboolean
virCheckpointSidecarSeen(virCheckpointMonitor *monitor, GPtrArray *open, GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphQuery(monitor, error);
    guint i;

    for (i = 0; graph && i < open->len; i++) {
        const virCheckpointSidecarNode *sidecar = g_ptr_array_index(open, i);
        const virCheckpointNode *node = virCheckpointGraphNode(graph, sidecar->node);
        const virCheckpointBitmapInfo *info = NULL;

        if (node)
            info = virCheckpointNodeBitmap(node, VIR_CHECKPOINT_SIDECAR_BITMAP);
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
        ref.name = VIR_CHECKPOINT_SIDECAR_BITMAP;
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
    if (!(graph = virCheckpointGraphQuery(monitor, error)))
        return FALSE;
    if (!(into = virCheckpointGraphNode(graph, node))) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "there is no node '%s'", node);
        return FALSE;
    }
    for (done = 0; done < sidecars->len; done += LOAD_BATCH) {
        if (!virCheckpointSidecarLoadBatch(
                store, monitor, (gchar **)sidecars->pdata + done,
                MIN(LOAD_BATCH, sidecars->len - done), &target, into->sizeBytes, error))
            return FALSE;
    }
    return TRUE;
}
