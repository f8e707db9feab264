/*
 * checkpoint_mirror_repair.c: what a libvirtd that died in a snapshot or pivot left
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt tells QEMU first and writes its definition afterwards.  Killed in
 * between, it comes back with a guest on a file that it does not know: the next start
 * would boot the other one, without what the guest wrote since.
 *
 * So the configuration is put right first, whatever else follows.  After a snapshot we
 * commit O ourselves, by QEMU's own job: then libvirt's definition is true again.
 * After a pivot the live definition stays wrong until the guest is restarted; libvirt's
 * bitmap transaction, which would have followed, is made up for.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"

/* O's bitmaps go into those of the top, for those that the top has. */
static gboolean
virCheckpointMirrorMergeOverlay(const virCheckpointMirrorStep *step,
                                const virCheckpointMirrorWhere *where,
                                const virCheckpointNode *overlay,
                                GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < overlay->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *bitmap = g_ptr_array_index(overlay->bitmaps, i);
        virCheckpointBitmapRef source = {overlay->name, bitmap->name};
        g_autoptr(GArray) sources =
            g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));

        if (bitmap->inconsistent || bitmap->busy ||
            !virCheckpointNodeBitmap(where->top, bitmap->name))
            continue;
        g_array_append_val(sources, source);
        virCheckpointTxnMerge(txn, where->top->name, bitmap->name, sources);
    }
    return virCheckpointTxnRun(txn, step->view->monitor, error);
}

void
virCheckpointMirrorDeleteOrphans(const virCheckpointMirrorStep *step,
                                 const virCheckpointMirrorWhere *where,
                                 const gchar *path)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(where->graph);
    guint pass;
    guint i;

    for (pass = 0; pass < 2; pass++) {
        for (i = 0; i < nodes->len; i++) {
            const virCheckpointNode *node = g_ptr_array_index(nodes, i);
            g_autoptr(GError) error = NULL;

            if (g_strcmp0(node->file, path) != 0 ||
                (g_strcmp0(node->driver, "file") == 0) != (pass == 1))
                continue;
            if (!virCheckpointMonitorDo(
                    step->view->monitor, "blockdev-del",
                    virCheckpointJsonBuild("s:node-name", node->name, NULL), &error))
                g_info("domain '%s', disk '%s': node of '%s' stays: %s",
                       step->view->name, step->mirror->target, path, error->message);
        }
    }
}

gboolean
virCheckpointMirrorDropOrphans(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};
    const GPtrArray *nodes;
    guint i;

    if (!virCheckpointMirrorRunning(step))
        return TRUE;
    if (!virCheckpointMirrorLookAtAll(step, &where, error))
        return FALSE;
    nodes = virCheckpointGraphNodes(where.graph);
    for (i = 0; !where.overlay && i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (g_strcmp0(node->driver, "qcow2") == 0 &&
            g_strcmp0(node->file, mirror->overlayPath) == 0 &&
            !virCheckpointMirrorMergeOverlay(step, &where, node, error))
            return FALSE;
    }
    if (!where.overlay)
        virCheckpointMirrorDeleteOrphans(step, &where, mirror->overlayPath);
    if (!virCheckpointGraphLayer(where.graph, where.top, mirror->destPath))
        virCheckpointMirrorDeleteOrphans(step, &where, mirror->destPath);
    return TRUE;
}

/* Bits that libvirt's pivot did not carry: from the old top, and what libvirt's helper
 * recorded since. */
static gboolean
virCheckpointMirrorCarry(const virCheckpointMirrorStep *step,
                         const virCheckpointMirrorWhere *where,
                         const gchar *name,
                         guint64 granularity,
                         GError **error)
{
    static const gchar *helper = "libvirt-tmp-activewrite";
    const GPtrArray *nodes = virCheckpointGraphNodes(where->graph);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);
        const gchar *source = node == where->top ? helper : name;
        const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(node, source);
        virCheckpointBitmapRef ref = {node->name, source};

        if (info && !info->busy && !info->inconsistent &&
            (node == where->top ||
             g_strcmp0(node->file, step->mirror->overlayPath) == 0))
            g_array_append_val(sources, ref);
    }
    /* Without both some bits are missing: then the segment is lost, and says so. */
    if (sources->len != 2)
        return TRUE;
    virCheckpointTxnAdd(txn, where->top->name, name, granularity,
                        VIR_CHECKPOINT_BITMAP_PERSISTENT);
    virCheckpointTxnMerge(txn, where->top->name, name, sources);
    virCheckpointTxnRemove(txn, where->top->name, helper);
    return virCheckpointTxnRun(txn, step->view->monitor, error);
}

/* QEMU is on T and libvirt's live definition does not say so: libvirtd died in its
 * pivot.  Its bitmap transaction, which follows the pivot, is made up for. */
gboolean
virCheckpointMirrorPivotRepair(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GPtrArray) records = NULL;
    g_auto(virCheckpointMirrorWhere) where = {0};
    const virCheckpointRecord *newest;
    const virCheckpointSegment *segment;
    const gchar *name;

    if (!mirror->pivoted || !virCheckpointMirrorRunning(step))
        return TRUE;
    if (!virCheckpointMirrorLookAtAll(step, &where, error))
        return FALSE;
    if (!where.dest || g_strcmp0(where.known, mirror->destPath) == 0)
        return TRUE;
    g_warning(
        "domain '%s', disk '%s': QEMU writes to '%s' and libvirt does not know it:"
        " its live definition is wrong until the domain is restarted",
        step->view->name, mirror->target, mirror->destPath);
    if (!(records = virCheckpointStoreList(step->store, error)))
        return FALSE;
    newest = virCheckpointTreeNewest(records, mirror->target);
    segment = newest ? virCheckpointRecordSegment(newest, mirror->target) : NULL;
    if (!segment || segment->bitmaps->len == 0)
        return TRUE;
    name = g_ptr_array_index(segment->bitmaps, segment->bitmaps->len - 1);
    return virCheckpointNodeBitmap(where.top, name) ||
           virCheckpointMirrorCarry(step, &where, name, segment->granularity, error);
}

static gchar *
virCheckpointMirrorCommitName(const virCheckpointMirror *mirror)
{
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);

    return g_strconcat(name, "-commit", NULL);
}

gboolean
virCheckpointMirrorSweepByHand(const virCheckpointMirrorStep *step,
                               gboolean *busy,
                               GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorCommitName(step->mirror);
    g_auto(virCheckpointMirrorBulk) job = {0};

    if (!virCheckpointMirrorBulkQuery(step->view->monitor, name, &job, error))
        return FALSE;
    if (!job.present)
        return TRUE;
    if (job.concluded)
        return virCheckpointMonitorDo(step->view->monitor, "job-dismiss",
                                      virCheckpointJsonBuild("s:id", name, NULL),
                                      error);
    *busy = TRUE;
    return TRUE;
}

/* QEMU is on O, libvirt's definition says S: libvirt cannot commit what it does not
 * know.  Called again and again until O has left the chain. */
virCheckpointMirrorResult
virCheckpointMirrorCommitByHand(const virCheckpointMirrorStep *step,
                                const virCheckpointMirrorWhere *where,
                                GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *name = virCheckpointMirrorCommitName(mirror);
    g_auto(virCheckpointMirrorBulk) job = {0};

    if (!virCheckpointMirrorBulkQuery(step->view->monitor, name, &job, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!job.present) {
        g_warning("domain '%s', disk '%s': QEMU writes to '%s' and libvirt does not"
                  " know it: committing it",
                  step->view->name, mirror->target, mirror->overlayPath);
        /* Until O is merged the next start must find it. */
        if (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                          "qcow2", error) ||
            !virCheckpointMonitorDo(
                step->view->monitor, "block-commit",
                virCheckpointJsonBuild("s:job-id", name, "s:device", where->top->name,
                                       "s:base-node", where->source->name, "s:top-node",
                                       where->overlay->name, "b:auto-dismiss", FALSE,
                                       NULL),
                error))
            return VIR_CHECKPOINT_MIRROR_RETRY;
        return VIR_CHECKPOINT_MIRROR_WAIT;
    }
    if (job.concluded) {
        g_autofree gchar *why = g_strdup(job.error);

        if (!virCheckpointMonitorDo(step->view->monitor, "job-dismiss",
                                    virCheckpointJsonBuild("s:id", name, NULL), error))
            return VIR_CHECKPOINT_MIRROR_RETRY;
        if (why)
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                        "commit '%s': %s", mirror->overlayPath, why);
        return why ? VIR_CHECKPOINT_MIRROR_RETRY : VIR_CHECKPOINT_MIRROR_MOVED;
    }
    if (!job.ready)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    return virCheckpointMirrorLeave(step, error) &&
                   virCheckpointMonitorDo(step->view->monitor, "job-complete",
                                          virCheckpointJsonBuild("s:id", name, NULL),
                                          error)
               ? VIR_CHECKPOINT_MIRROR_WAIT
               : VIR_CHECKPOINT_MIRROR_RETRY;
}
