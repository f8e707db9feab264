/*
 * checkpoint_mirror.c: the job object of a mirror and what clients reach
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: one virCheckpointMirror for each disk that is being mirrored, found through
 * the engine's hash from the moment the first thing is recorded until clients were told
 * how it ended.  A thread of the pool works on it (checkpoint_mirror_watch.c): it looks
 * at the inner jobs and takes steps (checkpoint_mirror_steps.c), each inside the
 * domain's slot.
 *
 * Two kinds of data: the record, changed only under the slot and always saved before
 * what it announces; and a copy for readers (progress, state, wishes) under the job's
 * own lock.  What clients ask is answered from the copy, so it never waits for the
 * slot.  An abort or a pivot is a wish that the thread finds.
 *
 * Nothing in here survives a crash, nor needs to: the record does.
 */

#include "config.h"

#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_heal.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirrorpriv.h"

virCheckpointMirror *
virCheckpointMirrorNew(virCheckpointEngine *engine,
                       const gchar *uuid,
                       virCheckpointJobRecord *job)
{
    virCheckpointMirror *mirror = g_new0(virCheckpointMirror, 1);

    g_atomic_ref_count_init(&mirror->refs);
    g_mutex_init(&mirror->lock);
    g_mutex_init(&mirror->daemonLock);
    g_cond_init(&mirror->changed);
    mirror->engine = engine;
    mirror->uuid = g_strdup(uuid);
    mirror->target = g_strdup(job->target);
    mirror->sourcePath = g_strdup(job->sourcePath);
    mirror->overlayPath = g_strdup(job->overlayPath);
    mirror->destPath = g_strdup(job->destPath);
    mirror->finish = job->finish;
    mirror->job = job;
    mirror->targetFd = -1;
    mirror->state = job->state;
    mirror->outcome = job->outcome;
    mirror->bandwidthBytes = job->bandwidthBytes;
    mirror->bulkBytes = job->workBytes;
    mirror->endBytes = MAX(job->workBytes, 1);
    return mirror;
}

virCheckpointMirror *
virCheckpointMirrorRef(virCheckpointMirror *mirror)
{
    g_atomic_ref_count_inc(&mirror->refs);
    return mirror;
}

void
virCheckpointMirrorUnref(virCheckpointMirror *mirror)
{
    if (!mirror || !g_atomic_ref_count_dec(&mirror->refs))
        return;
    if (mirror->targetFd >= 0)
        close(mirror->targetFd);
    g_clear_error(&mirror->failure);
    g_free(mirror->copyError);
    g_clear_error(&mirror->wishError);
    virCheckpointMirrorVerifyFree(mirror->verify);
    virCheckpointMonitorFree(mirror->daemon);
    virCheckpointJobRecordFree(mirror->job);
    g_free(mirror->uuid);
    g_free(mirror->target);
    g_free(mirror->sourcePath);
    g_free(mirror->overlayPath);
    g_free(mirror->destPath);
    g_cond_clear(&mirror->changed);
    g_mutex_clear(&mirror->lock);
    g_mutex_clear(&mirror->daemonLock);
    g_free(mirror);
}

static gchar *
virCheckpointMirrorKey(const gchar *uuid, const gchar *target)
{
    return g_strdup_printf("%s/%s", uuid, target);
}

void
virCheckpointMirrorRegister(virCheckpointMirror *mirror)
{
    virCheckpointEngine *engine = mirror->engine;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);

    virCheckpointEngineHold(engine);
    g_hash_table_insert(engine->mirrors,
                        virCheckpointMirrorKey(mirror->uuid, mirror->target),
                        virCheckpointMirrorRef(mirror));
}

void
virCheckpointMirrorUnregister(virCheckpointMirror *mirror)
{
    virCheckpointEngine *engine = mirror->engine;
    g_autofree gchar *key = virCheckpointMirrorKey(mirror->uuid, mirror->target);
    gboolean found = FALSE;

    g_mutex_lock(&engine->mirrorLock);
    if (g_hash_table_lookup(engine->mirrors, key) == mirror)
        found = g_hash_table_remove(engine->mirrors, key);
    g_mutex_unlock(&engine->mirrorLock);
    if (!found)
        return;
    virCheckpointEngineRelease(engine);
    virCheckpointMirrorUnref(mirror);
}

gboolean
virCheckpointMirrorIsOn(const virCheckpointMirror *mirror, const gchar *disk)
{
    return !disk || g_strcmp0(mirror->target, disk) == 0 ||
           g_strcmp0(mirror->sourcePath, disk) == 0 ||
           g_strcmp0(mirror->overlayPath, disk) == 0 ||
           g_strcmp0(mirror->destPath, disk) == 0;
}

virCheckpointMirror *
virCheckpointMirrorFind(virCheckpointEngine *engine,
                        const gchar *uuid,
                        const gchar *disk)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, engine->mirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointMirror *mirror = value;

        if (g_str_equal(mirror->uuid, uuid) && virCheckpointMirrorIsOn(mirror, disk))
            return virCheckpointMirrorRef(mirror);
    }
    return NULL;
}

void
virCheckpointMirrorKick(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    mirror->kicked = TRUE;
    g_cond_broadcast(&mirror->changed);
}

void
virCheckpointMirrorExpectEnd(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    mirror->innerEnded = 0;
    mirror->innerReady = 0;
}

gint
virCheckpointMirrorAwaitEnd(virCheckpointMirror *mirror, guint timeoutMs)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);
    gint64 until = g_get_monotonic_time() + (gint64)timeoutMs * 1000;

    while (!mirror->innerEnded) {
        if (!g_cond_wait_until(&mirror->changed, &mirror->lock, until))
            break;
    }
    return mirror->innerEnded ? mirror->innerStatus : -1;
}

gboolean
virCheckpointMirrorIsConcluded(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    return mirror->concluded;
}

void
virCheckpointMirrorAwaitGone(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    while (!mirror->over && !virCheckpointMirrorInterrupted(mirror))
        g_cond_wait(&mirror->changed, &mirror->lock);
}

virCheckpointMirrorWish
virCheckpointMirrorGetWish(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    return mirror->wish;
}

void
virCheckpointMirrorPivotFailed(virCheckpointMirror *mirror, GError *error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    g_clear_error(&mirror->wishError);
    mirror->wishError = error;
    mirror->wish = VIR_CHECKPOINT_MIRROR_WISH_NONE;
    mirror->wishSeen = VIR_CHECKPOINT_MIRROR_WISH_NONE;
    mirror->pivotsFailed++;
    g_cond_broadcast(&mirror->changed);
}

void
virCheckpointMirrorSetReady(virCheckpointMirror *mirror)
{
    g_mutex_lock(&mirror->lock);
    if (mirror->ready) {
        g_mutex_unlock(&mirror->lock);
        return;
    }
    mirror->ready = TRUE;
    g_cond_broadcast(&mirror->changed);
    g_mutex_unlock(&mirror->lock);
    virCheckpointEngineEmitBlockJob(mirror->engine, mirror->uuid, mirror->target,
                                    mirror->sourcePath, VIR_DOMAIN_BLOCK_JOB_TYPE_COPY,
                                    VIR_DOMAIN_BLOCK_JOB_READY);
}

guint64
virCheckpointMirrorBulkBytes(virCheckpointMirror *mirror)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    return mirror->bulkBytes;
}

void
virCheckpointMirrorSetBulkBytes(virCheckpointMirror *mirror, guint64 bulkBytes)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    mirror->bulkBytes = bulkBytes;
}

void
virCheckpointMirrorSetProgress(virCheckpointMirror *mirror,
                               guint64 curBytes,
                               guint64 endBytes)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    virCheckpointMirrorProgress(mirror->curBytes, mirror->endBytes, &curBytes,
                                &endBytes);
    mirror->curBytes = curBytes;
    mirror->endBytes = endBytes;
}

gboolean
virCheckpointMirrorInit(virCheckpointEngine *engine, GError **error)
{
    virCheckpointMirrorLoad(engine);
    return TRUE;
}

static void
virCheckpointMirrorKickAll(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, engine->mirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointMirror *mirror = value;

        if (!uuid || g_str_equal(mirror->uuid, uuid))
            virCheckpointMirrorKick(mirror);
    }
}

void
virCheckpointMirrorStop(virCheckpointEngine *engine)
{
    virCheckpointMirrorKickAll(engine, NULL);
}

void
virCheckpointMirrorFini(virCheckpointEngine *engine)
{
    GHashTableIter iter;
    gpointer value;

    g_clear_pointer(&engine->failedMirrors, g_hash_table_unref);
    g_hash_table_iter_init(&iter, engine->mirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointEngineRelease(engine);
        virCheckpointMirrorUnref(value);
        g_hash_table_iter_remove(&iter);
    }
}

void
virCheckpointMirrorDeviceEvent(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, engine->mirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointMirror *mirror = value;

        if (!g_str_equal(mirror->uuid, uuid))
            continue;
        g_mutex_lock(&mirror->lock);
        mirror->deviceWent = TRUE;
        g_mutex_unlock(&mirror->lock);
        virCheckpointMirrorKick(mirror);
    }
}

void
virCheckpointMirrorDomainEvent(virCheckpointEngine *engine,
                               const gchar *uuid,
                               gint event,
                               gint detail)
{
    if (event == VIR_DOMAIN_EVENT_STARTED || event == VIR_DOMAIN_EVENT_STOPPED ||
        event == VIR_DOMAIN_EVENT_CRASHED)
        virCheckpointMirrorSetDialect(engine, uuid, -1);
    virCheckpointMirrorKickAll(engine, uuid);
}

void
virCheckpointMirrorEventsMissed(virCheckpointEngine *engine)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);

    g_hash_table_remove_all(engine->dialects);
}

static void
virCheckpointMirrorCopyFailed(virCheckpointMirror *mirror, const gchar *why)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);

    g_free(mirror->copyError);
    mirror->copyError = g_strdup(why);
}

/* Libvirt calls its copy jobs "copy-TARGET-NODE". */
void
virCheckpointMirrorQemuJobEvent(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const gchar *details)
{
    g_autoptr(virCheckpointJson) data = virCheckpointJsonParse(details, -1, NULL);
    const gchar *why = data ? virCheckpointJsonGetString(data, "error") : NULL;
    const gchar *job = data ? virCheckpointJsonGetString(data, "device") : NULL;
    g_autoptr(GMutexLocker) locker = NULL;
    GHashTableIter iter;
    gpointer value;

    if (!why || !job)
        return;
    locker = g_mutex_locker_new(&engine->mirrorLock);
    g_hash_table_iter_init(&iter, engine->mirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointMirror *mirror = value;
        g_autofree gchar *copy = g_strdup_printf("copy-%s-", mirror->target);

        if (g_str_equal(mirror->uuid, uuid) && g_str_has_prefix(job, copy))
            virCheckpointMirrorCopyFailed(mirror, why);
    }
}

void
virCheckpointMirrorBlockJobEvent(virCheckpointEngine *engine,
                                 const gchar *uuid,
                                 const gchar *disk,
                                 gint type,
                                 gint status)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, disk);
    g_autoptr(GMutexLocker) locker = NULL;

    if (!mirror)
        return;
    locker = g_mutex_locker_new(&mirror->lock);
    if (status == VIR_DOMAIN_BLOCK_JOB_READY) {
        mirror->innerReady = type;
    } else {
        mirror->innerEnded = type;
        mirror->innerStatus = status;
    }
    mirror->kicked = TRUE;
    g_cond_broadcast(&mirror->changed);
}

gboolean
virCheckpointEngineMirrorStart(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointMirrorRequest *request,
                               GError **error)
{
    g_autoptr(virCheckpointMirror) mirror = NULL;
    virCheckpointMirrorResult result;

    {
        g_autoptr(virCheckpointOperation) operation = NULL;
        VIR_CHECKPOINT_AUTOFD int targetFd = -1;
        virCheckpointJobRecord *job;

        operation = virCheckpointOperationBegin(engine, uuid, 0, error);
        if (!operation)
            return FALSE;
        job = virCheckpointMirrorValidate(operation, request, &targetFd, error);
        if (!job)
            return FALSE;
        mirror = virCheckpointMirrorNew(engine, uuid, job);
        mirror->targetFd = virCheckpointFdSteal(&targetFd);
        mirror->offline = !operation->view->running;
        virCheckpointMirrorForgetFailed(mirror);
        virCheckpointMirrorRegister(mirror);
        result =
            virCheckpointMirrorAdvanceAll(mirror, operation->store, operation->view);
    }
    if (result == VIR_CHECKPOINT_MIRROR_OVER)
        virCheckpointMirrorConclude(mirror);
    else
        virCheckpointMirrorWork(mirror, TRUE);
    if (mirror->failure) {
        g_propagate_error(error, g_error_copy(mirror->failure));
        return FALSE;
    }
    if (!mirror->started) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_ABORTED,
                            "the block job ended before it began to copy");
        return FALSE;
    }
    virCheckpointMirrorSpawn(mirror);
    return TRUE;
}

void
virCheckpointEngineInterrupt(virCheckpointEngine *engine)
{
    g_atomic_int_set(&engine->interrupted, 1);
    virCheckpointMirrorKickAll(engine, NULL);
    virCheckpointHealInterrupt();
}

gboolean
virCheckpointMirrorInterrupted(const virCheckpointMirror *mirror)
{
    return g_atomic_int_get(&mirror->engine->interrupted) != 0 ||
           virCheckpointEngineStopping(mirror->engine);
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorInfo(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              virDomainBlockJobInfo *info,
                              GError **error)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, disk);
    g_autoptr(GMutexLocker) locker = NULL;

    if (!mirror)
        return VIR_CHECKPOINT_MIRROR_NONE;
    locker = g_mutex_locker_new(&mirror->lock);
    memset(info, 0, sizeof(*info));
    info->type = VIR_DOMAIN_BLOCK_JOB_TYPE_COPY;
    info->bandwidth = mirror->bandwidthBytes;
    info->cur = mirror->ready ? mirror->endBytes : mirror->curBytes;
    info->end = mirror->endBytes;
    return VIR_CHECKPOINT_MIRROR_OURS;
}

/* What cannot be asked of the job as it is; called with its lock held. */
static gboolean
virCheckpointMirrorMayAbort(virCheckpointMirror *mirror, guint flags, GError **error)
{
    if (mirror->wish != VIR_CHECKPOINT_MIRROR_WISH_NONE) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "block job on disk '%s' is still being ended", mirror->target);
        return FALSE;
    }
    if (!(flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT))
        return TRUE;
    if (mirror->finish) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "block job on disk '%s' was started with parameter 'finish' and"
                    " cannot pivot",
                    mirror->target);
        return FALSE;
    }
    if (mirror->ready && (mirror->state == VIR_CHECKPOINT_JOB_MIRRORING ||
                          mirror->state == VIR_CHECKPOINT_JOB_NATIVE))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_BLOCK_COPY_ACTIVE,
                "disk '%s' not ready for pivot yet", mirror->target);
    return FALSE;
}

/* Until the job is over, or the pivot failed; called with its lock held.  A pivot that
 * ended with the guest elsewhere is an error, as it is of libvirt's jobs. */
static gboolean
virCheckpointMirrorAwaitOver(virCheckpointMirror *mirror,
                             gboolean pivot,
                             guint failed,
                             GError **error)
{
    while (!mirror->over && mirror->pivotsFailed == failed &&
           !virCheckpointMirrorInterrupted(mirror))
        g_cond_wait(&mirror->changed, &mirror->lock);
    if (mirror->pivotsFailed != failed) {
        g_propagate_error(error, g_error_copy(mirror->wishError));
        return FALSE;
    }
    if (mirror->over && pivot && mirror->outcome == VIR_CHECKPOINT_JOB_FAILED) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "block job of disk '%s' failed while pivoting%s%s", mirror->target,
                    mirror->failure ? ": " : "",
                    mirror->failure ? mirror->failure->message : "");
        return FALSE;
    }
    if (mirror->over)
        return TRUE;
    g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_ABORTED,
                        "the daemon is being stopped; it ends the block job when it is"
                        " back");
    return FALSE;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorAbort(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               guint flags,
                               GError **error)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, disk);
    g_autoptr(GMutexLocker) locker = NULL;
    gboolean pivot = (flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) != 0;
    guint failed;

    if (!mirror)
        return VIR_CHECKPOINT_MIRROR_NONE;
    locker = g_mutex_locker_new(&mirror->lock);
    if (!virCheckpointMirrorMayAbort(mirror, flags, error))
        return VIR_CHECKPOINT_MIRROR_ERROR;
    failed = mirror->pivotsFailed;
    mirror->wish =
        pivot ? VIR_CHECKPOINT_MIRROR_WISH_PIVOT : VIR_CHECKPOINT_MIRROR_WISH_CANCEL;
    mirror->kicked = TRUE;
    g_cond_broadcast(&mirror->changed);
    if (!(flags & VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC) &&
        !virCheckpointMirrorAwaitOver(mirror, pivot, failed, error))
        return VIR_CHECKPOINT_MIRROR_ERROR;
    return VIR_CHECKPOINT_MIRROR_OURS;
}

/* Tells the job that copies now; the others take the speed with them when they begin.
 */
static gboolean
virCheckpointMirrorApplySpeedOn(virCheckpointMirror *mirror,
                                virConnectPtr conn,
                                virCheckpointJobState state,
                                guint64 bandwidthBytes,
                                GError **error)
{
    g_autoptr(virDomain) domain = NULL;
    g_autoptr(virCheckpointMonitor) monitor = NULL;

    if (!(domain = virDomainLookupByUUIDString(conn, mirror->uuid)))
        return virCheckpointDomainSetError(error);
    if (state == VIR_CHECKPOINT_JOB_MIRRORING) {
        if (virDomainBlockJobSetSpeed(domain, mirror->target, bandwidthBytes,
                                      VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES) < 0)
            return virCheckpointDomainSetError(error);
        return TRUE;
    }
    if (!(monitor = virCheckpointMonitorNewDomain(domain, error)))
        return FALSE;
    return virCheckpointMirrorBulkSetSpeed(mirror, monitor, bandwidthBytes, error);
}

/* The job in a storage daemon, if there is one. */
static gboolean
virCheckpointMirrorApplySpeedOff(virCheckpointMirror *mirror,
                                 gboolean *found,
                                 guint64 bandwidthBytes,
                                 GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->daemonLock);
    g_autoptr(virCheckpointMonitor) ours = NULL;

    *found = mirror->daemon != NULL;
    if (!mirror->daemon)
        return TRUE;
    /* The mirror's thread may be in the middle of a step with it. */
    ours = virCheckpointMonitorBorrow(mirror->daemon);
    return virCheckpointMirrorBulkSetSpeed(mirror, ours, bandwidthBytes, error);
}

static gboolean
virCheckpointMirrorApplySpeed(virCheckpointMirror *mirror,
                              virCheckpointJobState state,
                              guint64 bandwidthBytes,
                              GError **error)
{
    virConnectPtr conn;
    gboolean found;
    gboolean ok;

    ok = virCheckpointMirrorApplySpeedOff(mirror, &found, bandwidthBytes, error);
    if (found || mirror->offline)
        return ok;
    conn = virCheckpointEngineConnect(mirror->engine, error);
    if (!conn)
        return FALSE;
    ok = virCheckpointMirrorApplySpeedOn(mirror, conn, state, bandwidthBytes, error);
    virCheckpointEngineDisconnect(mirror->engine, conn);
    return ok;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorSetSpeed(virCheckpointEngine *engine,
                                  const gchar *uuid,
                                  const gchar *disk,
                                  guint64 bandwidthBytes,
                                  GError **error)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, disk);
    g_autoptr(GError) failed = NULL;
    virCheckpointJobState state;

    if (!mirror)
        return VIR_CHECKPOINT_MIRROR_NONE;
    if (bandwidthBytes > G_MAXINT64) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OVERFLOW,
                    "bandwidth must be less than %" G_GINT64_FORMAT " bytes/s",
                    G_MAXINT64);
        return VIR_CHECKPOINT_MIRROR_ERROR;
    }
    g_mutex_lock(&mirror->lock);
    mirror->bandwidthBytes = bandwidthBytes;
    state = mirror->state;
    g_mutex_unlock(&mirror->lock);
    if (state != VIR_CHECKPOINT_JOB_BULK && state != VIR_CHECKPOINT_JOB_NATIVE &&
        state != VIR_CHECKPOINT_JOB_MIRRORING)
        return VIR_CHECKPOINT_MIRROR_OURS;
    /* A job that has just ended is no error: the next one takes the speed over. */
    if (!virCheckpointMirrorApplySpeed(mirror, state, bandwidthBytes, &failed))
        g_info("speed of the mirror of disk '%s' of domain %s: %s", mirror->target,
               uuid, failed->message);
    return VIR_CHECKPOINT_MIRROR_OURS;
}

gboolean
virCheckpointEngineHidesJob(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const gchar *disk)
{
    return virCheckpointEngineHasMirror(engine, uuid, disk);
}

gboolean
virCheckpointEngineHasMirror(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, disk);

    return mirror != NULL;
}

gboolean
virCheckpointEngineHasBegun(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const virCheckpointJobRecord *job)
{
    g_autoptr(virCheckpointMirror) mirror =
        virCheckpointMirrorFind(engine, uuid, job->target);
    gboolean begun;

    if (!mirror || !g_str_equal(mirror->job->id, job->id))
        return FALSE;
    g_mutex_lock(&mirror->lock);
    begun = !mirror->recovered || (mirror->offline && mirror->started);
    g_mutex_unlock(&mirror->lock);
    return begun;
}

gboolean
virCheckpointEngineMayStart(virCheckpointEngine *engine,
                            const gchar *uuid,
                            GError **error)
{
    g_autoptr(virCheckpointMirror) mirror = virCheckpointMirrorFind(engine, uuid, NULL);

    if (!mirror || !mirror->offline)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                "disk '%s' of the domain is being copied while it is shut off: wait, or"
                " abort the block job",
                mirror->target);
    return FALSE;
}
