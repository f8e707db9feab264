/*
 * checkpoint_mirror_steps.c: one function per state
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a job is the state in its record.  A step belongs to one state; it looks
 * where things are, does what leads out of the state, and records the next state
 * before that one's side effects.  So a step can be taken by another daemon than the
 * one that recorded the state, and docs/internals/mirror.md says for each what it then
 * finds.
 *
 * Up to the decision (outcome) an error fails the job: it turns to COMMITTING, which
 * brings the guest back on its source.  From the decision on there is no failure any
 * more: steps are repeated until they succeed.  A connection that broke is neither:
 * the step is taken again when libvirt is back.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline_guard.h"

gboolean
virCheckpointMirrorRunning(const virCheckpointMirrorStep *step)
{
    return step->view && step->view->running && !virCheckpointMirrorIsDetached(step);
}

/* What readers see follows what is recorded. */
static void
virCheckpointMirrorPublish(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    mirror->state = mirror->job->state;
    mirror->outcome = mirror->job->outcome;
    g_cond_broadcast(&mirror->changed);
}

gboolean
virCheckpointMirrorSave(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    g_mutex_lock(&mirror->lock);
    mirror->job->bandwidthBytes = mirror->bandwidthBytes;
    g_mutex_unlock(&mirror->lock);
    if (!virCheckpointStoreSaveJob(step->store, mirror->job, error))
        return FALSE;
    mirror->recorded = TRUE;
    virCheckpointMirrorPublish(mirror);
    return TRUE;
}

gboolean
virCheckpointMirrorMove(const virCheckpointMirrorStep *step,
                        virCheckpointJobState state,
                        GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobState from = mirror->job->state;

    g_assert(virCheckpointJobStateMayMove(from, state));
    mirror->job->state = state;
    if (!virCheckpointMirrorSave(step, error)) {
        mirror->job->state = from;
        return FALSE;
    }
    g_debug("domain=%s disk=%s job=%s state=%s->%s", mirror->uuid, mirror->target,
            mirror->job->id, virCheckpointJobStateToString(from),
            virCheckpointJobStateToString(state));
    return TRUE;
}

void
virCheckpointMirrorDecide(virCheckpointMirror *mirror,
                          virCheckpointJobOutcome outcome,
                          const GError *why)
{
    virCheckpointJobRecord *job = mirror->job;

    if (job->outcome != VIR_CHECKPOINT_JOB_UNDECIDED)
        return;
    job->outcome = outcome;
    if (!why)
        return;
    g_free(job->error);
    job->error = virCheckpointErrorMessage(why);
    job->errorCode = virCheckpointErrorCode(why);
    g_mutex_lock(&mirror->lock);
    if (!mirror->failure)
        mirror->failure = g_error_copy(why);
    g_mutex_unlock(&mirror->lock);
}

/* The state in which the way back begins. */
static virCheckpointJobState
virCheckpointMirrorWayBack(virCheckpointJobState state)
{
    return state == VIR_CHECKPOINT_JOB_PREPARING || state == VIR_CHECKPOINT_JOB_NATIVE
               ? VIR_CHECKPOINT_JOB_CLEANING
               : VIR_CHECKPOINT_JOB_COMMITTING;
}

static virCheckpointMirrorResult
virCheckpointMirrorFail(const virCheckpointMirrorStep *step, const GError *why)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobState state = mirror->job->state;
    g_autoptr(GError) error = NULL;

    if (mirror->job->outcome == VIR_CHECKPOINT_JOB_UNDECIDED)
        g_info("domain %s, disk '%s': the mirror failed: %s", mirror->uuid,
               mirror->target, why->message);
    virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_FAILED, why);
    /* A store without room, say: nothing was done that would have to be undone. */
    if (!mirror->recorded && !mirror->recovered &&
        virCheckpointStoreRemoveJob(step->store, mirror->job->id, NULL))
        return VIR_CHECKPOINT_MIRROR_OVER;
    if (virCheckpointMirrorMove(step, virCheckpointMirrorWayBack(state), &error))
        return VIR_CHECKPOINT_MIRROR_MOVED;
    g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target, error->message);
    return VIR_CHECKPOINT_MIRROR_RETRY;
}

/* Nothing was begun or the caller got no answer: a daemon that died in here had not
 * answered the call either, so its successor undoes. */
static gboolean
virCheckpointMirrorUnanswered(const virCheckpointMirror *mirror, GError **error)
{
    if (!mirror->recovered)
        return FALSE;
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_ABORTED,
                        "the daemon ended while the block job was being started");
    return TRUE;
}

static virCheckpointMirrorResult
virCheckpointMirrorStepPreparing(const virCheckpointMirrorStep *step, GError **error)
{
    if (virCheckpointMirrorUnanswered(step->mirror, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!virCheckpointMirrorSave(step, error) ||
        !virCheckpointMirrorPrepare(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    return VIR_CHECKPOINT_MIRROR_MOVED;
}

static virCheckpointMirrorResult
virCheckpointMirrorStepOverlaying(const virCheckpointMirrorStep *step, GError **error)
{
    gboolean done;

    if (virCheckpointMirrorUnanswered(step->mirror, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (step->mirror->job->native) {
        virCheckpointMirrorResult left = virCheckpointMirrorNativeLeave(step, error);

        if (left != VIR_CHECKPOINT_MIRROR_MOVED)
            return left;
    }
    /* Without a guest nobody writes: the disk is as frozen as below an overlay. */
    if (step->mirror->offline)
        done = virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_BULK, error);
    else
        done = virCheckpointMirrorOverlay(step, error);
    return done ? VIR_CHECKPOINT_MIRROR_MOVED : VIR_CHECKPOINT_MIRROR_RETRY;
}

gboolean
virCheckpointMirrorComparing(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    return mirror->verify && virCheckpointMirrorVerifyRunning(mirror->verify);
}

static void
virCheckpointMirrorSetVerify(virCheckpointMirror *mirror,
                             virCheckpointMirrorVerify *verify)
{
    virCheckpointMirrorVerify *before;

    g_mutex_lock(&mirror->lock);
    before = mirror->verify;
    mirror->verify = verify;
    g_mutex_unlock(&mirror->lock);
    virCheckpointMirrorVerifyFree(before);
}

/* MOVED: they are equal. */
static virCheckpointMirrorResult
virCheckpointMirrorCompare(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointMirrorVerify *verify;
    gboolean equal;

    if (!mirror->verify) {
        verify = virCheckpointMirrorVerifyStart(mirror->job, error);
        virCheckpointMirrorSetVerify(mirror, verify);
        return verify ? VIR_CHECKPOINT_MIRROR_WAIT : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (virCheckpointMirrorComparing(mirror))
        return VIR_CHECKPOINT_MIRROR_WAIT;
    equal = virCheckpointMirrorVerifyResult(mirror->verify, mirror->job, error);
    virCheckpointMirrorSetVerify(mirror, NULL);
    return equal && virCheckpointFaultPoint("verify/after", error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

/* MOVED: the target is on stable storage and, where that was asked for, compared. */
static virCheckpointMirrorResult
virCheckpointMirrorWritten(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirrorResult flushed = VIR_CHECKPOINT_MIRROR_MOVED;

    if (step->mirror->job->aside)
        flushed = virCheckpointMirrorAsideFlush(step, error);
    else if (!virCheckpointMirrorDetach(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (flushed != VIR_CHECKPOINT_MIRROR_MOVED || !step->mirror->job->verify)
        return flushed;
    return virCheckpointMirrorCompare(step, error);
}

/* The bulk job has ended: what it wrote must be in the file before success is decided.
 */
static virCheckpointMirrorResult
virCheckpointMirrorBulkEnded(const virCheckpointMirrorStep *step,
                             const virCheckpointMirrorBulk *bulk,
                             GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobState next = VIR_CHECKPOINT_JOB_COMMITTING;
    gboolean canceled =
        virCheckpointMirrorGetWish(mirror) == VIR_CHECKPOINT_MIRROR_WISH_CANCEL;

    if ((canceled || bulk->error) && !mirror->job->aside)
        virCheckpointMirrorResumeKeep(step);
    if (canceled) {
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_CANCELED, NULL);
    } else if (bulk->error) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "copy of disk '%s' to '%s': %s", mirror->target, mirror->destPath,
                    bulk->error);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    } else {
        virCheckpointMirrorResult written = virCheckpointMirrorWritten(step, error);

        if (written != VIR_CHECKPOINT_MIRROR_MOVED)
            return written;
        if (mirror->finish)
            virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
        else
            next = VIR_CHECKPOINT_JOB_MIRRORING;
    }
    return virCheckpointMirrorMove(step, next, error) ? VIR_CHECKPOINT_MIRROR_MOVED
                                                      : VIR_CHECKPOINT_MIRROR_RETRY;
}

virCheckpointMirrorResult
virCheckpointMirrorBulkCancel(const virCheckpointMirrorStep *step,
                              const gchar *name,
                              GError **error)
{
    g_auto(virCheckpointMirrorBulk) bulk = {0};
    g_autoptr(virCheckpointJson) reply = NULL;
    g_autoptr(GError) failed = NULL;

    /* A server that does not answer holds the job, but not its daemon's end. */
    if (step->mirror->job->aside) {
        virCheckpointMirrorDecide(step->mirror, VIR_CHECKPOINT_JOB_CANCELED, NULL);
        return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING, error)
                   ? VIR_CHECKPOINT_MIRROR_MOVED
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (step->mirror->cancelSent)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    reply =
        virCheckpointMonitorRun(step->view->monitor, "job-cancel",
                                virCheckpointJsonBuild("s:id", name, NULL), &failed);
    step->mirror->cancelSent = reply != NULL;
    if (reply)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    /* It may have ended just before. */
    if (virCheckpointMirrorBulkQuery(step->view->monitor, name, &bulk, NULL) &&
        bulk.concluded)
        return virCheckpointMirrorBulkEnded(step, &bulk, error);
    g_propagate_error(error, g_steal_pointer(&failed));
    return VIR_CHECKPOINT_MIRROR_RETRY;
}

void
virCheckpointMirrorSetStarted(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    mirror->started = TRUE;
    g_cond_broadcast(&mirror->changed);
}

static virCheckpointMirrorResult
virCheckpointMirrorStepBulk(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_auto(virCheckpointMirrorBulk) bulk = {0};
    virCheckpointMonitor *monitor;

    if (virCheckpointMirrorAsideMayBegin(mirror))
        return virCheckpointMirrorAsideBegin(step, error) ? VIR_CHECKPOINT_MIRROR_WAIT
                                                          : VIR_CHECKPOINT_MIRROR_RETRY;
    if (virCheckpointMirrorOffMayBegin(mirror))
        return virCheckpointMirrorOffBegin(step, error) ? VIR_CHECKPOINT_MIRROR_WAIT
                                                        : VIR_CHECKPOINT_MIRROR_RETRY;
    if (!mirror->begun && !mirror->recovered) {
        gboolean begun = mirror->offline ? virCheckpointMirrorBulkBeginOff(step, error)
                                         : virCheckpointMirrorBulkBegin(step, error);

        return begun ? VIR_CHECKPOINT_MIRROR_WAIT : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    monitor = virCheckpointMirrorBulkMonitor(step);
    if (monitor && !virCheckpointMirrorBulkQuery(monitor, name, &bulk, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!bulk.present) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "the copy of disk '%s' was interrupted", mirror->target);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    mirror->begun = TRUE;
    virCheckpointMirrorSetStarted(mirror);
    if (bulk.concluded)
        return virCheckpointMirrorBulkEnded(step, &bulk, error);
    if (virCheckpointMirrorGetWish(mirror) == VIR_CHECKPOINT_MIRROR_WISH_CANCEL)
        return virCheckpointMirrorBulkCancel(step, name, error);
    return VIR_CHECKPOINT_MIRROR_WAIT;
}

typedef virCheckpointMirrorResult (*virCheckpointMirrorStepFunc)(
    const virCheckpointMirrorStep *step, GError **error);

static const virCheckpointMirrorStepFunc virCheckpointMirrorSteps[] = {
    [VIR_CHECKPOINT_JOB_PREPARING] = virCheckpointMirrorStepPreparing,
    [VIR_CHECKPOINT_JOB_OVERLAYING] = virCheckpointMirrorStepOverlaying,
    [VIR_CHECKPOINT_JOB_BULK] = virCheckpointMirrorStepBulk,
    [VIR_CHECKPOINT_JOB_NATIVE] = virCheckpointMirrorNative,
    [VIR_CHECKPOINT_JOB_MIRRORING] = virCheckpointMirrorLive,
    [VIR_CHECKPOINT_JOB_PIVOTING] = virCheckpointMirrorPivot,
    [VIR_CHECKPOINT_JOB_COMMITTING] = virCheckpointMirrorCommit,
    [VIR_CHECKPOINT_JOB_CLEANING] = virCheckpointMirrorClean,
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointMirrorSteps) == VIR_CHECKPOINT_JOB_LAST);

/* Its definition names the target, as it does from right before the pivot on. */
static gboolean
virCheckpointMirrorNamesTarget(const virCheckpointMirrorStep *step)
{
    const virCheckpointMirror *mirror = step->mirror;

    return mirror->job->state == VIR_CHECKPOINT_JOB_PIVOTING && step->view &&
           virCheckpointMirrorIsDefinedOn(mirror, step->view, mirror->destPath);
}

/* A guest that is off has no job. */
static virCheckpointMirrorResult
virCheckpointMirrorGuestGone(const virCheckpointMirrorStep *step)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) why = NULL;
    g_autoptr(GError) error = NULL;

    if (virCheckpointMirrorNamesTarget(step) && virCheckpointMirrorOverlayLeft(step)) {
        mirror->pivoted = TRUE;
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
        if (virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_CLEANING, &error))
            return VIR_CHECKPOINT_MIRROR_MOVED;
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error->message);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (virCheckpointMirrorNamesTarget(step) &&
        (!virCheckpointMirrorFixConfig(step, mirror->destPath, mirror->overlayPath,
                                       "qcow2", &error) ||
         !virCheckpointDomainViewRefresh(step->view, &error) || step->view->running)) {
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error ? error->message : "the domain was started");
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (virCheckpointMirrorIsDetached(step))
        g_set_error(&why, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' was detached", mirror->target);
    else
        g_set_error_literal(&why, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                            "domain is not running");
    return virCheckpointMirrorFail(step, why);
}

/* TRUE if libvirt's absence may be the error: then nothing is known, nothing failed. */
static gboolean
virCheckpointMirrorLostLibvirt(const virCheckpointMirrorStep *step)
{
    return step->view &&
           virConnectIsAlive(virDomainGetConnect(step->view->domain)) != 1;
}

/* Only jobs inside outlive a connection; a step that begins one did not.  A pivot is
 * judged by where QEMU is, never by an error. */
static gboolean
virCheckpointMirrorMayRepeat(const virCheckpointMirrorStep *step)
{
    const virCheckpointMirror *mirror = step->mirror;

    switch (mirror->job->state) {
    case VIR_CHECKPOINT_JOB_BULK:
    case VIR_CHECKPOINT_JOB_NATIVE:
        return (mirror->begun || mirror->recovered) &&
               virCheckpointMirrorLostLibvirt(step);
    case VIR_CHECKPOINT_JOB_MIRRORING:
        return virCheckpointMirrorLostLibvirt(step);
    case VIR_CHECKPOINT_JOB_PIVOTING:
        return TRUE;
    case VIR_CHECKPOINT_JOB_PREPARING:
    case VIR_CHECKPOINT_JOB_OVERLAYING:
    case VIR_CHECKPOINT_JOB_COMMITTING:
    case VIR_CHECKPOINT_JOB_CLEANING:
    case VIR_CHECKPOINT_JOB_LAST:
        break;
    }
    return FALSE;
}

/*
 * One step of a copy of a guest that is off.  Its storage daemon is lent to the view;
 * it is not needed any more once the bulk pass is over.
 */
static virCheckpointMirrorResult
virCheckpointMirrorAdvanceOff(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointMonitor *lent = mirror->daemon;
    virCheckpointMirrorResult result;

    if (virCheckpointMirrorRunning(step) || !step->view) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "the domain was started, or is gone");
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (lent) {
        g_clear_pointer(&step->view->monitor, virCheckpointMonitorFree);
        step->view->monitor = lent;
    }
    result = virCheckpointMirrorSteps[mirror->job->state](step, error);
    if (lent)
        step->view->monitor = NULL;
    return result;
}

static void
virCheckpointMirrorEndDaemon(virCheckpointMirror *mirror)
{
    if (mirror->job->state == VIR_CHECKPOINT_JOB_BULK)
        return;
    g_mutex_lock(&mirror->daemonLock);
    g_clear_pointer(&mirror->daemon, virCheckpointMonitorFree);
    g_mutex_unlock(&mirror->daemonLock);
    if (mirror->offline)
        virCheckpointOfflineRelease(mirror->job->id);
    virCheckpointMirrorSetVerify(mirror, NULL);
}

virCheckpointMirrorResult
virCheckpointMirrorAdvance(virCheckpointMirror *mirror,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view)
{
    virCheckpointMirrorStep step = {mirror, store, view};
    gboolean decided = mirror->job->state == VIR_CHECKPOINT_JOB_COMMITTING ||
                       mirror->job->state == VIR_CHECKPOINT_JOB_CLEANING;
    g_autoptr(GError) error = NULL;
    virCheckpointMirrorResult result;

    if (!virCheckpointMirrorRenewConfig(&step, &error)) {
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error->message);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (!decided && mirror->offline)
        result = virCheckpointMirrorAdvanceOff(&step, &error);
    else if (!decided && !virCheckpointMirrorRunning(&step))
        return virCheckpointMirrorGuestGone(&step);
    else
        result = virCheckpointMirrorSteps[mirror->job->state](&step, &error);
    if (result == VIR_CHECKPOINT_MIRROR_RETRY && !decided &&
        !virCheckpointMirrorMayRepeat(&step))
        result = virCheckpointMirrorFail(&step, error);
    virCheckpointMirrorEndDaemon(mirror);
    /* As after any operation that fails half way: nodes whose command was not answered,
     * and a deletion that did not end, are for settling. */
    if (error)
        virCheckpointEngineSettleLater(mirror->engine, mirror->uuid);
    if (result != VIR_CHECKPOINT_MIRROR_RETRY || !error)
        return result;
    g_warning("domain %s, disk '%s': mirror job in state %s: %s", mirror->uuid,
              mirror->target, virCheckpointJobStateToString(mirror->job->state),
              error->message);
    return VIR_CHECKPOINT_MIRROR_RETRY;
}

virCheckpointMirrorResult
virCheckpointMirrorAdvanceAll(virCheckpointMirror *mirror,
                              virCheckpointStoreDomain *store,
                              virCheckpointDomainView *view)
{
    virCheckpointMirrorResult result;

    do {
        result = virCheckpointMirrorAdvance(mirror, store, view);
    } while (result == VIR_CHECKPOINT_MIRROR_MOVED);
    if (result == VIR_CHECKPOINT_MIRROR_OVER) {
        g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

        mirror->concluded = TRUE;
        mirror->kicked = TRUE;
        g_cond_broadcast(&mirror->changed);
    }
    if (mirror->begun && mirror->job->outcome == VIR_CHECKPOINT_JOB_UNDECIDED)
        virCheckpointMirrorSetStarted(mirror);
    return result;
}
