/*
 * checkpoint_mirror_begin.c: from nothing to the bulk pass
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the order is overlay first, then copy.  Once the guest writes to the overlay
 * O the source S is frozen: the target can be slow, full or gone, and all that a
 * blockdev-backup does to the node it reads (copy-before-write) meets no guest write.
 *
 * A checkpoint asked for by a job that only finishes is created just before the
 * overlay.  Writes between the two are in the target and in the checkpoint's bitmap as
 * well: too much is copied next time, never too little.
 *
 * After the snapshot S's copy of the active bitmap can no longer change and is parked:
 * from then on these bits depend on nobody's pivot or commit.
 *
 * These steps run in the slot of the call that starts the job.  If the daemon dies in
 * them the caller got no answer, and recovery undoes them.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_foreign.h"
#include "checkpoint_leaving.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_resume.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_offline_guard.h"

gboolean
virCheckpointMirrorMakeCheckpoint(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(virCheckpointDef) def = NULL;
    g_autoptr(virCheckpointRecord) record = NULL;
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GError) left = NULL;

    if (!job->checkpoint)
        return TRUE;
    if (!(segments = virCheckpointSegmentsNewBrief(step->store, step->view, error)))
        return FALSE;
    disks = virCheckpointMirrorDisks(step->view);
    def = virCheckpointMirrorCheckpointDef(job->checkpoint, job->target, disks);
    virCheckpointDefSetDomain(def, step->view->xml);
    virCheckpointLeavingFirst(step->mirror->engine, step->store, step->view);
    if (!virCheckpointFaultPoint("mirror/before-checkpoint", error) ||
        !virCheckpointSegmentsCreate(segments, def, 0, &record, error))
        return FALSE;
    job->checkpointId = g_strdup(record->id);
    if (!virCheckpointFaultPoint("mirror/after-checkpoint", error) ||
        !virCheckpointMirrorSave(step, error))
        return FALSE;
    /* While the image can be written: below an overlay bitmaps cannot be removed. */
    if (!virCheckpointSegmentsRefresh(segments, error))
        return FALSE;
    if (!virCheckpointSegmentsPark(segments, job->target, &left))
        g_warning("domain '%s', disk '%s': frozen bitmaps stay in the image: %s",
                  step->view->name, job->target, left ? left->message : "see above");
    return virCheckpointFaultPoint("mirror/parked", error);
}

/* Makes the target or opens it again, and takes stale bitmaps out of it. */
static gboolean
virCheckpointMirrorPrepareTarget(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    virCheckpointMirrorTargetNeeds needs = {job->target, job->destFormat,
                                            job->sizeBytes, NULL};
    g_autofree gchar *format = NULL;

    if (job->aside)
        return TRUE;
    if (!job->destCreated)
        return virCheckpointMirrorTargetClean(job->destPath, job->destFormat, error) &&
               virCheckpointFaultPoint("mirror/target-cleaned", error);
    if (!virCheckpointMirrorTargetCreate(job->destPath, job->sourcePath,
                                         job->destFormat, job->sizeBytes, error) ||
        !virCheckpointFaultPoint("mirror/target-created", error))
        return FALSE;
    mirror->targetFd =
        virCheckpointMirrorTargetOpen(job->destPath, &needs, &format, error);
    return mirror->targetFd >= 0;
}

gboolean
virCheckpointMirrorPrepare(const virCheckpointMirrorStep *step, GError **error)
{
    if (!virCheckpointFaultPoint("mirror/recorded", error) ||
        !virCheckpointMirrorPrepareTarget(step, error))
        return FALSE;
    if (!step->mirror->job->native)
        return virCheckpointMirrorPrepareOverlay(step, error);
    return virCheckpointMirrorTurnOver(step, error) &&
           virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_NATIVE, error);
}

gboolean
virCheckpointMirrorMakeOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;

    return (step->mirror->offline ||
            virCheckpointMirrorOverlayCreate(job->overlayPath, job->sourcePath, "qcow2",
                                             job->sizeBytes, error)) &&
           virCheckpointFaultPoint("mirror/overlay-created", error);
}

gboolean
virCheckpointMirrorPrepareOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;

    if (!virCheckpointMirrorMakeOverlay(step, error) ||
        !virCheckpointMirrorTurnOver(step, error) ||
        (job->finish && !virCheckpointMirrorMakeCheckpoint(step, error)))
        return FALSE;
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_OVERLAYING, error);
}

/* Parks S's part of the active segment; if that fails it stays listed and is tried
 * again: the job goes on. */
static void
virCheckpointMirrorParkSource(const virCheckpointMirrorStep *step,
                              virCheckpointMirrorWhere *where)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNewSeen(step->store, step->view, &where->graph, &error);

    if (!segments || !virCheckpointSegmentsPark(segments, step->mirror->target, &error))
        g_warning("domain '%s', disk '%s': bits below the overlay are not parked: %s",
                  step->view->name, step->mirror->target,
                  error ? error->message : "see above");
}

gboolean
virCheckpointMirrorOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GPtrArray) disks = virCheckpointMirrorDisks(step->view);
    g_autofree gchar *xml =
        virCheckpointMirrorSnapshotXml(mirror->target, mirror->overlayPath, disks);
    g_auto(virCheckpointMirrorWhere) where = {0};
    virDomainSnapshotPtr snapshot;

    /* The definition first, as long as O is empty and so the same as S: what the guest
     * flushes is on O as soon as QEMU has it, and libvirt would say so only later, and
     * not durably.  It leaves a definition alone that names another file than QEMU. */
    if (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                      "qcow2", error) ||
        !virCheckpointFaultPoint("mirror/before-snapshot", error))
        return FALSE;
    snapshot = virDomainSnapshotCreateXML(
        step->view->domain, xml,
        VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA |
            VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT);
    if (!snapshot)
        return virCheckpointDomainSetError(error);
    virDomainSnapshotFree(snapshot);
    if (!virCheckpointFaultPoint("mirror/after-snapshot", error) ||
        !virCheckpointMirrorLook(step, &where, error))
        return FALSE;
    if (where.top != where.overlay || !where.source) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "disk '%s' is on '%s' and not on the overlay", mirror->target,
                    where.top->file);
        return FALSE;
    }
    virCheckpointMirrorParkSource(step, &where);
    g_free(mirror->job->defined);
    mirror->job->defined = g_strdup(mirror->overlayPath);
    return virCheckpointFaultPoint("mirror/source-parked", error) &&
           virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_BULK, error);
}

/* What is known of the changes up to now is in sidecars as long as nobody put another
 * layer on top. */
static void
virCheckpointMirrorSetCovered(const virCheckpointMirrorStep *step,
                              virCheckpointSegments *segments,
                              const virCheckpointRecord *base)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    const virCheckpointNode *top =
        virCheckpointSegmentsTop(segments, job->target, NULL);

    g_clear_pointer(&job->covered, g_ptr_array_unref);
    if (mirror->offline ||
        (top &&
         g_strcmp0(top->file, job->native ? job->sourcePath : job->overlayPath) == 0))
        job->covered = virCheckpointSegmentsParts(segments, base, job->target);
}

/* Everything that changed since a checkpoint of ours; or what an earlier job left, and
 * what changed since then. */
static gboolean
virCheckpointMirrorSinceOurs(const virCheckpointMirrorStep *step,
                             virCheckpointSegments *segments,
                             const virCheckpointRecord *base,
                             const gchar *node,
                             const gchar *name,
                             GError **error)
{
    virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(virCheckpointResumeRecord) resume =
        virCheckpointMirrorResumeFind(step->store, job);
    g_autoptr(GPtrArray) rest = g_ptr_array_new();
    gboolean made;

    virCheckpointMirrorSetCovered(step, segments, base);
    segments->covered = resume ? resume->covered : NULL;
    made = virCheckpointSegmentsSince(segments, base, job->target, node, name, TRUE,
                                      error);
    segments->covered = NULL;
    if (!made || !resume)
        return made;
    g_info("domain '%s', disk '%s': the copy to '%s' goes on: %" G_GUINT64_FORMAT
           " bytes were left",
           step->view->name, job->target, job->destPath, resume->restBytes);
    g_ptr_array_add(rest, resume->rest);
    return virCheckpointSidecarLoad(step->store, step->view->monitor, rest, node, name,
                                    error);
}

/* Everything that changed since the base: a checkpoint of ours, or of libvirt's. */
static gboolean
virCheckpointMirrorSince(const virCheckpointMirrorStep *step,
                         virCheckpointSegments *segments,
                         const gchar *node,
                         const gchar *name,
                         GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    const virCheckpointRecord *base;

    if (!job->sinceId)
        return virCheckpointForeignSince(segments, job->since, job->target, node, name,
                                         error);
    base = virCheckpointTreeById(segments->records, job->sinceId);
    if (base)
        return virCheckpointMirrorSinceOurs(step, segments, base, node, name, error);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                "no domain checkpoint with matching name '%s'", job->since);
    return FALSE;
}

gboolean
virCheckpointMirrorMakeWork(const virCheckpointMirrorStep *step,
                            virCheckpointGraph **seen,
                            const gchar *node,
                            const gchar *name,
                            GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(virCheckpointSegments) segments =
        seen ? virCheckpointSegmentsNewSeen(step->store, step->view, seen, error)
             : virCheckpointSegmentsNewBrief(step->store, step->view, error);
    g_autoptr(virCheckpointGraph) graph = NULL;
    const virCheckpointBitmapInfo *work = NULL;
    const virCheckpointNode *found;

    mirror->swept = FALSE;
    if (!segments || !virCheckpointMirrorSince(step, segments, node, name, error) ||
        !virCheckpointFaultPoint("mirror/work-made", error) ||
        !(graph = virCheckpointGraphQueryNodes(step->view->monitor, error)))
        return FALSE;
    found = virCheckpointGraphNode(graph, node);
    if (found)
        work = virCheckpointNodeBitmap(found, name);
    if (!work) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "bitmap '%s' is not on node '%s'", name, node);
        return FALSE;
    }
    mirror->job->workBytes = work->countBytes;
    return TRUE;
}

static gboolean
virCheckpointMirrorStartJob(const virCheckpointMirrorStep *step,
                            const gchar *node,
                            GError **error)
{
    g_autofree gchar *target = virCheckpointMirrorNodeName(step->mirror, "t");

    return virCheckpointMirrorBulkStart(step->mirror, step->view->monitor, node, target,
                                        error);
}

/* A target that QEMU cannot have, as confinement wants it, is copied to from outside.
 */
static gboolean
virCheckpointMirrorAttachOrNot(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) failed = NULL;
    gboolean refused = FALSE;

    /* QEMU's own mirror has left its nodes for this pass. */
    if (mirror->job->aside || mirror->job->native ||
        virCheckpointMirrorAttach(step, &refused, &failed))
        return TRUE;
    if (!refused) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    g_info("domain %s, disk '%s': QEMU does not take '%s' as a descriptor: %s",
           mirror->uuid, mirror->target, mirror->destPath, failed->message);
    mirror->job->aside = TRUE;
    return TRUE;
}

gboolean
virCheckpointMirrorBulkBegin(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(mirror);
    g_auto(virCheckpointMirrorWhere) where = {0};
    g_autofree gchar *source = NULL;

    if (!virCheckpointMirrorLook(step, &where, error))
        return FALSE;
    if (!where.overlay || !where.source) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "disk '%s' left its overlay", mirror->target);
        return FALSE;
    }
    mirror->swept = FALSE;
    source = g_strdup(where.source->name);
    if (job->full)
        job->workBytes = job->sizeBytes;
    else if (job->native ? !virCheckpointMirrorNativeWork(step, &where, error)
                         : !virCheckpointMirrorMakeWork(step, &where.graph, source,
                                                        bitmap, error))
        return FALSE;
    if (!virCheckpointMirrorSave(step, error) ||
        !virCheckpointMirrorAttachOrNot(step, error))
        return FALSE;
    if (job->aside)
        return virCheckpointMirrorAsideKeep(step, source, error) &&
               virCheckpointMirrorAsideBegin(step, error);
    if (!virCheckpointFaultPoint("mirror/before-bulk", error) ||
        !virCheckpointMirrorStartJob(step, source, error))
        return FALSE;
    mirror->begun = TRUE;
    virCheckpointMirrorSetBulkBytes(mirror, job->workBytes);
    virCheckpointMirrorSetProgress(mirror, 0, job->workBytes);
    return virCheckpointFaultPoint("mirror/bulk-begun", error);
}

void
virCheckpointMirrorHoldOthers(const virCheckpointMirrorStep *step)
{
    g_autoptr(GPtrArray) targets = g_ptr_array_new();

    g_ptr_array_add(targets, step->mirror->target);
    virCheckpointOfflineHold(step->view, targets, step->mirror->job->id);
}

gboolean
virCheckpointMirrorBulkRunOff(const virCheckpointMirrorStep *step,
                              const gchar *node,
                              GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    gboolean refused;

    if (!virCheckpointMirrorSave(step, error) ||
        !virCheckpointMirrorAttach(step, &refused, error) ||
        !virCheckpointFaultPoint("mirror/before-bulk", error) ||
        !virCheckpointMirrorStartJob(step, node, error))
        return FALSE;
    /* From now on the job goes on whoever asks: with us, or with the next daemon. */
    job->offline = TRUE;
    if (!virCheckpointMirrorSave(step, error))
        return FALSE;
    virCheckpointMirrorHoldOthers(step);
    virCheckpointOfflineHoldRest(job->id);
    g_mutex_lock(&mirror->daemonLock);
    mirror->daemon = g_steal_pointer(&step->view->monitor);
    g_mutex_unlock(&mirror->daemonLock);
    virCheckpointOfflineUnguard(step->view);
    mirror->begun = TRUE;
    virCheckpointMirrorSetBulkBytes(mirror, job->workBytes);
    virCheckpointMirrorSetProgress(mirror, 0, job->workBytes);
    return virCheckpointFaultPoint("mirror/bulk-begun", error);
}

gboolean
virCheckpointMirrorBulkBeginOff(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(mirror);
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    const virCheckpointDisk *disk;
    g_autofree gchar *node = NULL;

    g_ptr_array_add(targets, mirror->target);
    /* From here on nobody can write to the disk: the daemon has it locked. */
    if (!virCheckpointOfflineOpen(step->view, targets, FALSE, &mirror->targetFd,
                                  job->aside ? 0 : 1, error))
        return FALSE;
    disk = virCheckpointDomainFindDisk(step->view->disks, mirror->target);
    node = g_strdup(disk ? disk->alias : NULL);
    job->workBytes = job->sizeBytes;
    if (!job->full && !virCheckpointMirrorMakeWork(step, NULL, node, bitmap, error))
        return FALSE;
    if (!virCheckpointMirrorOffKeep(step, node, error))
        return FALSE;
    if (!job->aside)
        return virCheckpointMirrorBulkRunOff(step, node, error);
    job->offline = TRUE;
    virCheckpointMirrorHoldOthers(step);
    virCheckpointOfflineClose(step->view);
    if (!virCheckpointMirrorAsideBegin(step, error))
        return FALSE;
    virCheckpointOfflineHoldRest(job->id);
    return TRUE;
}
