/*
 * checkpoint_ensure.c: the invariant
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the newest segment's bitmap is on the disk's top format node, persistent,
 * recording and consistent, and on each of its layers.  Where that does not hold
 * changes of unknown extent are missing: "lost" is saved first, then tracking starts
 * anew under a new name, so that no crash in between can make it look healthy.
 *
 * Lost is for ever, so it is said only of what holds still: libvirt merges the bitmaps
 * of a commit, copy or pull in transactions of its own around the pivot, and in between
 * the top lacks them.  While libvirt knows a job on the disk nothing is decided.  Nor
 * is it while a record cannot be read: that may be the newest one, whose bitmap is
 * there.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_heal.h"
#include "checkpoint_heirs.h"
#include "checkpoint_offline.h"

/** How long a foreign job may take to end once it has begun to move a disk. */
#define CONFIRM_MS 10000
#define CONFIRM_STEP_MS 50
/** The same for a job of ours, which cannot go on while its domain is taken. */
#define CONFIRM_OURS_MS 500
/** The same once it has moved it: QEMU still has the old image open. */
#define CLOSING_MS 2000

void
virCheckpointSegmentsWarnLost(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const gchar *target)
{
    g_warning(
        "domain %s (%s), disk %s: changes since checkpoint '%s' were lost; it and "
        "older checkpoints of this disk cannot be used: " VIR_CHECKPOINT_REMEDY,
        segments->view->name, segments->view->uuid, target, record->def->name,
        segments->view->name, target);
}

gboolean
virCheckpointSegmentsCanTrack(const virCheckpointSegments *segments,
                              const virCheckpointNode *top)
{
    return g_strcmp0(top->driver, "qcow2") == 0 && !top->compatOld &&
           (!top->readOnly || !segments->view->running);
}

guint64
virCheckpointSegmentsGranularity(const virCheckpointNode *node)
{
    guint64 granularity =
        node->clusterSize ? CLAMP(node->clusterSize, 4096, 65536) : 65536;

    /* A persistent bitmap may have 512 MiB of bits. */
    while (node->sizeBytes / granularity / 8 >= 512 * 1024 * 1024)
        granularity *= 2;
    return granularity;
}

/* TRUE if there is a copy of ours on disk @target. */
static gboolean
virCheckpointEnsureCopies(virCheckpointSegments *segments, const gchar *target)
{
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(segments->store, NULL);
    guint i;

    for (i = 0; jobs && i < jobs->len; i++) {
        const virCheckpointJobRecord *job = g_ptr_array_index(jobs, i);

        if (g_str_equal(job->target, target))
            return TRUE;
    }
    return FALSE;
}

/*
 * Waits until libvirt has no job on disk @target, then looks again.  A job of ours that
 * is at rest waits for the domain that the caller has taken: it is given the time in
 * which one that ends is over, and the rest is for who begins an operation, between its
 * tries (virCheckpointOperationBegin()).
 */
static gboolean
virCheckpointEnsureLookAgain(virCheckpointSegments *segments,
                             const gchar *target,
                             GError **error)
{
    gboolean ours = virCheckpointEnsureCopies(segments, target);
    guint mostMs = ours ? CONFIRM_OURS_MS : CONFIRM_MS;
    guint waitedMs;

    if (!virCheckpointDomainViewIsStill(segments->view, error))
        return FALSE;
    for (waitedMs = 0; waitedMs < mostMs; waitedMs += CONFIRM_STEP_MS) {
        virDomainBlockJobInfo info;

        if (!segments->view->domain ||
            virDomainGetBlockJobInfo(segments->view->domain, target, &info, 0) != 1)
            return virCheckpointSegmentsRefresh(segments, error);
        g_usleep(CONFIRM_STEP_MS * 1000);
    }
    g_set_error(error, VIR_CHECKPOINT_ERROR,
                ours ? VIR_ERR_BLOCK_COPY_ACTIVE : VIR_ERR_OPERATION_FAILED,
                "disk '%s' of domain '%s' has a block job that must end first", target,
                segments->view->name);
    return FALSE;
}

/* The target of a segment for which @seemsLost and that is not in @confirmed. */
static gchar *
virCheckpointEnsureFind(virCheckpointSegments *segments,
                        virCheckpointSegmentsSeemsLostFunc seemsLost,
                        GPtrArray *confirmed)
{
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (!g_ptr_array_find_with_equal_func(confirmed, segment->target,
                                                  g_str_equal, NULL) &&
                seemsLost(segments, record, segment))
                return g_strdup(segment->target);
        }
    }
    return NULL;
}

gboolean
virCheckpointSegmentsConfirm(virCheckpointSegments *segments,
                             virCheckpointSegmentsSeemsLostFunc seemsLost,
                             GError **error)
{
    g_autoptr(GPtrArray) confirmed = g_ptr_array_new_with_free_func(g_free);
    gchar *target;

    while ((target = virCheckpointEnsureFind(segments, seemsLost, confirmed))) {
        g_ptr_array_add(confirmed, target);
        if (!virCheckpointEnsureLookAgain(segments, target, error))
            return FALSE;
    }
    return TRUE;
}

/* A disk that can hold no bitmap stays as it is once that was said. */
static gboolean
virCheckpointEnsureIsGivenUp(const virCheckpointSegments *segments,
                             const virCheckpointNode *top,
                             const virCheckpointSegment *segment)
{
    return segment->lost && segment->bitmaps->len == 0 &&
           !virCheckpointSegmentsCanTrack(segments, top);
}

/*
 * Tracking of @segment was lost: say so durably, then begin again under a new name.
 * While the guest is off nothing changes between the two: the image follows later
 * (virCheckpointSegmentsRestart), and what was copied before is not lost.
 */
static gboolean
virCheckpointEnsureRestart(virCheckpointSegments *segments,
                           virCheckpointRecord *record,
                           virCheckpointSegment *segment,
                           const virCheckpointNode *top,
                           GError **error)
{
    g_autofree gchar *name = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    if (!virCheckpointSegmentsKnowAll(segments, error))
        return FALSE;
    record = virCheckpointSegmentsEdit(segments, record);
    segment = virCheckpointRecordSegment(record, segment->target);
    if (!virCheckpointSegmentsIsKept(segments, segment)) {
        if (!segment->lost)
            virCheckpointSegmentsWarnLost(segments, record, segment->target);
        segment->lost = TRUE;
        virCheckpointHealSpoil(segments->view->uuid, segment->target);
    }
    g_clear_pointer(&segment->kept, g_free);
    g_clear_pointer(&segment->stamp, g_free);
    for (i = 0; i < segment->bitmaps->len; i++) {
        if (!virCheckpointSegmentsRelease(
                segments, g_ptr_array_index(segment->bitmaps, i), error))
            return FALSE;
    }
    g_ptr_array_set_size(segment->bitmaps, 0);
    g_ptr_array_set_size(segment->heirs, 0);
    if (virCheckpointSegmentsCanTrack(segments, top)) {
        if (!(name = virCheckpointSegmentsNewName(segments, error)))
            return FALSE;
        g_ptr_array_add(segment->bitmaps, g_strdup(name));
        g_free(segment->born);
        segment->born = g_strdup(top->file);
        virCheckpointHeirsFind(segments, segment->target, top, segment->heirs);
        segment->sizeBytes = top->sizeBytes;
        segment->granularity = virCheckpointSegmentsGranularity(top);
    }
    if (name && !segments->view->running) {
        segment->kept = g_strdup(name);
        segment->stamp = virCheckpointOfflineStamp(top->file);
    }
    if (!virCheckpointStoreSave(segments->store, record, error) ||
        !virCheckpointFaultPoint("ensure/lost", error))
        return FALSE;
    if (!name || !segments->view->running)
        return TRUE;
    virCheckpointTxnAdd(txn, top->name, name, segment->granularity,
                        VIR_CHECKPOINT_BITMAP_PERSISTENT);
    return virCheckpointTxnRun(txn, segments->view->monitor, error) &&
           virCheckpointFaultPoint("ensure/restarted", error);
}

/* Waits, not for long, until libvirt has no job on disk @target. */
static void
virCheckpointEnsureAwaitClosed(const virCheckpointSegments *segments,
                               const gchar *target)
{
    virDomainBlockJobInfo info;
    guint waitedMs;

    for (waitedMs = 0; waitedMs < CLOSING_MS; waitedMs += CONFIRM_STEP_MS) {
        if (!segments->view->running || !segments->view->domain ||
            virDomainGetBlockJobInfo(segments->view->domain, target, &info, 0) != 1)
            return;
        g_usleep(CONFIRM_STEP_MS * 1000);
    }
}

/*
 * The file in which the bitmap of @segment was made has left the chain.  Libvirt took
 * its bits along, but for one case: a shallow copy of an overlay onto an image that
 * holds what is below already.  So what the old file has is taken as well: too much at
 * worst.  When it has nothing, or is gone, *@whole is FALSE unless it is known how the
 * disk got where it is.  FALSE, without an error that matters: nobody can tell.
 */
static gboolean
virCheckpointEnsureSalvage(virCheckpointSegments *segments,
                           virCheckpointSegment *segment,
                           const virCheckpointNode *top,
                           gboolean *whole,
                           GError **error)
{
    const gchar *active = virCheckpointSegmentActive(segment);
    g_autofree gchar *file = virCheckpointParkFileName(segments, active, error);
    g_autofree gchar *held = virCheckpointHeirsHeld(segments, segment->target);
    gboolean saved;

    if (!file || !virCheckpointSidecarSalvage(segments->store, segments->view->monitor,
                                              held ? held : segment->born, active, file,
                                              &saved, error))
        return FALSE;
    if (saved)
        g_ptr_array_add(segment->sidecars, g_steal_pointer(&file));
    *whole = saved || virCheckpointHeirsExplain(segments, segment, top);
    return virCheckpointFaultPoint("ensure/salvaged", error);
}

/* The segment of disk @target that records, if @record has it. */
static gboolean
virCheckpointEnsureDisk(virCheckpointSegments *segments,
                        virCheckpointRecord *record,
                        virCheckpointSegment *segment,
                        gboolean *restarted,
                        GError **error)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    const virCheckpointNode *lowest = NULL;
    g_autoptr(GPtrArray) layers = NULL;
    g_autoptr(GError) failed = NULL;
    gboolean whole;

    if (!top)
        return TRUE;
    if (!virCheckpointSegmentsIsHealthy(segments, top, segment)) {
        if (virCheckpointEnsureIsGivenUp(segments, top, segment))
            return TRUE;
        *restarted = TRUE;
        return virCheckpointEnsureRestart(segments, record, segment, top, error);
    }
    if (virCheckpointGraphLayer(segments->graph, top, segment->born)) {
        virCheckpointHeirsLooked(segments, segment);
        return TRUE;
    }
    record = virCheckpointSegmentsEdit(segments, record);
    segment = virCheckpointRecordSegment(record, segment->target);
    virCheckpointEnsureAwaitClosed(segments, segment->target);
    if (!virCheckpointEnsureSalvage(segments, segment, top, &whole, &failed)) {
        if (!segments->view->running) {
            g_propagate_error(error, g_steal_pointer(&failed));
            return FALSE;
        }
        g_info("domain %s, disk %s: '%s': %s", segments->view->name, segment->target,
               segment->born, failed->message);
        *restarted = TRUE;
        return virCheckpointEnsureRestart(segments, record, segment, top, error);
    }
    if (!whole) {
        g_info("domain %s, disk %s: nobody saw how it moved away from '%s', which has "
               "no bits any more",
               segments->view->name, segment->target, segment->born);
        *restarted = TRUE;
        return virCheckpointEnsureRestart(segments, record, segment, top, error);
    }
    /* A commit, copy or pull moved it to another file and took all layers along; a
     * snapshot may have been put on top of that since. */
    layers = virCheckpointSegmentsLayers(segments, top, segment,
                                         virCheckpointSegmentActive(segment));
    lowest = g_ptr_array_index(layers, layers->len - 1);
    g_free(segment->born);
    segment->born = g_strdup(lowest->file);
    virCheckpointHeirsFind(segments, segment->target, lowest, segment->heirs);
    virCheckpointHeirsLooked(segments, segment);
    return virCheckpointStoreSave(segments->store, record, error);
}

/* TRUE if @segment, should it be the newest of its disk, does not track it. */
static gboolean
virCheckpointEnsureSeemsLost(virCheckpointSegments *segments,
                             const virCheckpointRecord *record,
                             const virCheckpointSegment *segment)
{
    const virCheckpointNode *top = NULL;

    if (virCheckpointSegmentsNewest(segments, segment->target) == record)
        top = virCheckpointSegmentsFindTop(segments, segment->target);
    return top && !virCheckpointSegmentsIsHealthy(segments, top, segment) &&
           !virCheckpointEnsureIsGivenUp(segments, top, segment);
}

gboolean
virCheckpointSegmentsSeemTracked(virCheckpointSegments *segments)
{
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    g_autofree gchar *target = NULL;

    if (segments->graph)
        target = virCheckpointEnsureFind(segments, virCheckpointEnsureSeemsLost, none);
    return target == NULL;
}

/* Until settling has decided about a creation nobody knows which bitmap ought to
 * record: the one before it, which has stopped if it ran, is not lost. */
static gboolean
virCheckpointEnsureAllDecided(const virCheckpointSegments *segments, GError **error)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state != VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        g_set_error(
            error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
            "checkpoint '%s' of domain '%s' is still being created: try again in a "
            "few seconds",
            record->def->name, segments->view->name);
        return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointSegmentsEnsure(virCheckpointSegments *segments, GError **error)
{
    gboolean restarted = FALSE;
    guint i;
    guint j;

    if (!segments->graph)
        return TRUE;
    if (segments->unread && virCheckpointSegmentsHasUnnamed(segments))
        return virCheckpointSegmentsKnowAll(segments, error);
    if (!virCheckpointEnsureAllDecided(segments, error) ||
        !virCheckpointSegmentsConfirm(segments, virCheckpointEnsureSeemsLost, error))
        return FALSE;
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);

            if (virCheckpointSegmentsNewest(segments, segment->target) == record &&
                !virCheckpointEnsureDisk(segments, record, segment, &restarted, error))
                return FALSE;
            record = g_ptr_array_index(segments->records, i);
        }
    }
    if (restarted && !segments->view->running)
        return virCheckpointSegmentsRestart(segments, error);
    if (restarted)
        virCheckpointSegmentsSweep(segments);
    return TRUE;
}

gboolean
virCheckpointSegmentsGiveUp(virCheckpointSegments *segments, GError **error)
{
    guint i;
    guint j;

    virCheckpointSegmentsPark(segments, NULL, NULL);
    if (!virCheckpointSegmentsRefresh(segments, error) ||
        !virCheckpointSegmentsKnowAll(segments, error))
        return FALSE;
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);
        gboolean any = FALSE;

        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);

            if (virCheckpointSegmentsNewest(segments, segment->target) != record &&
                segment->bitmaps->len == 0)
                continue;
            any = TRUE;
            record = virCheckpointSegmentsEdit(segments, record);
            segment = g_ptr_array_index(record->segments, j);
            if (!virCheckpointSegmentsReleaseAll(segments, segment->bitmaps, error))
                return FALSE;
            g_ptr_array_set_size(segment->bitmaps, 0);
            segment->lost = TRUE;
            virCheckpointHealSpoil(segments->view->uuid, segment->target);
            virCheckpointSegmentsWarnLost(segments, record, segment->target);
        }
        if (any && (!virCheckpointStoreSave(segments->store, record, error) ||
                    !virCheckpointFaultPoint("give-up/saved", error)))
            return FALSE;
    }
    virCheckpointSegmentsSweep(segments);
    return TRUE;
}
