/*
 * checkpoint_offline.c: changing the bitmaps of a guest that is off
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/offline.md): a qcow2 image that is open read-write has all its
 * bitmaps marked in use; if whoever has it open dies then, they are worthless, the
 * active one included, which was safe as long as nobody touched the image.  So before
 * an image is opened read-write all its bits are put into sidecars from a read-only
 * open, and the record says so ("kept").  From then on the bitmap in the image may be
 * lost without a loss, provided that no guest ran in between: it would have written
 * without anybody recording.  The image's inode, size and times ("stamp") tell.
 *
 * The storage daemon closes its images in order when we die, so this is for the case
 * that both are killed, or the host fails.  When the stamp is not the one recorded, the
 * bits are called lost: never guess.
 *
 * Several disks are written one by one when they are closed; blockdev-del and the end
 * of the daemon report success even when a bitmap could not be written.  So what was
 * done is what a read-only open shows afterwards.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_offline.h"
#include "checkpoint_offline_witness.h"
#include "checkpoint_segmentspriv.h"

/* Targets of the disks that are open. */
static GPtrArray *
virCheckpointOfflineOpened(const virCheckpointDomainView *view)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(view->disks, i);

        if (disk->alias)
            g_ptr_array_add(targets, g_strdup(disk->target));
    }
    return targets;
}

/* Targets of the disks that can hold a bitmap. */
static GPtrArray *
virCheckpointOfflineTrackable(const virCheckpointDomainView *view)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(view->disks, i);

        if (!disk->readOnly && !disk->empty && g_strcmp0(disk->format, "qcow2") == 0)
            g_ptr_array_add(targets, g_strdup(disk->target));
    }
    return targets;
}

GPtrArray *
virCheckpointOfflineTargets(const virCheckpointRecord *record)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; record && i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        g_ptr_array_add(targets, g_strdup(segment->target));
    }
    return targets;
}

static void
virCheckpointOfflineAddTarget(GPtrArray *targets, const gchar *target)
{
    if (!g_ptr_array_find_with_equal_func(targets, target, g_str_equal, NULL))
        g_ptr_array_add(targets, g_strdup(target));
}

GPtrArray *
virCheckpointOfflineDeleting(GPtrArray *records)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_READY)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            virCheckpointOfflineAddTarget(targets, segment->target);
        }
    }
    return targets;
}

GPtrArray *
virCheckpointOfflineUnsettled(GPtrArray *records)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(records, i);

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (segment->kept || record->state == VIR_CHECKPOINT_RECORD_CREATING)
                virCheckpointOfflineAddTarget(targets, segment->target);
        }
    }
    return targets;
}

gboolean
virCheckpointSegmentsOpen(virCheckpointSegments *segments,
                          GPtrArray *targets,
                          GError **error)
{
    if (segments->view->running)
        return TRUE;
    return virCheckpointOfflineOpen(segments->view, targets, FALSE, NULL, 0, error) &&
           virCheckpointSegmentsRefresh(segments, error);
}

static virCheckpointSegment *
virCheckpointOfflineNewest(virCheckpointSegments *segments,
                           const gchar *target,
                           virCheckpointRecord **record)
{
    *record = virCheckpointSegmentsNewest(segments, target);
    return *record ? virCheckpointRecordSegment(*record, target) : NULL;
}

static gchar *
virCheckpointOfflineTopStamp(virCheckpointSegments *segments, const gchar *target)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);

    return top ? virCheckpointOfflineStamp(top->file) : NULL;
}

/* The look, and its times, are on the disk. */
static gboolean
virCheckpointOfflineSyncTop(virCheckpointSegments *segments,
                            const gchar *target,
                            GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    g_autofree gchar *stamp = virCheckpointOfflineTopStamp(segments, target);

    return !stamp || virCheckpointFileSyncTimes(top->file, error);
}

/*
 * Takes the image's look over into the record, which is to be saved.  Its times are in
 * the kernel's memory yet: until they were synced a power cut leaves the look before,
 * which therefore stays good beside it.
 */
static void
virCheckpointOfflineRestampOne(virCheckpointSegments *segments,
                               virCheckpointSegment *segment)
{
    g_autofree gchar *now = virCheckpointOfflineTopStamp(segments, segment->target);
    const gchar *before = segment->stamp ? strrchr(segment->stamp, ' ') : NULL;
    gchar *both;

    before = before ? before + 1 : segment->stamp;
    if (!now || !before || g_str_equal(now, before))
        both = g_steal_pointer(&now);
    else
        both = g_strjoin(" ", before, now, NULL);
    g_free(segment->stamp);
    segment->stamp = both;
}

/* TRUE if the record has this look of the image. */
static gboolean
virCheckpointOfflineIsStamped(const virCheckpointSegment *segment, const gchar *look)
{
    g_auto(GStrv) looks = segment->stamp ? g_strsplit(segment->stamp, " ", -1) : NULL;

    return looks && g_strv_contains((const gchar *const *)looks, look);
}

/* Puts the bits of the disk's active bitmap into a sidecar, and says that they are. */
static gboolean
virCheckpointOfflineKeep(virCheckpointSegments *segments,
                         const gchar *target,
                         GError **error)
{
    virCheckpointRecord *record;
    virCheckpointSegment *segment =
        virCheckpointOfflineNewest(segments, target, &record);
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);
    const gchar *active = segment ? virCheckpointSegmentActive(segment) : NULL;

    if (!active || !top)
        return TRUE;
    if (g_strcmp0(segment->kept, active) != 0) {
        if (!virCheckpointSegmentsIsHealthy(segments, top, segment)) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                        "disk '%s' is not tracked", target);
            return FALSE;
        }
        if (!virCheckpointSegmentsCopy(segments, segment, top, active, error))
            return FALSE;
        g_free(segment->kept);
        segment->kept = g_strdup(active);
    }
    /* The guest's QEMU left data on the disk, and the times to the kernel. */
    if (!virCheckpointOfflineSyncTop(segments, target, error))
        return FALSE;
    g_free(segment->stamp);
    segment->stamp = virCheckpointOfflineTopStamp(segments, target);
    return virCheckpointFaultPoint("offline/copied", error) &&
           virCheckpointStoreSave(segments->store, record, error) &&
           virCheckpointFaultPoint("offline/kept", error);
}

static gboolean
virCheckpointOfflineSyncKept(virCheckpointSegments *segments,
                             const virCheckpointRecord *record,
                             GError **error)
{
    guint i;

    for (i = 0; i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        if (segment->kept &&
            !virCheckpointOfflineSyncTop(segments, segment->target, error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointSegmentsRestamp(virCheckpointSegments *segments, GError **error)
{
    guint i;
    guint j;

    if (segments->view->running)
        return TRUE;
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        gboolean any = FALSE;

        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);

            if (!segment->kept ||
                !virCheckpointSegmentsFindTop(segments, segment->target))
                continue;
            virCheckpointOfflineRestampOne(segments, segment);
            any = TRUE;
        }
        if (any && (!virCheckpointStoreSave(segments->store, record, error) ||
                    !virCheckpointOfflineSyncKept(segments, record, error)))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointSegmentsWritable(virCheckpointSegments *segments,
                              GPtrArray *targets,
                              GError **error)
{
    int lock = virCheckpointStoreDomainLockFd(segments->store);
    guint i;

    if (segments->view->running)
        return TRUE;
    for (i = 0; i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);

        if (!virCheckpointSegmentsPark(segments, target, error) ||
            !virCheckpointOfflineKeep(segments, target, error))
            return FALSE;
    }
    return virCheckpointOfflineOpen(segments->view, targets, TRUE, &lock, 1, error) &&
           virCheckpointFaultPoint("offline/in-use", error) &&
           virCheckpointSegmentsRefresh(segments, error) &&
           virCheckpointSegmentsRestamp(segments, error) &&
           virCheckpointFaultPoint("offline/opened", error);
}

/* After a read-only open: kept bitmaps that are well are no longer in danger. */
static gboolean
virCheckpointOfflineUnkeep(virCheckpointSegments *segments, GError **error)
{
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        gboolean any = FALSE;

        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);
            const virCheckpointNode *top =
                virCheckpointSegmentsFindTop(segments, segment->target);
            const virCheckpointBitmapInfo *info = NULL;

            if (segment->kept && top)
                info = virCheckpointNodeBitmap(top, segment->kept);
            if (!info || info->inconsistent)
                continue;
            /* Its storage daemon may have been killed before it flushed. */
            if (!virCheckpointOfflineSyncTop(segments, segment->target, error))
                return FALSE;
            record = virCheckpointSegmentsEdit(segments, record);
            segment = g_ptr_array_index(record->segments, j);
            g_clear_pointer(&segment->kept, g_free);
            g_clear_pointer(&segment->stamp, g_free);
            any = TRUE;
        }
        if (any && !virCheckpointStoreSave(segments->store, record, error))
            return FALSE;
    }
    return TRUE;
}

/* What images hold that were closed and opened again is what stays: settling need not
 * look there if nothing of that was released.  What was released here is in those that
 * are open; what somebody else left may be in any. */
static void
virCheckpointOfflineConclude(virCheckpointSegments *segments)
{
    g_autoptr(GPtrArray) all = NULL;
    guint i;

    if (segments->view->running || !virCheckpointSegmentsWaitsForSweep(segments))
        return;
    all = virCheckpointOfflineTrackable(segments->view);
    for (i = 0; i < all->len; i++) {
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, g_ptr_array_index(all, i));

        if ((!top && !segments->awaited) ||
            (top && virCheckpointSegmentsNodeHasReleased(segments, top)))
            return;
    }
    virCheckpointSegmentsSwept(segments);
}

gboolean
virCheckpointSegmentsReadBack(virCheckpointSegments *segments, GError **error)
{
    g_autoptr(GPtrArray) targets = NULL;

    if (segments->view->running || !segments->view->writable)
        return TRUE;
    targets = virCheckpointOfflineOpened(segments->view);
    virCheckpointOfflineClose(segments->view);
    /* Nobody has held the images in between for longer than it takes to look. */
    if (!virCheckpointFaultPoint("offline/closed", error) ||
        !virCheckpointSegmentsOpen(segments, targets, error) ||
        !virCheckpointOfflineUnkeep(segments, error) ||
        !virCheckpointSegmentsRestamp(segments, error))
        return FALSE;
    virCheckpointOfflineConclude(segments);
    return virCheckpointFaultPoint("offline/read-back", error);
}

gboolean
virCheckpointSegmentsIsKept(virCheckpointSegments *segments,
                            const virCheckpointSegment *segment)
{
    g_autofree gchar *now = NULL;

    if (segments->view->running || !segment->kept ||
        g_strcmp0(segment->kept, virCheckpointSegmentActive(segment)) != 0)
        return FALSE;
    now = virCheckpointOfflineTopStamp(segments, segment->target);
    return now && (virCheckpointOfflineIsStamped(segment, now) ||
                   virCheckpointOfflineWitnessed(
                       virCheckpointStoreDomainLockFd(segments->store), now));
}

/* TRUE if a checkpoint that is being created has its bitmap on @top: then the bitmap
 * before it was frozen in the same step, and its bits are all in sidecars. */
static gboolean
virCheckpointOfflineHasSuccessor(virCheckpointSegments *segments,
                                 const virCheckpointNode *top,
                                 const gchar *target)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        const virCheckpointSegment *segment =
            record->state == VIR_CHECKPOINT_RECORD_CREATING
                ? virCheckpointRecordSegment(record, target)
                : NULL;
        const gchar *name = segment ? virCheckpointSegmentActive(segment) : NULL;
        const virCheckpointBitmapInfo *info =
            name ? virCheckpointNodeBitmap(top, name) : NULL;

        if (info && !info->inconsistent)
            return TRUE;
    }
    return FALSE;
}

/* The witness's word is for the last images that were open, the record's for good. */
static gboolean
virCheckpointOfflineConfirm(virCheckpointSegments *segments,
                            virCheckpointRecord *record,
                            const gchar *target,
                            GError **error)
{
    virCheckpointSegment *segment;
    g_autofree gchar *now = virCheckpointOfflineTopStamp(segments, target);

    record = virCheckpointSegmentsEdit(segments, record);
    segment = virCheckpointRecordSegment(record, target);
    if (g_strcmp0(now, segment->stamp) == 0)
        return TRUE;
    virCheckpointOfflineRestampOne(segments, segment);
    return virCheckpointStoreSave(segments->store, record, error) &&
           virCheckpointOfflineSyncTop(segments, target, error);
}

/* The bitmap that @segment keeps is not in the image any more, or worthless. */
static gboolean
virCheckpointOfflineForgetKept(virCheckpointSegments *segments,
                               virCheckpointRecord *record,
                               virCheckpointSegment *segment,
                               const virCheckpointNode *top,
                               GError **error)
{
    if (!virCheckpointSegmentsIsActive(segments, record, segment, segment->kept) ||
        virCheckpointOfflineHasSuccessor(segments, top, segment->target))
        return TRUE;
    if (virCheckpointSegmentsIsKept(segments, segment))
        return virCheckpointOfflineConfirm(segments, record, segment->target, error);
    g_info("domain %s, disk %s: the image changed since it was last opened",
           segments->view->name, segment->target);
    record = virCheckpointSegmentsEdit(segments, record);
    segment = virCheckpointRecordSegment(record, segment->target);
    g_clear_pointer(&segment->kept, g_free);
    g_clear_pointer(&segment->stamp, g_free);
    return virCheckpointStoreSave(segments->store, record, error);
}

gboolean
virCheckpointSegmentsResolveKept(virCheckpointSegments *segments, GError **error)
{
    guint i;
    guint j;

    if (!segments->graph)
        return TRUE;
    if (!virCheckpointOfflineUnkeep(segments, error))
        return FALSE;
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);
            const virCheckpointNode *top =
                virCheckpointSegmentsFindTop(segments, segment->target);

            if (segment->kept && top &&
                !virCheckpointOfflineForgetKept(segments, record, segment, top, error))
                return FALSE;
        }
    }
    return TRUE;
}

/* The disks whose newest segment names an active bitmap that the image does not have.
 */
static GPtrArray *
virCheckpointOfflineMissing(virCheckpointSegments *segments, virCheckpointTxn *txn)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->target);
        virCheckpointRecord *record;
        const virCheckpointSegment *segment =
            virCheckpointOfflineNewest(segments, disk->target, &record);
        const gchar *active = segment ? virCheckpointSegmentActive(segment) : NULL;

        if (!top || !active || virCheckpointNodeBitmap(top, active))
            continue;
        g_ptr_array_add(targets, g_strdup(disk->target));
        if (txn)
            virCheckpointTxnAdd(txn, top->name, active, segment->granularity,
                                VIR_CHECKPOINT_BITMAP_PERSISTENT);
    }
    return targets;
}

gboolean
virCheckpointSegmentsRestart(virCheckpointSegments *segments, GError **error)
{
    g_autoptr(GPtrArray) targets = virCheckpointOfflineMissing(segments, NULL);
    g_autoptr(GPtrArray) now = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    if (targets->len == 0)
        return TRUE;
    if (virCheckpointSegmentsWritable(segments, targets, error)) {
        now = virCheckpointOfflineMissing(segments, txn);
        if (virCheckpointTxnRun(txn, segments->view->monitor, error) &&
            virCheckpointFaultPoint("offline/restarted", error)) {
            virCheckpointSegmentsSweep(segments);
            return virCheckpointSegmentsReadBack(segments, error);
        }
    }
    virCheckpointSegmentsReadBack(segments, NULL);
    return FALSE;
}

/* TRUE if the storage daemon is there and gave no answer. */
static gboolean
virCheckpointOfflineHasDied(const virCheckpointDomainView *view)
{
    return view->monitor && !virCheckpointMonitorAnswered(view->monitor);
}

/* TRUE if a top image of @targets, which are open, holds a bitmap that nobody needs.
 * What a layer below has waits until that is written to. */
static gboolean
virCheckpointOfflineHasReleased(virCheckpointSegments *segments, GPtrArray *targets)
{
    guint i;

    for (i = 0; i < targets->len; i++) {
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, g_ptr_array_index(targets, i));

        if (top && virCheckpointSegmentsNodeHasReleased(segments, top))
            return TRUE;
    }
    return FALSE;
}

/* Tells which images of @targets still hold some, or could not be looked into.  TRUE if
 * there are none. */
static gboolean
virCheckpointOfflineTellReleased(virCheckpointSegments *segments,
                                 GPtrArray *targets,
                                 const GError *failed)
{
    gboolean clean = TRUE;
    guint i;

    for (i = 0; i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->target);

        if (!g_ptr_array_find_with_equal_func(targets, disk->target, g_str_equal,
                                              NULL) ||
            (top && !virCheckpointSegmentsNodeHasReleased(segments, top)))
            continue;
        clean = FALSE;
        g_warning("domain %s (%s), disk %s: bitmaps that nobody needs may stay in '%s' "
                  "until the guest runs: %s",
                  segments->view->name, segments->view->uuid, disk->target,
                  disk->source ? disk->source : disk->type,
                  failed ? failed->message : "QEMU does not say why");
    }
    return clean;
}

/* Returns: FALSE with or without @error if some of them are still there.  *@died: for
 * that the storage daemon ended in the middle. */
static gboolean
virCheckpointOfflineSweepOnce(virCheckpointSegments *segments,
                              GPtrArray *targets,
                              gboolean *died,
                              GError **error)
{
    g_autoptr(GError) failed = NULL;

    if (virCheckpointSegmentsOpen(segments, targets, &failed) &&
        virCheckpointOfflineHasReleased(segments, targets) &&
        virCheckpointSegmentsWritable(segments, targets, &failed)) {
        virCheckpointSegmentsSweep(segments);
        *died = virCheckpointOfflineHasDied(segments->view);
        return virCheckpointSegmentsReadBack(segments, error) &&
               !virCheckpointOfflineHasReleased(segments, targets);
    }
    *died = virCheckpointOfflineHasDied(segments->view);
    if (segments->view->writable)
        virCheckpointSegmentsReadBack(segments, NULL);
    if (!failed)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&failed));
    return FALSE;
}

gboolean
virCheckpointSegmentsSweepOff(virCheckpointSegments *segments, GPtrArray *targets)
{
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GError) error = NULL;
    gboolean died = FALSE;
    gboolean waits = !segments->awaited && virCheckpointSegmentsWaitsForSweep(segments);

    if (segments->view->running ||
        (targets->len == 0 && segments->records->len > 0 && !waits))
        return TRUE;
    /* After the last checkpoint no image may hold a bitmap of ours; and who released
     * some may have died. */
    if (segments->records->len == 0 || waits) {
        all = virCheckpointOfflineTrackable(segments->view);
        if (all->len > 0 && virCheckpointSegmentsOpen(segments, all, &error)) {
            virCheckpointSegmentsSweep(segments);
            targets = all;
        } else if (error && !virCheckpointOfflineHasDied(segments->view) &&
                   (targets->len == 0 || targets->len >= all->len)) {
            return virCheckpointOfflineTellReleased(segments, all, error);
        }
        /* Or it is one that the last checkpoint did not cover. */
        g_clear_error(&error);
    }
    if (targets->len == 0)
        return TRUE;
    if (!virCheckpointOfflineSweepOnce(segments, targets, &died, &error)) {
        if (!died)
            return virCheckpointOfflineTellReleased(segments, targets, error);
        /* Nobody else comes to a guest that is off. */
        virCheckpointOfflineClose(segments->view);
        g_clear_error(&error);
        if (!virCheckpointOfflineSweepOnce(segments, targets, &died, &error))
            return virCheckpointOfflineTellReleased(segments, targets, error);
    }
    virCheckpointOfflineConclude(segments);
    return TRUE;
}

void
virCheckpointSegmentsParkOff(virCheckpointSegments *segments)
{
    g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;
    guint k;

    for (i = 0; !segments->view->running && i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            for (k = 0; k < segment->bitmaps->len; k++) {
                if (!virCheckpointSegmentsIsRecording(
                        segments, segment->target,
                        g_ptr_array_index(segment->bitmaps, k)))
                    virCheckpointOfflineAddTarget(targets, segment->target);
            }
        }
    }
    if (targets->len == 0 || !virCheckpointSegmentsOpen(segments, targets, NULL))
        return;
    virCheckpointSegmentsPark(segments, NULL, NULL);
    virCheckpointSegmentsSweepOff(segments, targets);
}
