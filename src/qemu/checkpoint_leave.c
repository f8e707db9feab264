/*
 * checkpoint_leave.c: what stays in the images when checkpoints' metadata goes
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt's bitmaps are in the images, so that a client which deletes metadata
 * only, or undefines the domain with it, can redefine the checkpoint later from the XML
 * that it kept.  Our bits are in the store, which is to be left empty.  So they are put
 * where libvirt would have them: one bitmap for each checkpoint, of its name, with all
 * changes since it, recording on.  Whoever redefines it then gets a checkpoint of
 * libvirt's own; whoever has the image but not us, too.
 *
 * One transient bitmap gathers the changes, from the newest segment back; after each
 * segment it holds what the checkpoint of that segment needs, and a transaction makes
 * the named bitmap with all of it.  So there is no moment at which a bitmap of that
 * name has less: it is not there, or complete.  A bitmap of that name that somebody
 * left there is added to, never replaced by less.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_leave.h"
#include "checkpoint_offline.h"
#include "checkpoint_segmentspriv.h"

static gboolean
virCheckpointLeaveWants(GPtrArray *ids, const virCheckpointRecord *record)
{
    return !ids || g_ptr_array_find_with_equal_func(ids, record->id, g_str_equal, NULL);
}

/* The parts of one segment into bitmap @set. */
static gboolean
virCheckpointLeaveGather(virCheckpointSegments *segments,
                         const virCheckpointNode *top,
                         const virCheckpointSegment *segment,
                         const gchar *set,
                         GError **error)
{
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    if (segment->lost ||
        !virCheckpointSegmentsCollect(segments, top, top, segment, sources)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR,
                            VIR_ERR_CHECKPOINT_INCONSISTENT, "changes were lost");
        return FALSE;
    }
    virCheckpointTxnMerge(txn, top->name, set, sources);
    return (sources->len == 0 ||
            virCheckpointTxnRun(txn, segments->view->monitor, error)) &&
           virCheckpointSidecarLoad(segments->store, segments->view->monitor,
                                    segment->sidecars, top->name, set, error) &&
           virCheckpointFaultPoint("leave/gathered", error);
}

/* Bitmap @name on @top gets what is in @set. */
static gboolean
virCheckpointLeaveName(virCheckpointSegments *segments,
                       const virCheckpointNode *top,
                       const virCheckpointSegment *segment,
                       const gchar *set,
                       const gchar *name,
                       GError **error)
{
    const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(top, name);
    virCheckpointBitmapRef ref = {top->name, set};
    g_autoptr(virCheckpointTxn) broken = virCheckpointTxnNew();
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));

    if (info && (info->inconsistent || !info->persistent || !info->recording)) {
        virCheckpointTxnRemove(broken, top->name, name);
        if (!virCheckpointTxnRun(broken, segments->view->monitor, error))
            return FALSE;
        info = NULL;
    }
    if (!info)
        virCheckpointTxnAdd(txn, top->name, name, segment->granularity,
                            VIR_CHECKPOINT_BITMAP_PERSISTENT);
    g_array_append_val(sources, ref);
    virCheckpointTxnMerge(txn, top->name, name, sources);
    return virCheckpointTxnRun(txn, segments->view->monitor, error) &&
           virCheckpointFaultPoint("leave/named", error);
}

/* From the newest segment of the disk back, as far as the changes are known. */
static gboolean
virCheckpointLeaveChain(virCheckpointSegments *segments,
                        const gchar *target,
                        const gchar *set,
                        GPtrArray *ids,
                        GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    const virCheckpointRecord *record = virCheckpointSegmentsNewest(segments, target);
    gboolean ok = TRUE;

    while (ok && record) {
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(record, target);

        ok = virCheckpointLeaveGather(segments, top, segment, set, error) &&
             (!virCheckpointLeaveWants(ids, record) ||
              virCheckpointLeaveName(segments, top, segment, set, record->def->name,
                                     error));
        if (!ok)
            g_prefix_error(error, "checkpoint '%s': ", record->def->name);
        record = virCheckpointTreePrevious(segments->records, record, target);
    }
    return ok;
}

/* The disk's image can be written. */
static gboolean
virCheckpointLeaveDisk(virCheckpointSegments *segments,
                       const gchar *target,
                       GPtrArray *ids,
                       GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);
    const virCheckpointRecord *newest = virCheckpointSegmentsNewest(segments, target);
    const virCheckpointSegment *segment =
        newest ? virCheckpointRecordSegment(newest, target) : NULL;
    g_autofree gchar *set =
        g_strdup_printf(VIR_CHECKPOINT_HELPER_BITMAP "%08x", g_random_int());
    g_autoptr(virCheckpointTxn) begin = virCheckpointTxnNew();
    g_autoptr(virCheckpointTxn) end = virCheckpointTxnNew();
    gboolean ok;

    if (!top)
        return FALSE;
    if (!segment || !virCheckpointSegmentsIsHealthy(segments, top, segment)) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR,
                            VIR_ERR_CHECKPOINT_INCONSISTENT, "it is not tracked");
        return FALSE;
    }
    /* It records before anything is merged into it: nothing falls between the two. */
    virCheckpointTxnAdd(begin, top->name, set, segment->granularity, 0);
    if (!virCheckpointTxnRun(begin, segments->view->monitor, error))
        return FALSE;
    ok = virCheckpointLeaveChain(segments, target, set, ids, error);
    virCheckpointTxnRemove(end, top->name, set);
    virCheckpointTxnRun(end, segments->view->monitor, NULL);
    if (ok && !ids && segments->view->writable) {
        g_autoptr(virCheckpointTxn) own = virCheckpointTxnNew();

        virCheckpointTxnRemove(own, top->name, virCheckpointSegmentActive(segment));
        ok = virCheckpointTxnRun(own, segments->view->monitor, error);
    }
    return ok;
}

/* A guest that is off: each disk by itself, for one that is gone concerns no other. */
static gboolean
virCheckpointLeaveDiskOff(virCheckpointSegments *segments,
                          const gchar *target,
                          GPtrArray *ids,
                          GError **error)
{
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    gboolean ok;

    g_ptr_array_add(one, (gpointer)target);
    ok = virCheckpointSegmentsOpen(segments, one, error) &&
         virCheckpointSegmentsWritable(segments, one, error) &&
         virCheckpointLeaveDisk(segments, target, ids, error);
    /* What the image really holds is seen when it is opened again. */
    ok = virCheckpointSegmentsReadBack(segments, ok ? error : NULL) && ok;
    virCheckpointOfflineClose(segments->view);
    return virCheckpointSegmentsRefresh(segments, ok ? error : NULL) && ok;
}

/* The disks (gchar*) that the records cover. */
static GPtrArray *
virCheckpointLeaveTargets(virCheckpointSegments *segments, GPtrArray *ids)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING ||
            !virCheckpointLeaveWants(ids, record))
            continue;
        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (!g_ptr_array_find_with_equal_func(targets, segment->target, g_str_equal,
                                                  NULL))
                g_ptr_array_add(targets, g_strdup(segment->target));
        }
    }
    return targets;
}

void
virCheckpointLeaveBits(virCheckpointSegments *segments, GPtrArray *ids)
{
    g_autoptr(GPtrArray) targets = virCheckpointLeaveTargets(segments, ids);
    guint i;

    for (i = 0; i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);
        g_autoptr(GError) error = NULL;
        gboolean ok = segments->view->running
                          ? virCheckpointLeaveDisk(segments, target, ids, &error)
                          : virCheckpointLeaveDiskOff(segments, target, ids, &error);

        if (!ok)
            g_warning("domain %s (%s), disk %s: not all bits of checkpoints whose "
                      "metadata goes are left in the image: %s",
                      segments->view->name, segments->view->uuid, target,
                      error->message);
    }
}

gboolean
virCheckpointLeaveFound(virCheckpointSegments *segments,
                        const virCheckpointDef *def,
                        GError **error)
{
    guint i;

    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);
        const gchar *name = disk->bitmap ? disk->bitmap : def->name;
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->name);
        const virCheckpointBitmapInfo *info =
            top ? virCheckpointNodeBitmap(top, name) : NULL;

        if (disk->type == VIR_CHECKPOINT_DISK_NONE ||
            (info && !info->inconsistent && info->persistent && info->recording))
            continue;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                    "missing or broken bitmap '%s' for disk '%s'", name, disk->name);
        return FALSE;
    }
    return TRUE;
}
