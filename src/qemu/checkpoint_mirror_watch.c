/*
 * checkpoint_mirror_watch.c: the thread of a job
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: between steps a job only waits for an inner job to get on.  That is looked
 * at without the domain's slot, so that checkpoints can be made meanwhile; as soon as
 * there is something to do the slot is taken and the step looks again.
 *
 * Pauses between two looks grow with the time that nothing happened; an event of
 * libvirt's, a wish of a client or the end of the daemon cuts them short.
 *
 * Clients are told last, and after libvirt's own last word on the inner job has passed:
 * until then the job is in the hash, and that word is kept from them.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"

#define VIR_CHECKPOINT_POLL_MIN_MS 10
#define VIR_CHECKPOINT_POLL_MAX_MS 200
#define VIR_CHECKPOINT_RETRY_MIN_MS 250
#define VIR_CHECKPOINT_RETRY_MAX_MS 30000

/* libvirt sends an event to all clients at once: what we have seen the others have on
 * their sockets by then. */
#define VIR_CHECKPOINT_LINGER_EVENT_MS 2000
#define VIR_CHECKPOINT_LINGER_MS 50

/* What a look found. */
typedef enum {
    VIR_CHECKPOINT_LOOK_NOTHING,
    VIR_CHECKPOINT_LOOK_STEP, /* take the slot and step */
} virCheckpointMirrorLookResult;

/* The connection of one job's looks. */
typedef struct virCheckpointMirrorEye {
    virDomainPtr domain;
    virCheckpointMonitor *monitor;
    virCheckpointEngine *engine;
    virConnectPtr conn;
} virCheckpointMirrorEye;

static void
virCheckpointMirrorEyeClose(virCheckpointMirrorEye *eye)
{
    g_clear_pointer(&eye->monitor, virCheckpointMonitorFree);
    g_clear_pointer(&eye->domain, virDomainFree);
    virCheckpointEngineDisconnect(eye->engine, g_steal_pointer(&eye->conn));
}

static gboolean
virCheckpointMirrorEyeOpen(virCheckpointMirrorEye *eye,
                           virCheckpointMirror *mirror,
                           GError **error)
{
    if (eye->monitor)
        return TRUE;
    virCheckpointMirrorEyeClose(eye);
    eye->engine = mirror->engine;
    eye->conn = virCheckpointEngineConnect(mirror->engine, error);
    if (!eye->conn)
        return FALSE;
    eye->domain = virDomainLookupByUUIDString(eye->conn, mirror->uuid);
    if (!eye->domain)
        return virCheckpointDomainSetError(error);
    eye->monitor = virCheckpointMonitorNewDomain(eye->domain, error);
    return eye->monitor != NULL;
}

static virCheckpointMirrorLookResult
virCheckpointMirrorLookBulk(virCheckpointMonitor *monitor,
                            virCheckpointMirror *mirror,
                            GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_auto(virCheckpointMirrorBulk) bulk = {0};

    if (!virCheckpointMirrorBulkQuery(monitor, name, &bulk, error))
        return VIR_CHECKPOINT_LOOK_STEP;
    if (!bulk.present || bulk.concluded)
        return VIR_CHECKPOINT_LOOK_STEP;
    if (bulk.ready)
        return mirror->ready ? VIR_CHECKPOINT_LOOK_NOTHING : VIR_CHECKPOINT_LOOK_STEP;
    virCheckpointMirrorSetProgress(mirror, bulk.curBytes, bulk.endBytes);
    return VIR_CHECKPOINT_LOOK_NOTHING;
}

/* Of a guest that is off; the daemon is this thread's. */
static virCheckpointMirrorLookResult
virCheckpointMirrorLookOff(virCheckpointMirror *mirror, virCheckpointJobState state)
{
    if (state != VIR_CHECKPOINT_JOB_BULK || !mirror->daemon)
        return VIR_CHECKPOINT_LOOK_STEP;
    return virCheckpointMirrorLookBulk(mirror->daemon, mirror, NULL);
}

/* FALSE: there is no daemon of the job's. Whoever settles the domain may end it. */
static gboolean
virCheckpointMirrorLookAside(virCheckpointMirror *mirror,
                             virCheckpointMirrorLookResult *result)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->daemonLock);
    g_autoptr(virCheckpointMonitor) ours = NULL;

    if (!mirror->daemon)
        return FALSE;
    /* Whoever settles the domain may be in the middle of a step with it. */
    ours = virCheckpointMonitorBorrow(mirror->daemon);
    *result = virCheckpointMirrorLookBulk(ours, mirror, NULL);
    return TRUE;
}

static virCheckpointMirrorLookResult
virCheckpointMirrorLookInner(virCheckpointMirrorEye *eye,
                             virCheckpointMirror *mirror,
                             virCheckpointJobState state,
                             GError **error)
{
    virCheckpointMirrorInner inner;
    guint64 bulkBytes;

    if (!virCheckpointMirrorInnerQuery(mirror, eye->domain, &inner, error) ||
        !inner.type)
        return VIR_CHECKPOINT_LOOK_STEP;
    if (state != VIR_CHECKPOINT_JOB_MIRRORING)
        return inner.ready ? VIR_CHECKPOINT_LOOK_STEP : VIR_CHECKPOINT_LOOK_NOTHING;
    /* A job that was ready before this copy began has its pivot asked for already. */
    if (mirror->ready)
        return inner.ready && virCheckpointMirrorGetWish(mirror) !=
                                  VIR_CHECKPOINT_MIRROR_WISH_NONE
                   ? VIR_CHECKPOINT_LOOK_STEP
                   : VIR_CHECKPOINT_LOOK_NOTHING;
    bulkBytes = virCheckpointMirrorBulkBytes(mirror);
    /* Libvirt shows one byte of a job that has nothing to do yet. */
    if (inner.endBytes == 1 && bulkBytes > 0) {
        inner.curBytes = 0;
        inner.endBytes = 0;
    }
    virCheckpointMirrorSetProgress(mirror, bulkBytes + inner.curBytes,
                                   bulkBytes + inner.endBytes);
    return inner.ready ? VIR_CHECKPOINT_LOOK_STEP : VIR_CHECKPOINT_LOOK_NOTHING;
}

/* Any error means: let the step find out what is wrong. */
static virCheckpointMirrorLookResult
virCheckpointMirrorLookOnce(virCheckpointMirrorEye *eye, virCheckpointMirror *mirror)
{
    g_autoptr(GError) error = NULL;
    virCheckpointMirrorLookResult result;
    virCheckpointMirrorWish wish;
    virCheckpointJobState state;
    gboolean deviceWent;

    g_mutex_lock(&mirror->lock);
    wish = mirror->wish;
    state = mirror->state;
    deviceWent = mirror->deviceWent;
    mirror->deviceWent = FALSE;
    g_mutex_unlock(&mirror->lock);
    if (virCheckpointMirrorIsConcluded(mirror) || mirror->needsSettling || deviceWent)
        return VIR_CHECKPOINT_LOOK_STEP;
    if (wish != VIR_CHECKPOINT_MIRROR_WISH_NONE && wish != mirror->wishSeen) {
        mirror->wishSeen = wish;
        return VIR_CHECKPOINT_LOOK_STEP;
    }
    if (virCheckpointMirrorComparing(mirror))
        return VIR_CHECKPOINT_LOOK_NOTHING;
    if (mirror->offline)
        return virCheckpointMirrorLookOff(mirror, state);
    if (state == VIR_CHECKPOINT_JOB_BULK &&
        virCheckpointMirrorLookAside(mirror, &result))
        return result;
    if (!virCheckpointMirrorEyeOpen(eye, mirror, &error))
        return VIR_CHECKPOINT_LOOK_STEP;
    if (state == VIR_CHECKPOINT_JOB_BULK || state == VIR_CHECKPOINT_JOB_NATIVE)
        result = virCheckpointMirrorLookBulk(eye->monitor, mirror, &error);
    else
        result = virCheckpointMirrorLookInner(eye, mirror, state, &error);
    if (error)
        virCheckpointMirrorEyeClose(eye);
    return result;
}

/* TRUE if it was cut short. */
static gboolean
virCheckpointMirrorPause(virCheckpointMirror *mirror, guint pauseMs)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&mirror->lock);
    gint64 until = g_get_monotonic_time() + (gint64)pauseMs * 1000;
    gboolean kicked;

    while (!mirror->kicked && !virCheckpointEngineStopping(mirror->engine)) {
        if (!g_cond_wait_until(&mirror->changed, &mirror->lock, until))
            break;
    }
    kicked = mirror->kicked;
    mirror->kicked = FALSE;
    return kicked;
}

/* Pauses and looks until a step is due; FALSE: the daemon ends. */
static gboolean
virCheckpointMirrorAwaitStep(virCheckpointMirrorEye *eye,
                             virCheckpointMirror *mirror,
                             guint *pauseMs)
{
    while (!virCheckpointEngineStopping(mirror->engine)) {
        if (virCheckpointMirrorPause(mirror, *pauseMs))
            *pauseMs = VIR_CHECKPOINT_POLL_MIN_MS;
        else
            *pauseMs = MIN(*pauseMs * 2, VIR_CHECKPOINT_POLL_MAX_MS);
        if (virCheckpointMirrorLookOnce(eye, mirror) == VIR_CHECKPOINT_LOOK_STEP)
            return TRUE;
    }
    return FALSE;
}

/* The slot, for one turn.  A domain that is off is settled by it: that looks whether
 * its QEMU is really gone, and ends the job in passing. */
static virCheckpointOperation *
virCheckpointMirrorTakeSlot(virCheckpointMirror *mirror, GError **error)
{
    virCheckpointEngine *engine = mirror->engine;
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(GError) unsettled = NULL;

    if (!mirror->needsSettling) {
        operation = virCheckpointOperationBegin(
            engine, mirror->uuid, VIR_CHECKPOINT_OPERATION_NO_SETTLE, error);
        if (!operation || operation->view->running)
            return g_steal_pointer(&operation);
        g_clear_pointer(&operation, virCheckpointOperationEnd);
        virCheckpointEngineUnsettle(engine, mirror->uuid);
    }
    operation = virCheckpointOperationBegin(
        engine, mirror->uuid, VIR_CHECKPOINT_OPERATION_OF_JOB, &unsettled);
    if (operation) {
        mirror->needsSettling = FALSE;
        return g_steal_pointer(&operation);
    }
    /* Maybe it is this job that must end first. */
    if (mirror->takenUp || !mirror->recovered)
        operation = virCheckpointOperationBegin(
            engine, mirror->uuid, VIR_CHECKPOINT_OPERATION_NO_SETTLE, NULL);
    if (operation && operation->view->running)
        return g_steal_pointer(&operation);
    g_propagate_error(error, g_steal_pointer(&unsettled));
    return NULL;
}

/* Libvirt does not know the domain (any more). */
static virCheckpointMirrorResult
virCheckpointMirrorTurnGone(virCheckpointMirror *mirror)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointStoreDomain) store = NULL;

    if (mirror->recovered && !mirror->takenUp) {
        /* Maybe it is on another host that shares the store: hands off. */
        virCheckpointMirrorUnregister(mirror);
        return VIR_CHECKPOINT_MIRROR_LEAVE;
    }
    store = virCheckpointStoreDomainOpen(mirror->engine->store, mirror->uuid, &error);
    if (!store || !virCheckpointRecoveryNoQemu(mirror->uuid, mirror->uuid, &error)) {
        g_warning("domain %s, disk '%s': the mirror waits: %s", mirror->uuid,
                  mirror->target, error->message);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (virCheckpointMirrorIsConcluded(mirror))
        return VIR_CHECKPOINT_MIRROR_OVER;
    return virCheckpointMirrorAdvanceAll(mirror, store, NULL);
}

/* One turn inside the slot. */
static virCheckpointMirrorResult
virCheckpointMirrorTurn(virCheckpointMirror *mirror)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointOperation) operation = NULL;

    if (virCheckpointMirrorIsConcluded(mirror))
        return VIR_CHECKPOINT_MIRROR_OVER;
    operation = virCheckpointMirrorTakeSlot(mirror, &error);
    if (!operation &&
        g_error_matches(error, VIR_CHECKPOINT_LIBVIRT_ERROR, VIR_ERR_NO_DOMAIN))
        return virCheckpointMirrorTurnGone(mirror);
    if (!operation) {
        g_info("domain %s, disk '%s': the mirror waits: %s", mirror->uuid,
               mirror->target, error->message);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (virCheckpointMirrorIsConcluded(mirror))
        return VIR_CHECKPOINT_MIRROR_OVER;
    return virCheckpointMirrorAdvanceAll(mirror, operation->store, operation->view);
}

static gint
virCheckpointMirrorFinalStatus(const virCheckpointMirror *mirror)
{
    switch (mirror->outcome) {
    case VIR_CHECKPOINT_JOB_COMPLETED:
        /* As stock: a copy that is stopped when ready is cancelled. */
        return mirror->finish || mirror->pivoted ? VIR_DOMAIN_BLOCK_JOB_COMPLETED
                                                 : VIR_DOMAIN_BLOCK_JOB_CANCELED;
    case VIR_CHECKPOINT_JOB_CANCELED:
        return VIR_DOMAIN_BLOCK_JOB_CANCELED;
    case VIR_CHECKPOINT_JOB_UNDECIDED:
    case VIR_CHECKPOINT_JOB_FAILED:
    case VIR_CHECKPOINT_JOB_OUTCOME_LAST:
        break;
    }
    return VIR_DOMAIN_BLOCK_JOB_FAILED;
}

/* Libvirt's last event on a job of ours is kept from clients for as long as the mirror
 * is known. */
static void
virCheckpointMirrorLinger(virCheckpointMirror *mirror)
{
    if (!mirror->innerRan)
        return;
    (void)virCheckpointMirrorAwaitEnd(mirror, VIR_CHECKPOINT_LINGER_EVENT_MS);
    g_usleep(VIR_CHECKPOINT_LINGER_MS * 1000);
}

void
virCheckpointMirrorConclude(virCheckpointMirror *mirror)
{
    virCheckpointMirrorLinger(mirror);
    if (mirror->started && mirror->outcome == VIR_CHECKPOINT_JOB_FAILED)
        virCheckpointMirrorRememberFailed(mirror);
    virCheckpointMirrorUnregister(mirror);
    if (mirror->started)
        virCheckpointEngineEmitBlockJob(
            mirror->engine, mirror->uuid, mirror->target,
            mirror->pivoted ? mirror->destPath : mirror->sourcePath,
            VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, virCheckpointMirrorFinalStatus(mirror));
    g_mutex_lock(&mirror->lock);
    mirror->over = TRUE;
    g_cond_broadcast(&mirror->changed);
    g_mutex_unlock(&mirror->lock);
}

void
virCheckpointMirrorWork(virCheckpointMirror *mirror, gboolean untilStarted)
{
    virCheckpointMirrorEye eye = {0};
    guint retryMs = VIR_CHECKPOINT_RETRY_MIN_MS;
    guint pauseMs = VIR_CHECKPOINT_POLL_MIN_MS;
    virCheckpointMirrorResult result = VIR_CHECKPOINT_MIRROR_WAIT;
    virCheckpointJobState state = mirror->state;

    while (!virCheckpointEngineStopping(mirror->engine) &&
           !(untilStarted &&
             (mirror->started || virCheckpointMirrorInterrupted(mirror)))) {
        if (result == VIR_CHECKPOINT_MIRROR_RETRY) {
            if (!virCheckpointMirrorPause(mirror, retryMs))
                retryMs = MIN(retryMs * 2, VIR_CHECKPOINT_RETRY_MAX_MS);
        } else {
            retryMs = VIR_CHECKPOINT_RETRY_MIN_MS;
            if (!virCheckpointMirrorAwaitStep(&eye, mirror, &pauseMs))
                break;
        }
        result = virCheckpointMirrorTurn(mirror);
        if (result == VIR_CHECKPOINT_MIRROR_LEAVE)
            break;
        if (mirror->state != state)
            pauseMs = VIR_CHECKPOINT_POLL_MIN_MS;
        state = mirror->state;
        if (result == VIR_CHECKPOINT_MIRROR_OVER) {
            virCheckpointMirrorConclude(mirror);
            break;
        }
    }
    virCheckpointMirrorEyeClose(&eye);
}

void
virCheckpointMirrorSpawn(virCheckpointMirror *mirror)
{
    virCheckpointEngineSpawn(mirror->engine, virCheckpointMirrorThread,
                             virCheckpointMirrorRef(mirror),
                             (GDestroyNotify)virCheckpointMirrorUnref);
}

void
virCheckpointMirrorThread(virCheckpointEngine *engine, gpointer data)
{
    virCheckpointMirrorWork(data, FALSE);
    if (virCheckpointEngineStopping(engine))
        virCheckpointMirrorOffSuspend(data);
}
