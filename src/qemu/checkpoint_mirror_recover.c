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
    if (mirror->concluded)
        return TRUE;
    if (virCheckpointMirrorAdvanceAll(mirror, store, view) !=
        VIR_CHECKPOINT_MIRROR_OVER)
        return virCheckpointMirrorSetUnsettled(mirror, error);
    mirror->concluded = TRUE;
    virCheckpointMirrorKick(mirror);
    return TRUE;
}

/* A job of an earlier process. */
static gboolean
virCheckpointMirrorTakeUp(virCheckpointMirror *mirror,
                          virCheckpointStoreDomain *store,
                          virCheckpointDomainView *view,
                          GError **error)
{
    virCheckpointMirrorResult result;

    mirror->recovered = TRUE;
    mirror->started = TRUE;
    virCheckpointMirrorRegister(mirror);
    g_info("domain %s, disk '%s': taking up mirror job %s in state %s", mirror->uuid,
           mirror->target, mirror->job->id,
           virCheckpointJobStateToString(mirror->job->state));
    result = virCheckpointMirrorAdvanceAll(mirror, store, view);
    mirror->concluded = result == VIR_CHECKPOINT_MIRROR_OVER;
    virCheckpointEngineSpawn(mirror->engine, virCheckpointMirrorThread,
                             virCheckpointMirrorRef(mirror),
                             (GDestroyNotify)virCheckpointMirrorUnref);
    if (result == VIR_CHECKPOINT_MIRROR_RETRY && (!view || !view->running))
        return virCheckpointMirrorSetUnsettled(mirror, error);
    return TRUE;
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
    if (mirror && !g_str_equal(mirror->job->id, job->id))
        return virCheckpointMirrorSetUnsettled(mirror, error);
    if (mirror && view && view->running)
        return TRUE;
    if (mirror)
        return virCheckpointMirrorEndHere(mirror, store, view, error);
    mirror = virCheckpointMirrorNew(engine, uuid, virCheckpointJobRecordCopy(job));
    return virCheckpointMirrorTakeUp(mirror, store, view, error);
}
