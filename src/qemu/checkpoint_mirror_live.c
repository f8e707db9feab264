/*
 * checkpoint_mirror_live.c: libvirt's own copy of the overlay, and the pivot
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: after the bulk pass the target holds S.  Libvirt's shallow, reuse-ext copy of
 * the overlay brings O's clusters and mirrors new writes; since libvirt knows that job,
 * its pivot keeps the domain's definition right and carries the bitmaps of the overlay.
 * Our bits below it are parked; those of libvirt's own checkpoints are put onto the
 * target, where its pivot adds the overlay's to them.
 *
 * The copy may be started again at any time before it is ready: it brings all of O.
 *
 * A checkpoint asked for is created right before the mirror is stopped or pivoted, so
 * that what it leaves to the next copy is next to nothing.
 *
 * Libvirt's answer to an abort does not say whether the last writes reached the target:
 * its event does.  Without that word the target counts as incomplete.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_foreign.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"

/* Libvirt sends its event before or right after the answer to the call. */
#define VIR_CHECKPOINT_EVENT_TIMEOUT_MS 5000

/* Nothing of libvirt's own is lost by a pivot, ours or somebody else's. */
static gboolean
virCheckpointMirrorCarry(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNew(step->store, step->view, error);

    return segments && virCheckpointForeignCarry(segments, job->target, job->sourcePath,
                                                 job->destPath, error);
}

/* What QEMU says that the copy failed of, or NULL. */
static gchar *
virCheckpointMirrorCopyError(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    return g_strdup(mirror->copyError);
}

static void
virCheckpointMirrorForgetCopyError(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    g_clear_pointer(&mirror->copyError, g_free);
}

static gboolean
virCheckpointMirrorCopyStart(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;
    g_autofree gchar *xml = NULL;
    virTypedParameterPtr params = NULL;
    int nparams = 0;
    int maxparams = 0;
    int rc;

    if ((!job->aside &&
         !virCheckpointMirrorTargetClean(job->destPath, job->destFormat, error)) ||
        !(xml = virCheckpointMirrorCopyXml(job->destXml, job->destFormat, error)) ||
        !virCheckpointFaultPoint("mirror/before-copy", error))
        return FALSE;
    virCheckpointMirrorForgetCopyError(mirror);
    if ((mirror->bandwidthBytes &&
         virTypedParamsAddULLong(&params, &nparams, &maxparams,
                                 VIR_DOMAIN_BLOCK_COPY_BANDWIDTH,
                                 mirror->bandwidthBytes) < 0) ||
        (job->granularity && virTypedParamsAddUInt(&params, &nparams, &maxparams,
                                                   VIR_DOMAIN_BLOCK_COPY_GRANULARITY,
                                                   job->granularity) < 0) ||
        (job->bufSize &&
         virTypedParamsAddULLong(&params, &nparams, &maxparams,
                                 VIR_DOMAIN_BLOCK_COPY_BUF_SIZE, job->bufSize) < 0))
        rc = -1;
    else
        rc = virDomainBlockCopy(
            step->view->domain, mirror->target, xml, params, (unsigned)nparams,
            VIR_DOMAIN_BLOCK_COPY_SHALLOW | VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB |
                (job->flags & VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES));
    if (rc < 0)
        virCheckpointDomainSetError(error);
    virTypedParamsFree(params, nparams);
    if (rc < 0)
        return FALSE;
    mirror->innerRan = TRUE;
    return virCheckpointFaultPoint("mirror/copy-begun", error) &&
           virCheckpointMirrorCarry(step, error);
}

/* Libvirt has no job on the disk: it is to be started, ended in failure, or someone
 * ended it past us. */
static virCheckpointMirrorResult
virCheckpointMirrorCopyGone(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};

    if (!virCheckpointMirrorLook(step, &where, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (where.dest) {
        mirror->pivoted = TRUE;
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
        return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_PIVOTING, error)
                   ? VIR_CHECKPOINT_MIRROR_MOVED
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (mirror->copyBegun) {
        if (virCheckpointMirrorAwaitEnd(mirror, 0) == VIR_DOMAIN_BLOCK_JOB_CANCELED)
            virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_CANCELED, NULL);
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "the copy of disk '%s' to '%s' ended before it was complete",
                    mirror->target, mirror->destPath);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    mirror->copyBegun = TRUE;
    return virCheckpointMirrorCopyStart(step, error) ? VIR_CHECKPOINT_MIRROR_WAIT
                                                     : VIR_CHECKPOINT_MIRROR_RETRY;
}

/* The mirror is stopped when it is ready: the target is the disk at that moment. */
static gboolean
virCheckpointMirrorCopyFinish(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *why = NULL;
    gint status;

    if (!virCheckpointMirrorMakeCheckpoint(step, error))
        return FALSE;
    virCheckpointMirrorExpectEnd(mirror);
    if (!virCheckpointFaultPoint("mirror/before-stop", error))
        return FALSE;
    if (virDomainBlockJobAbort(step->view->domain, mirror->target, 0) < 0)
        return virCheckpointDomainSetError(error);
    if (!virCheckpointFaultPoint("mirror/after-stop", error))
        return FALSE;
    status = virCheckpointMirrorAwaitEnd(mirror, VIR_CHECKPOINT_EVENT_TIMEOUT_MS);
    if (status != VIR_DOMAIN_BLOCK_JOB_CANCELED &&
        status != VIR_DOMAIN_BLOCK_JOB_COMPLETED) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "the last writes to '%s' may be missing: the mirror of disk '%s'"
                    " did not end in order",
                    mirror->destPath, mirror->target);
        return FALSE;
    }
    /* Libvirt calls a job cancelled that failed while it drained. */
    if ((why = virCheckpointMirrorCopyError(mirror))) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "copy of disk '%s' to '%s': %s", mirror->target, mirror->destPath,
                    why);
        return FALSE;
    }
    /* Where there is no file to sync, the mirror's own end is the flush. */
    if (!mirror->job->aside &&
        !virCheckpointMirrorTargetSync(-1, mirror->destPath, error))
        return FALSE;
    virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING, error);
}

void
virCheckpointMirrorSetEndsCheckpoints(const virCheckpointJobRecord *job, GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                "destination '%s' cannot hold a bitmap, and checkpoints of disk '%s'"
                " depend on one: finish the copy without a pivot, delete them, or start"
                " it with parameter 'end-checkpoints'",
                job->destPath, job->target);
}

gboolean
virCheckpointMirrorMayPivot(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNew(step->store, step->view, error);
    g_autofree gchar *ours = virCheckpointMirrorNodeName(mirror, "t");
    const GPtrArray *nodes;
    gboolean old = FALSE;
    guint i;

    if (!segments)
        return FALSE;
    nodes = virCheckpointGraphNodes(segments->graph);
    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (node->compatOld && (g_strcmp0(node->file, mirror->destPath) == 0 ||
                                g_strcmp0(node->name, ours) == 0))
            old = TRUE;
    }
    if (!old && g_str_equal(mirror->job->destFormat, "qcow2"))
        return TRUE;
    if (mirror->job->endCheckpoints) {
        g_info("domain '%s', disk '%s': its checkpoints end with the pivot to '%s'",
               step->view->name, mirror->target, mirror->destPath);
        return TRUE;
    }
    if (!mirror->job->checkpoint &&
        !virCheckpointTreeNewest(segments->records, mirror->target))
        return TRUE;
    virCheckpointMirrorSetEndsCheckpoints(mirror->job, error);
    return FALSE;
}

/* The checkpoint that a pivot or stop in vain has made must not stay. */
static void
virCheckpointMirrorPivotUndo(const virCheckpointMirrorStep *step)
{
    g_autoptr(GError) error = NULL;

    if (virCheckpointMirrorTakeCheckpointBack(step, &error))
        return;
    g_warning("domain '%s', disk '%s': checkpoint '%s' of a pivot that failed stays:"
              " %s",
              step->view->name, step->mirror->target, step->mirror->job->checkpoint,
              error->message);
}

/* What a wish asks of a mirror that is ready. */
static virCheckpointMirrorResult
virCheckpointMirrorCopyReady(const virCheckpointMirrorStep *step,
                             virCheckpointMirrorWish wish,
                             GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) refused = NULL;

    if (wish == VIR_CHECKPOINT_MIRROR_WISH_CANCEL)
        return virCheckpointMirrorCopyFinish(step, error) ? VIR_CHECKPOINT_MIRROR_MOVED
                                                          : VIR_CHECKPOINT_MIRROR_RETRY;
    if (wish != VIR_CHECKPOINT_MIRROR_WISH_PIVOT)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (!virCheckpointMirrorMayPivot(step, &refused) ||
        !virCheckpointMirrorCarry(step, &refused) ||
        !virCheckpointMirrorMakeCheckpoint(step, &refused)) {
        virCheckpointMirrorPivotUndo(step);
        virCheckpointMirrorPivotFailed(mirror, g_steal_pointer(&refused));
        return VIR_CHECKPOINT_MIRROR_WAIT;
    }
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_PIVOTING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

virCheckpointMirrorResult
virCheckpointMirrorLive(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointMirrorWish wish = virCheckpointMirrorGetWish(mirror);
    virCheckpointMirrorInner inner;
    gboolean busy = FALSE;

    if (!mirror->copyBegun) {
        if (!virCheckpointMirrorSweep(step, &busy, error))
            return VIR_CHECKPOINT_MIRROR_RETRY;
        if (busy)
            return VIR_CHECKPOINT_MIRROR_WAIT;
    }
    if (!virCheckpointMirrorInnerQuery(mirror, step->view->domain, &inner, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (inner.type != VIR_DOMAIN_BLOCK_JOB_TYPE_COPY)
        return virCheckpointMirrorCopyGone(step, error);
    mirror->copyBegun = TRUE;
    mirror->innerRan = TRUE;
    if (inner.ready) {
        virCheckpointMirrorSetReady(mirror);
        return virCheckpointMirrorCopyReady(step, wish, error);
    }
    if (wish != VIR_CHECKPOINT_MIRROR_WISH_CANCEL)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_CANCELED, NULL);
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

/* QEMU is on the target. */
static virCheckpointMirrorResult
virCheckpointMirrorPivotDone(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    mirror->pivoted = TRUE;
    virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_CLEANING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

/* QEMU is on the overlay still. */
static virCheckpointMirrorResult
virCheckpointMirrorPivotUndone(const virCheckpointMirrorStep *step,
                               const virCheckpointMirrorInner *inner,
                               GError *why,
                               GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    if (inner->type != VIR_DOMAIN_BLOCK_JOB_TYPE_COPY) {
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_FAILED, why);
        g_error_free(why);
        return virCheckpointMirrorFixConfig(step, mirror->destPath, mirror->overlayPath,
                                            "qcow2", error) &&
                       virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING,
                                               error)
                   ? VIR_CHECKPOINT_MIRROR_MOVED
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    virCheckpointMirrorPivotUndo(step);
    if (!virCheckpointMirrorFixConfig(step, mirror->destPath, mirror->overlayPath,
                                      "qcow2", error) ||
        !virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_MIRRORING, error)) {
        g_error_free(why);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    virCheckpointMirrorPivotFailed(mirror, why);
    return VIR_CHECKPOINT_MIRROR_WAIT;
}

/*
 * A pivot takes along what records on O and nothing else: bits that a checkpoint froze
 * there must be in sidecars.  They are, unless libvirt was away for a moment just then.
 */
static gboolean
virCheckpointMirrorPivotPark(const virCheckpointMirrorStep *step, GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNew(step->store, step->view, error);

    if (!segments || !virCheckpointSegmentsEnsure(segments, error) ||
        !virCheckpointSegmentsPark(segments, step->mirror->target, error)) {
        g_prefix_error(error, "before the pivot: ");
        return FALSE;
    }
    return virCheckpointFaultPoint("mirror/pivot-parked", error);
}

/*
 * Libvirt refused before it began, such as for a guest that was ended just now: nobody
 * may take the definition for a sign that the guest was on the target.
 */
static void
virCheckpointMirrorPivotRefused(const virCheckpointMirrorStep *step, const GError *why)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) error = NULL;

    if (virCheckpointErrorCode(why) != VIR_ERR_OPERATION_INVALID)
        return;
    if (!virCheckpointMirrorFixConfig(step, mirror->destPath, mirror->overlayPath,
                                      "qcow2", &error))
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error->message);
}

virCheckpointMirrorResult
virCheckpointMirrorPivot(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};
    g_autoptr(GError) why = NULL;
    virCheckpointMirrorInner inner;
    gboolean mayPivot =
        virCheckpointMirrorGetWish(mirror) == VIR_CHECKPOINT_MIRROR_WISH_PIVOT;

    /* The configuration first: a libvirtd that dies in its pivot leaves it as it is. */
    if (mayPivot && virCheckpointMirrorPivotPark(step, &why) &&
        virCheckpointMirrorFixConfig(step, mirror->overlayPath, mirror->destPath,
                                     mirror->job->destFormat, &why) &&
        virCheckpointFaultPoint("mirror/before-pivot", &why)) {
        mirror->innerRan = TRUE;
        virCheckpointMirrorExpectEnd(mirror);
        if (virDomainBlockJobAbort(step->view->domain, mirror->target,
                                   VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) < 0) {
            virCheckpointDomainSetError(&why);
            virCheckpointMirrorPivotRefused(step, why);
        }
    }
    if (!virCheckpointFaultPoint("mirror/after-pivot", error) ||
        !virCheckpointMirrorLook(step, &where, error) ||
        !virCheckpointMirrorInnerQuery(mirror, step->view->domain, &inner, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (where.dest)
        return virCheckpointMirrorPivotDone(step, error);
    if (!why)
        g_set_error(&why, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "disk '%s' did not move to '%s'", mirror->target, mirror->destPath);
    return virCheckpointMirrorPivotUndone(step, &inner, g_steal_pointer(&why), error);
}
