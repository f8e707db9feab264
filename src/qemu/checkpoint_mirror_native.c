/*
 * checkpoint_mirror_native.c: copies by QEMU's own bitmap mirror
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: where QEMU's mirror takes a bitmap it does in one job what else takes an
 * overlay, a bulk pass and a copy of the overlay: it copies what the work bitmap says
 * from the disk that the guest writes to, mirrors its writes, is READY, and ends with
 * the target equal to the source.  The guest stays on its image all the time.
 *
 * Finish.  When it is ready the checkpoint is made, then the job is cancelled softly:
 * it drains and succeeds.  The target is the disk as of that moment.
 *
 * Pivot.  QEMU could move the guest, but libvirt would not know where it is, and the
 * one active bitmap would stay behind.  So the job is ended when it is ready, and the
 * ordinary way is taken from there: an overlay, a bulk pass of what was written since
 * (the work bitmap has recorded it), libvirt's copy of the overlay, libvirt's pivot.
 *
 * What QEMU or the dialect does not take goes the ordinary way from the start: that is
 * found out when the job is begun, before the call is answered.  How a job of QEMU's
 * ended is known until it is dismissed, also to another daemon.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_native.h"

static gboolean
virCheckpointMirrorKnownDialect(virCheckpointEngine *engine,
                                const gchar *of,
                                virCheckpointNativeDialect *dialect)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    gpointer found;

    if (!g_hash_table_lookup_extended(engine->dialects, of, NULL, &found))
        return FALSE;
    *dialect = GPOINTER_TO_INT(found);
    return TRUE;
}

/* What is known of the QEMU of a domain, or of another one that is the same. */
static gboolean
virCheckpointMirrorDialect(virCheckpointEngine *engine,
                           const virCheckpointDomainView *view,
                           virCheckpointNativeDialect *dialect,
                           GError **error)
{
    g_autofree gchar *which = NULL;

    if (virCheckpointMirrorKnownDialect(engine, view->uuid, dialect))
        return TRUE;
    which = virCheckpointNativeIdentity(view->monitor, view->xml);
    if (!which || !virCheckpointMirrorKnownDialect(engine, which, dialect)) {
        if (!virCheckpointNativeQuery(view->monitor, dialect, error))
            return FALSE;
        if (which)
            virCheckpointMirrorSetDialect(engine, which, *dialect);
    }
    virCheckpointMirrorSetDialect(engine, view->uuid, *dialect);
    return TRUE;
}

void
virCheckpointMirrorSetDialect(virCheckpointEngine *engine,
                              const gchar *of,
                              gint dialect)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);

    if (dialect < 0)
        g_hash_table_remove(engine->dialects, of);
    else
        g_hash_table_insert(engine->dialects, g_strdup(of), GINT_TO_POINTER(dialect));
}

/* Without a base there is no bitmap; a granularity is one of libvirt's copy; a compare
 * needs a source that stands still. */
gboolean
virCheckpointMirrorPlanNative(virCheckpointOperation *operation,
                              virCheckpointJobRecord *job,
                              GError **error)
{
    virCheckpointNativeDialect dialect = VIR_CHECKPOINT_NATIVE_NONE;

    if (job->full || job->destCreated || job->aside || job->verify ||
        job->granularity || !operation->view->running)
        return TRUE;
    if (!virCheckpointMirrorDialect(operation->engine, operation->view, &dialect,
                                    error))
        return FALSE;
    job->native = dialect != VIR_CHECKPOINT_NATIVE_NONE;
    return TRUE;
}

/* The ordinary way, as if there had never been another. */
static virCheckpointMirrorResult
virCheckpointMirrorNativeGiveUp(const virCheckpointMirrorStep *step,
                                const gchar *why,
                                GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    g_info("domain '%s', disk '%s': no bitmap mirror of QEMU's: %s", step->view->name,
           mirror->target, why);
    if (!virCheckpointMirrorDetach(step, error) ||
        !virCheckpointMirrorDeleteWork(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    mirror->job->native = FALSE;
    return virCheckpointMirrorPrepareOverlay(step, error) ? VIR_CHECKPOINT_MIRROR_MOVED
                                                          : VIR_CHECKPOINT_MIRROR_RETRY;
}

static virCheckpointMirrorResult
virCheckpointMirrorNativeRun(const virCheckpointMirrorStep *step,
                             const virCheckpointNativePlan *plan,
                             GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *why = NULL;

    switch (virCheckpointNativeStart(plan, step->view->monitor, &why, error)) {
    case VIR_CHECKPOINT_NATIVE_STARTED:
        break;
    case VIR_CHECKPOINT_NATIVE_REFUSED:
        virCheckpointMirrorSetDialect(mirror->engine, mirror->uuid,
                                      VIR_CHECKPOINT_NATIVE_NONE);
        return virCheckpointMirrorNativeGiveUp(step, why, error);
    case VIR_CHECKPOINT_NATIVE_UNFIT:
        return virCheckpointMirrorNativeGiveUp(step, why, error);
    case VIR_CHECKPOINT_NATIVE_FAILED:
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    g_info("domain '%s', disk '%s': copying by QEMU's own bitmap mirror (%s)",
           step->view->name, mirror->target,
           virCheckpointNativeDialectToString(plan->dialect));
    mirror->begun = TRUE;
    virCheckpointMirrorSetBulkBytes(mirror, mirror->job->workBytes);
    virCheckpointMirrorSetProgress(mirror, 0, mirror->job->workBytes);
    return virCheckpointFaultPoint("mirror/native-begun", error)
               ? VIR_CHECKPOINT_MIRROR_WAIT
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

static virCheckpointMirrorResult
virCheckpointMirrorNativeBegin(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(mirror);
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_autofree gchar *target = virCheckpointMirrorNodeName(mirror, "t");
    g_autofree gchar *filter = virCheckpointMirrorNodeName(mirror, "m");
    g_auto(virCheckpointMirrorWhere) where = {0};
    g_autofree gchar *source = NULL;
    g_autoptr(GError) failed = NULL;
    gboolean refused = FALSE;
    virCheckpointNativePlan plan = {
        .job = name,
        .target = target,
        .filter = filter,
        .bitmap = bitmap,
        .bufSize = job->bufSize,
        .synchronous = (job->flags & VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES) != 0,
    };

    if (!virCheckpointMirrorDialect(mirror->engine, step->view, &plan.dialect, error) ||
        !virCheckpointMirrorLook(step, &where, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (where.top != where.source || plan.dialect == VIR_CHECKPOINT_NATIVE_NONE) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "disk '%s' is on '%s' and not on '%s'", mirror->target,
                    where.top->file, mirror->sourcePath);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    source = g_strdup(where.source->name);
    if (!virCheckpointMirrorMakeWork(step, &where.graph, source, bitmap, error) ||
        !virCheckpointMirrorSave(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!virCheckpointMirrorAttach(step, &refused, &failed) && refused)
        return virCheckpointMirrorNativeGiveUp(step, failed->message, error);
    if (failed || !virCheckpointFaultPoint("mirror/before-native", &failed)) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    plan.source = source;
    plan.speedBytes = mirror->bandwidthBytes;
    return virCheckpointMirrorNativeRun(step, &plan, error);
}

/* The soft cancel: the job drains and succeeds.  Asking again does no harm. */
static gboolean
virCheckpointMirrorNativeStop(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);

    if (mirror->stopSent)
        return TRUE;
    if (!virCheckpointFaultPoint("mirror/before-native-stop", error))
        return FALSE;
    if (!virCheckpointMonitorDo(step->view->monitor, "block-job-cancel",
                                virCheckpointJsonBuild("s:device", name, NULL), error))
        return FALSE;
    mirror->stopSent = TRUE;
    return virCheckpointFaultPoint("mirror/after-native-stop", error);
}

/* The checkpoint, which is made before the target stops following the disk.  One that
 * a daemon made which could not record it is older than needed: it is made anew. */
static gboolean
virCheckpointMirrorNativeMark(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    if (!mirror->job->checkpoint || mirror->job->checkpointId)
        return TRUE;
    if (mirror->recovered && !virCheckpointMirrorTakeCheckpointBack(step, error))
        return FALSE;
    return virCheckpointMirrorMakeCheckpoint(step, error);
}

static virCheckpointMirrorResult
virCheckpointMirrorNativeReady(const virCheckpointMirrorStep *step,
                               virCheckpointMirrorWish wish,
                               GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) refused = NULL;

    if (!mirror->finish)
        virCheckpointMirrorSetReady(mirror);
    if (mirror->finish || wish == VIR_CHECKPOINT_MIRROR_WISH_CANCEL)
        return virCheckpointMirrorNativeMark(step, error) &&
                       virCheckpointMirrorNativeStop(step, error)
                   ? VIR_CHECKPOINT_MIRROR_WAIT
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    if (wish != VIR_CHECKPOINT_MIRROR_WISH_PIVOT)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (!virCheckpointMirrorMayPivot(step, &refused)) {
        virCheckpointMirrorPivotFailed(mirror, g_steal_pointer(&refused));
        return VIR_CHECKPOINT_MIRROR_WAIT;
    }
    /* From here on it is this daemon that takes the steps. */
    mirror->recovered = FALSE;
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_OVERLAYING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

static virCheckpointMirrorResult
virCheckpointMirrorNativeEnded(const virCheckpointMirrorStep *step,
                               const virCheckpointMirrorBulk *bulk,
                               virCheckpointMirrorWish wish,
                               GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;

    if (bulk->error)
        virCheckpointMirrorResumeKeep(step);
    if (bulk->error && wish == VIR_CHECKPOINT_MIRROR_WISH_CANCEL) {
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_CANCELED, NULL);
    } else if (bulk->error || (job->checkpoint && !job->checkpointId)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "copy of disk '%s' to '%s': %s", mirror->target, mirror->destPath,
                    bulk->error ? bulk->error : "ended by someone else");
        return VIR_CHECKPOINT_MIRROR_RETRY;
    } else {
        if (!virCheckpointMirrorDetach(step, error))
            return VIR_CHECKPOINT_MIRROR_RETRY;
        virCheckpointMirrorDecide(mirror, VIR_CHECKPOINT_JOB_COMPLETED, NULL);
    }
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_CLEANING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

virCheckpointMirrorResult
virCheckpointMirrorNative(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointMirrorWish wish = virCheckpointMirrorGetWish(mirror);
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_auto(virCheckpointMirrorBulk) bulk = {0};

    if (!mirror->begun && !mirror->recovered)
        return virCheckpointMirrorNativeBegin(step, error);
    if (!virCheckpointMirrorBulkQuery(step->view->monitor, name, &bulk, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!bulk.present) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "the copy of disk '%s' was interrupted", mirror->target);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    mirror->begun = TRUE;
    virCheckpointMirrorSetStarted(mirror);
    if (bulk.concluded)
        return virCheckpointMirrorNativeEnded(step, &bulk, wish, error);
    if (wish == VIR_CHECKPOINT_MIRROR_WISH_CANCEL && (!bulk.ready || mirror->finish))
        return virCheckpointMirrorBulkCancel(step, name, error);
    if (bulk.ready)
        return virCheckpointMirrorNativeReady(step, wish, error);
    return VIR_CHECKPOINT_MIRROR_WAIT;
}

virCheckpointMirrorResult
virCheckpointMirrorNativeLeave(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_auto(virCheckpointMirrorBulk) bulk = {0};

    if (!virCheckpointMirrorBulkQuery(step->view->monitor, name, &bulk, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (bulk.present && !bulk.concluded)
        return virCheckpointMirrorNativeStop(step, error) ? VIR_CHECKPOINT_MIRROR_WAIT
                                                          : VIR_CHECKPOINT_MIRROR_RETRY;
    if (!bulk.present || bulk.error) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "copy of disk '%s' to '%s': %s", mirror->target, mirror->destPath,
                    bulk.error ? bulk.error : "ended by someone else");
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (!virCheckpointMonitorDo(step->view->monitor, "job-dismiss",
                                virCheckpointJsonBuild("s:id", name, NULL), error) ||
        !virCheckpointFaultPoint("mirror/native-left", error) ||
        !virCheckpointMirrorMakeOverlay(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    mirror->begun = FALSE;
    return VIR_CHECKPOINT_MIRROR_MOVED;
}

gboolean
virCheckpointMirrorNativeWork(const virCheckpointMirrorStep *step,
                              const virCheckpointMirrorWhere *where,
                              GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorBitmapName(step->mirror);
    const virCheckpointBitmapInfo *work = virCheckpointNodeBitmap(where->source, name);

    if (work && !work->busy && !work->inconsistent && work->recording)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "what disk '%s' was written since the copy is not known",
                step->mirror->target);
    return FALSE;
}
