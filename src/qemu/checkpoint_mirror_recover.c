/*
 * checkpoint_mirror_recover.c: taking up jobs that the last daemon left
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: there is no recovery code apart from the steps themselves: each looks where
 * QEMU, libvirt and the files are before it acts, so a recorded job is taken up by
 * taking the step of its state (docs/internals/mirror.md has the table).  What differs
 * is that a call which was not answered yet is undone and not continued.
 *
 * A guest that is off must not start on an overlay that is being committed: for such
 * a domain the job is ended right here, in the slot of whoever settles the domain, even
 * when a thread of this process works on the job; the thread then finds it concluded.
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_recoverytable.h"

/* An error, unless all that is left to do concerns no image: the domain may start. */
static gboolean
virCheckpointMirrorSetUnsettled(virCheckpointMirror *mirror, GError **error)
{
    if (mirror->job->state == VIR_CHECKPOINT_JOB_CLEANING &&
        !g_file_test(mirror->overlayPath, G_FILE_TEST_EXISTS))
        return TRUE;
    g_set_error(
        error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
        "the mirror of disk '%s' could not be ended (state %s): its overlay '%s'"
        " is still needed",
        mirror->target, virCheckpointJobStateToString(mirror->job->state),
        mirror->overlayPath);
    return FALSE;
}

/* The domain is off: a job of this process that its thread could not end yet. */
static gboolean
virCheckpointMirrorEndHere(virCheckpointMirror *mirror,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           GError **error)
{
    if (!virCheckpointMirrorIsConcluded(mirror) &&
        virCheckpointMirrorAdvanceAll(mirror, store, view) !=
            VIR_CHECKPOINT_MIRROR_OVER)
        return virCheckpointMirrorSetUnsettled(mirror, error);
    return TRUE;
}

/* TRUE if the call that started the job was answered, as far as can be told: clients
 * hear how a job ended that they know of. */
static gboolean
virCheckpointMirrorWasAnswered(const virCheckpointJobRecord *job)
{
    switch (job->state) {
    case VIR_CHECKPOINT_JOB_MIRRORING:
    case VIR_CHECKPOINT_JOB_PIVOTING:
        return TRUE;
    case VIR_CHECKPOINT_JOB_COMMITTING:
    case VIR_CHECKPOINT_JOB_CLEANING:
        return job->outcome != VIR_CHECKPOINT_JOB_FAILED || job->workBytes > 0;
    case VIR_CHECKPOINT_JOB_PREPARING:
    case VIR_CHECKPOINT_JOB_OVERLAYING:
    case VIR_CHECKPOINT_JOB_BULK: /* if QEMU has the job */
        return job->native ||     /* these are its pivot */
               virCheckpointMirrorOffWasBegun(job);
    case VIR_CHECKPOINT_JOB_NATIVE: /* if QEMU has the job */
    case VIR_CHECKPOINT_JOB_LAST:
        break;
    }
    return FALSE;
}

static virCheckpointMirror *
virCheckpointMirrorNewRecovered(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const virCheckpointJobRecord *job)
{
    virCheckpointMirror *mirror =
        virCheckpointMirrorNew(engine, uuid, virCheckpointJobRecordCopy(job));

    mirror->recovered = TRUE;
    mirror->offline = job->offline && job->state == VIR_CHECKPOINT_JOB_BULK;
    mirror->needsSettling = TRUE;
    mirror->started = virCheckpointMirrorWasAnswered(mirror->job);
    virCheckpointMirrorRegister(mirror);
    virCheckpointMirrorSpawn(mirror);
    return mirror;
}

void
virCheckpointMirrorLoad(virCheckpointEngine *engine)
{
    g_autoptr(GPtrArray) uuids = virCheckpointStoreListDomains(engine->store, NULL);
    guint i;
    guint j;

    for (i = 0; uuids && i < uuids->len; i++) {
        const gchar *uuid = g_ptr_array_index(uuids, i);
        g_autoptr(GPtrArray) jobs =
            virCheckpointStorePeekJobs(engine->store, uuid, NULL);

        for (j = 0; jobs && j < jobs->len; j++)
            virCheckpointMirrorUnref(virCheckpointMirrorNewRecovered(
                engine, uuid, g_ptr_array_index(jobs, j)));
    }
}

/* A job of an earlier process: the first look. */
static gboolean
virCheckpointMirrorTakeUp(virCheckpointMirror *mirror,
                          virCheckpointStoreDomain *store,
                          virCheckpointDomainView *view,
                          GError **error)
{
    mirror->takenUp = TRUE;
    g_info("domain %s, disk '%s': taking up mirror job %s in state %s: %s",
           mirror->uuid, mirror->target, mirror->job->id,
           virCheckpointJobStateToString(mirror->job->state),
           virCheckpointRecoveryOfJob(mirror->job->state));
    if (virCheckpointMirrorAdvanceAll(mirror, store, view) !=
            VIR_CHECKPOINT_MIRROR_RETRY ||
        (view && view->running))
        return TRUE;
    return virCheckpointMirrorSetUnsettled(mirror, error);
}

gboolean
virCheckpointMirrorRecover(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           const virCheckpointJobRecord *job,
                           GError **error)
{
    const gchar *uuid = virCheckpointStoreDomainUuid(store);
    g_autoptr(virCheckpointMirror) mirror = NULL;

    mirror = virCheckpointMirrorFind(engine, uuid, job->target);
    /* Its own thread goes on with the copy, and has the disks locked. */
    if (mirror && mirror->offline && mirror->daemon)
        return TRUE;
    if (mirror && !g_str_equal(mirror->job->id, job->id))
        return virCheckpointMirrorSetUnsettled(mirror, error);
    if (!mirror)
        mirror = virCheckpointMirrorNewRecovered(engine, uuid, job);
    if (mirror->recovered && !mirror->takenUp)
        return virCheckpointMirrorTakeUp(mirror, store, view, error);
    if (view && view->running)
        return TRUE;
    return virCheckpointMirrorEndHere(mirror, store, view, error);
}
