/*
 * checkpoint_mirror_again.c: copies of guests that are off survive the daemon
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the bulk pass of a guest that is off runs in a storage daemon of the job's,
 * which ends with us.  The set of what is to be copied lies beside the records
 * ("ID.work", as that of a pass aside), so another daemon begins the pass again,
 * provided that the source is still the disk of the pass's moment: its image looks as
 * it did when the pass was begun and the image locked.  A guest that ran in between
 * fails the job.
 *
 * A daemon that ends in order stops the pass first, closes and syncs the target, and
 * puts what is left beside the records, too ("ID.left"): its successor copies only
 * that, if the target still looks as it did then.  Of a daemon that was killed nobody
 * knows what it had copied: everything is copied again.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_offline_guard.h"
#include "checkpoint_stamp.h"

/** A job that is told to end does so after the request that it is at. */
#define VIR_CHECKPOINT_AGAIN_STOP_MS (5 * 1000)
/** The last daemon's storage daemon is being killed, and has the target locked. */
#define VIR_CHECKPOINT_AGAIN_BUSY_MS (10 * 1000)
#define VIR_CHECKPOINT_AGAIN_POLL_MS 10
/** Longer than the tick by which kernels take a file's times. */
#define VIR_CHECKPOINT_AGAIN_TICK_MS 20

gboolean
virCheckpointMirrorOffKeep(const virCheckpointMirrorStep *step,
                           const gchar *node,
                           GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointJobRecord *job = mirror->job;

    g_free(job->offlineSource);
    job->offlineSource = virCheckpointOfflineStamp(job->sourcePath);
    g_free(job->offlineDest);
    job->offlineDest = virCheckpointStampFileFd(mirror->targetFd);
    return virCheckpointMirrorAsideKeep(step, node, error);
}

gboolean
virCheckpointMirrorOffWasBegun(const virCheckpointJobRecord *job)
{
    return job->state == VIR_CHECKPOINT_JOB_BULK && job->offline &&
           (!job->aside || job->asideBegun);
}

gboolean
virCheckpointMirrorOffMayBegin(const virCheckpointMirror *mirror)
{
    return mirror->recovered && mirror->offline && !mirror->begun &&
           virCheckpointMirrorOffWasBegun(mirror->job);
}

static gboolean
virCheckpointMirrorOffIsSame(const virCheckpointJobRecord *job, GError **error)
{
    g_autofree gchar *now = virCheckpointOfflineStamp(job->sourcePath);

    if (now && g_strcmp0(now, job->offlineSource) == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "the copy of disk '%s' was interrupted, and its image '%s' %s since",
                job->target, job->sourcePath,
                now && job->offlineSource ? "was changed" : "may have been changed");
    return FALSE;
}

static int
virCheckpointMirrorOffOpenOnce(const virCheckpointJobRecord *job, GError **error)
{
    virCheckpointMirrorTargetNeeds needs = {job->target, job->destFormat,
                                            job->sizeBytes, NULL, TRUE};
    g_autofree gchar *format = NULL;

    return virCheckpointMirrorTargetOpen(job->destPath, &needs, &format, error);
}

/* The file that it was, and nobody else's by now. */
static gboolean
virCheckpointMirrorOffOpenTarget(virCheckpointMirror *mirror, GError **error)
{
    const virCheckpointJobRecord *job = mirror->job;
    gint64 until = g_get_monotonic_time() + VIR_CHECKPOINT_AGAIN_BUSY_MS * 1000;
    g_autofree gchar *file = NULL;

    while (mirror->targetFd < 0) {
        g_autoptr(GError) failed = NULL;

        mirror->targetFd = virCheckpointMirrorOffOpenOnce(job, &failed);
        if (mirror->targetFd >= 0)
            break;
        if (virCheckpointErrorCode(failed) != VIR_ERR_RESOURCE_BUSY ||
            g_get_monotonic_time() > until) {
            g_propagate_error(error, g_steal_pointer(&failed));
            return FALSE;
        }
        g_usleep(VIR_CHECKPOINT_AGAIN_POLL_MS * 1000);
    }
    file = virCheckpointStampFileFd(mirror->targetFd);
    if (file && g_strcmp0(file, job->offlineDest) == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "the copy of disk '%s' was interrupted, and '%s' is another file now",
                job->target, job->destPath);
    return FALSE;
}

/* What was left is good for the target as it was left. */
static gboolean
virCheckpointMirrorOffSift(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointJobRecord *job = step->mirror->job;
    g_autofree gchar *now = virCheckpointOfflineStamp(job->destPath);

    if (!job->offlineLeft || g_strcmp0(now, job->offlineLeft) == 0)
        return TRUE;
    g_clear_pointer(&job->offlineLeft, g_free);
    return virCheckpointMirrorSave(step, error);
}

gboolean
virCheckpointMirrorOffBegin(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    const virCheckpointDisk *disk;
    g_autofree gchar *node = NULL;

    if (!virCheckpointMirrorOffIsSame(job, error))
        return FALSE;
    /* Once it is open it is locked: nobody changes it any more. */
    if (job->aside) {
        virCheckpointMirrorHoldOthers(step);
        if (!virCheckpointMirrorAsideBegin(step, error))
            return FALSE;
        virCheckpointOfflineHoldRest(job->id);
        return virCheckpointMirrorOffIsSame(job, error);
    }
    g_ptr_array_add(targets, mirror->target);
    if (!virCheckpointMirrorOffSift(step, error) ||
        !virCheckpointMirrorOffOpenTarget(mirror, error) ||
        !virCheckpointOfflineOpen(step->view, targets, FALSE, &mirror->targetFd, 1,
                                  error) ||
        !virCheckpointMirrorOffIsSame(job, error))
        return FALSE;
    disk = virCheckpointDomainFindDisk(step->view->disks, mirror->target);
    node = g_strdup(disk ? disk->alias : NULL);
    if (!virCheckpointMirrorAsideLoad(step, step->view->monitor, node, error) ||
        !virCheckpointMirrorBulkRunOff(step, node, error))
        return FALSE;
    g_info("domain %s, disk '%s': the copy to '%s' goes on with %s: %" G_GUINT64_FORMAT
           " bytes",
           mirror->uuid, mirror->target, mirror->destPath,
           job->offlineLeft ? "what was left" : "all of it", job->workBytes);
    return TRUE;
}

/* The end of the daemon */

static gboolean
virCheckpointMirrorOffStop(const virCheckpointMirrorStep *step, GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorJobName(step->mirror);
    virCheckpointMonitor *monitor = step->view->monitor;
    gint64 until = g_get_monotonic_time() + VIR_CHECKPOINT_AGAIN_STOP_MS * 1000;
    g_autoptr(virCheckpointJson) reply = virCheckpointMonitorRun(
        monitor, "job-cancel", virCheckpointJsonBuild("s:id", name, NULL), NULL);

    /* One that has just ended by itself refuses. */
    do {
        g_auto(virCheckpointMirrorBulk) bulk = {0};

        if (!virCheckpointMirrorBulkQuery(monitor, name, &bulk, error))
            return FALSE;
        if (bulk.present && bulk.concluded)
            return TRUE;
        g_usleep(VIR_CHECKPOINT_AGAIN_POLL_MS * 1000);
    } while (g_get_monotonic_time() < until);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_TIMEOUT,
                "'%s' does not answer", step->mirror->destPath);
    return FALSE;
}

static gboolean
virCheckpointMirrorOffLeave(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointJobRecord *job = step->mirror->job;
    g_autofree gchar *file = g_strconcat(job->id, VIR_CHECKPOINT_MIRROR_LEFT, NULL);
    g_autofree gchar *stamp = NULL;
    g_autofree gchar *again = NULL;
    guint64 leftBytes = 0;

    g_clear_pointer(&job->offlineLeft, g_free);
    if (!virCheckpointMirrorOffStop(step, error) ||
        !virCheckpointMirrorDetach(step, error) ||
        !virCheckpointMirrorRestWrite(step, file, &leftBytes, error) ||
        !virCheckpointFaultPoint("again/left", error))
        return FALSE;
    stamp = virCheckpointOfflineStamp(job->destPath);
    g_usleep(VIR_CHECKPOINT_AGAIN_TICK_MS * 1000);
    again = virCheckpointOfflineStamp(job->destPath);
    if (!stamp || g_strcmp0(stamp, again) != 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "'%s' is no file at rest", job->destPath);
        return FALSE;
    }
    job->offlineLeft = g_steal_pointer(&stamp);
    g_info("domain %s, disk '%s': the copy waits for the next daemon with "
           "%" G_GUINT64_FORMAT " bytes left",
           step->mirror->uuid, job->target, leftBytes);
    return virCheckpointMirrorSave(step, error);
}

void
virCheckpointMirrorOffSuspend(virCheckpointMirror *mirror)
{
    virCheckpointDomainView view = {
        .uuid = mirror->uuid, .name = mirror->uuid, .monitor = mirror->daemon};
    g_autoptr(virCheckpointStoreDomain) store = NULL;
    g_autoptr(GError) error = NULL;
    virCheckpointMirrorStep step = {mirror, NULL, &view};

    if (!mirror->offline || !mirror->daemon || mirror->job->aside ||
        mirror->job->full || !virCheckpointMirrorOffWasBegun(mirror->job))
        return;
    store = virCheckpointStoreDomainOpen(mirror->engine->store, mirror->uuid, &error);
    step.store = store;
    if (!store || !virCheckpointMirrorOffLeave(&step, &error))
        g_info("domain %s, disk '%s': the next daemon copies all of it again: %s",
               mirror->uuid, mirror->target, error->message);
}
