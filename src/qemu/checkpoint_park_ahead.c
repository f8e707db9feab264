/*
 * checkpoint_park_ahead.c: sidecars that are open before a creation needs them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a creation freezes the bitmap that recorded until then, and its client waits
 * until that is parked.  A transaction drains every node of the guest, which is the
 * dearest of all steps.  So the sidecars are opened before it, and the creation's own
 * transaction fills them: per disk it adds the new bitmap, disables the previous one
 * and then merges that, whose bits are final by then.  Parking finds them filled.
 *
 * This is a short cut and nothing else.  Recovery sends the creation's part alone: a
 * transaction of ours that comes late fails as a whole then, since the new bitmaps are
 * there.  Whatever goes wrong with a sidecar here, it is given up, and parking does all
 * of it, in its own way.
 */

#include "config.h"

#include "checkpoint_segmentspriv.h"

struct virCheckpointParkAhead {
    GPtrArray *parts; /* virCheckpointSidecarPart* */
    GPtrArray *names; /* gchar*: what the parts' sources borrow */
    virCheckpointSidecarBatch *batch;
    gboolean filled; /* its transaction ran */
};

void
virCheckpointParkAheadFree(virCheckpointParkAhead *ahead)
{
    if (!ahead)
        return;
    virCheckpointSidecarBatchFree(ahead->batch);
    g_ptr_array_unref(ahead->parts);
    g_ptr_array_unref(ahead->names);
    g_free(ahead);
}

/* A name of @ahead's own: what it was taken from goes with the next look. */
static const gchar *
virCheckpointParkAheadName(virCheckpointParkAhead *ahead, const gchar *name)
{
    gchar *own = g_strdup(name);

    g_ptr_array_add(ahead->names, own);
    return own;
}

/* The bitmap of disk @target that the creation freezes, if all of it is on the disk's
 * top: what layers have of it is parking's. */
static const virCheckpointBitmapInfo *
virCheckpointParkAheadFrozen(virCheckpointSegments *segments,
                             const virCheckpointNode *top,
                             const gchar *target)
{
    const virCheckpointRecord *newest = virCheckpointSegmentsNewest(segments, target);
    const virCheckpointSegment *segment =
        newest ? virCheckpointRecordSegment(newest, target) : NULL;
    const virCheckpointBitmapInfo *info = NULL;
    g_autoptr(GPtrArray) layers = NULL;

    if (!segment || !virCheckpointSegmentsIsHealthy(segments, top, segment))
        return NULL;
    layers = virCheckpointSegmentsLayers(segments, top, segment, NULL);
    info = virCheckpointNodeBitmap(top, virCheckpointSegmentActive(segment));
    return layers->len == 1 && !info->busy ? info : NULL;
}

/* One sidecar for disk @target, if there is something to park. */
static gboolean
virCheckpointParkAheadAdd(virCheckpointSegments *segments,
                          virCheckpointParkAhead *ahead,
                          const gchar *target,
                          GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    const virCheckpointBitmapInfo *info =
        top ? virCheckpointParkAheadFrozen(segments, top, target) : NULL;
    virCheckpointSidecarPart *part;
    virCheckpointBitmapRef ref;
    g_autofree gchar *file = NULL;

    if (!info)
        return TRUE;
    if (!(file = virCheckpointParkFileName(segments, info->name, error)))
        return FALSE;
    part = virCheckpointSidecarPartNew(file, top->sizeBytes, info->granularity);
    g_ptr_array_add(ahead->parts, part);
    ref.node = virCheckpointParkAheadName(ahead, top->name);
    ref.name = virCheckpointParkAheadName(ahead, info->name);
    g_array_append_val(part->sources, ref);
    return TRUE;
}

static virCheckpointParkAhead *
virCheckpointParkAheadNew(virCheckpointSegments *segments,
                          const virCheckpointRecord *record,
                          GError **error)
{
    virCheckpointParkAhead *ahead = g_new0(virCheckpointParkAhead, 1);
    guint i;

    ahead->parts =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointSidecarPartFree);
    ahead->names = g_ptr_array_new_with_free_func(g_free);
    for (i = 0; i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        if (!virCheckpointParkAheadAdd(segments, ahead, segment->target, error)) {
            virCheckpointParkAheadFree(ahead);
            return NULL;
        }
    }
    return ahead;
}

void
virCheckpointSegmentsParkAhead(virCheckpointSegments *segments,
                               const virCheckpointRecord *record)
{
    g_autoptr(GError) error = NULL;

    virCheckpointSegmentsParkAheadDrop(segments);
    if (!segments->view->running)
        return;
    segments->ahead = virCheckpointParkAheadNew(segments, record, &error);
    if (segments->ahead && segments->ahead->parts->len > 0)
        segments->ahead->batch = virCheckpointSidecarBatchOpen(
            segments->store, segments->view->monitor,
            (virCheckpointSidecarPart **)segments->ahead->parts->pdata,
            segments->ahead->parts->len, &error);
    if (segments->ahead && segments->ahead->batch)
        return;
    if (error)
        g_debug("domain=%s nothing is parked ahead: %s", segments->view->uuid,
                error->message);
    virCheckpointSegmentsParkAheadDrop(segments);
}

void
virCheckpointSegmentsParkAheadDrop(virCheckpointSegments *segments)
{
    g_clear_pointer(&segments->ahead, virCheckpointParkAheadFree);
}

gboolean
virCheckpointSegmentsParkAheadFill(virCheckpointSegments *segments,
                                   virCheckpointTxn *txn)
{
    if (!segments->ahead)
        return FALSE;
    virCheckpointSidecarBatchFill(segments->ahead->batch, txn);
    segments->ahead->filled = TRUE;
    return TRUE;
}

/* The part of @ahead that @part is, or NULL. */
static virCheckpointSidecarPart *
virCheckpointParkAheadFind(const virCheckpointParkAhead *ahead,
                           const virCheckpointSidecarPart *part)
{
    guint i;

    for (i = 0; i < ahead->parts->len; i++) {
        virCheckpointSidecarPart *one = g_ptr_array_index(ahead->parts, i);
        const virCheckpointBitmapRef *from =
            &g_array_index(one->sources, virCheckpointBitmapRef, 0);
        const virCheckpointBitmapRef *wanted =
            &g_array_index(part->sources, virCheckpointBitmapRef, 0);

        if (g_str_equal(one->fileName, part->fileName) && part->sources->len == 1 &&
            part->counted && one->sizeBytes == part->sizeBytes &&
            one->granularity == part->granularity &&
            g_str_equal(from->node, wanted->node) &&
            g_str_equal(from->name, wanted->name))
            return one;
    }
    return NULL;
}

gboolean
virCheckpointSegmentsParkAheadTake(virCheckpointSegments *segments,
                                   GPtrArray *parts,
                                   gboolean *taken,
                                   GError **error)
{
    g_autoptr(virCheckpointParkAhead) ahead = g_steal_pointer(&segments->ahead);
    guint i;

    *taken = ahead && ahead->filled && ahead->parts->len == parts->len;
    for (i = 0; *taken && i < parts->len; i++) {
        const virCheckpointSidecarPart *part = g_ptr_array_index(parts, i);
        virCheckpointSidecarPart *one = virCheckpointParkAheadFind(ahead, part);

        *taken = one != NULL;
        if (one) {
            one->counted = TRUE;
            one->countBytes = part->countBytes;
        }
    }
    return !*taken || virCheckpointSidecarBatchClose(ahead->batch, error);
}
