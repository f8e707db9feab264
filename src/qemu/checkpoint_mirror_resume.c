/*
 * checkpoint_mirror_resume.c: a copy goes on where an earlier one ended
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a bulk pass that fails or is aborted leaves T as the disk of the pass's
 * moment, except for what is left in the work bitmap.  T is closed and synced, that
 * rest goes into a sidecar, and a record says how T's file looked then and which
 * sidecars had all changes up to that moment.  The same call made again copies the rest
 * and what is in other parts than those: what came since.
 *
 * Parts, not a moment: sidecars never change, so "all but these files" is exact, and a
 * part of which nothing is known (one merged from several, say) is just copied again.
 * For the same reason the changes up to the moment must be in sidecars: a copy that
 * makes no checkpoint when it begins turns the active bitmap over instead, by a
 * checkpoint of its own that lives for the length of that step.
 *
 * Nothing is guessed.  The record is good for one file (device and inode) whose size
 * and times are those of its last write by us; else the copy starts over at its base
 * checkpoint, which is right for such a target as well.  A QEMU that went away took
 * with it what it had not written yet: then there is no rest and no record.
 */

#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "checkpoint_error.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_resume.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_stamp.h"

/* Longer than the tick by which kernels take a file's times. */
#define VIR_CHECKPOINT_RESUME_TICK_USEC (20 * 1000)
#define VIR_CHECKPOINT_RESUME_PARTS                                                    \
    (VIR_CHECKPOINT_STAMP_DEVICE | VIR_CHECKPOINT_STAMP_CHANGE)

void
virCheckpointMirrorResumeSift(virCheckpointStoreDomain *store, GPtrArray *resumes)
{
    guint i = 0;

    while (i < resumes->len) {
        const virCheckpointResumeRecord *record = g_ptr_array_index(resumes, i);
        g_autofree gchar *stamp =
            virCheckpointStampLookPath(record->destPath, VIR_CHECKPOINT_RESUME_PARTS);
        g_autoptr(GError) error = NULL;

        if (g_strcmp0(stamp, record->stamp) == 0) {
            i++;
            continue;
        }
        if (!virCheckpointStoreRemoveResume(store, record, &error))
            g_info("rest of a copy to '%s': %s", record->destPath, error->message);
        g_ptr_array_remove_index(resumes, i);
    }
}

void
virCheckpointMirrorResumePlan(virCheckpointStoreDomain *store,
                              virCheckpointJobRecord *job,
                              int fd)
{
    g_autoptr(GPtrArray) resumes = NULL;
    g_autofree gchar *stamp = NULL;
    struct stat st;
    guint i;

    if (fd < 0 || job->destCreated || !job->sinceId || fstat(fd, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return;
    job->destId = virCheckpointStampFile(&st);
    stamp = virCheckpointStampLook(&st, VIR_CHECKPOINT_RESUME_PARTS);
    resumes = virCheckpointStoreListResumes(store);
    for (i = 0; i < resumes->len; i++) {
        const virCheckpointResumeRecord *record = g_ptr_array_index(resumes, i);

        if (!g_str_equal(record->target, job->target) ||
            !g_str_equal(record->destPath, job->destPath))
            continue;
        if (!g_str_equal(record->stamp, stamp)) {
            g_info("copy of disk '%s' to '%s' starts over: the file was changed since",
                   job->target, job->destPath);
        } else if (g_strcmp0(record->sinceId, job->sinceId) != 0) {
            g_info("copy of disk '%s' to '%s' starts over: the last one was since"
                   " another checkpoint",
                   job->target, job->destPath);
        } else {
            g_free(job->resumeId);
            job->resumeId = g_strdup(record->id);
        }
    }
}

virCheckpointResumeRecord *
virCheckpointMirrorResumeFind(virCheckpointStoreDomain *store,
                              const virCheckpointJobRecord *job)
{
    g_autoptr(GPtrArray) resumes = NULL;
    guint i;

    if (!job->resumeId)
        return NULL;
    resumes = virCheckpointStoreListResumes(store);
    for (i = 0; i < resumes->len; i++) {
        virCheckpointResumeRecord *record = g_ptr_array_index(resumes, i);

        if (g_str_equal(record->id, job->resumeId)) {
            g_ptr_array_set_free_func(resumes, NULL);
            g_ptr_array_remove_index(resumes, i);
            g_ptr_array_set_free_func(resumes,
                                      (GDestroyNotify)virCheckpointResumeRecordFree);
            return record;
        }
    }
    return NULL;
}

void
virCheckpointMirrorResumeForget(virCheckpointStoreDomain *store,
                                const virCheckpointJobRecord *job)
{
    g_autoptr(GPtrArray) resumes = virCheckpointStoreListResumes(store);
    guint i;

    for (i = 0; i < resumes->len; i++) {
        const virCheckpointResumeRecord *record = g_ptr_array_index(resumes, i);
        g_autoptr(GError) error = NULL;

        if (g_str_equal(record->target, job->target) &&
            g_strcmp0(record->destPath, job->destPath) == 0 &&
            !virCheckpointStoreRemoveResume(store, record, &error))
            g_info("rest of a copy to '%s': %s", record->destPath, error->message);
    }
}

/* Turning over */

static gchar *
virCheckpointMirrorTurnName(const virCheckpointMirror *mirror)
{
    return g_strdup_printf("virtcheckpoint-job-%s", mirror->job->id);
}

static gboolean
virCheckpointMirrorTurnMake(const virCheckpointMirrorStep *step,
                            virCheckpointSegments *segments,
                            GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(GPtrArray) disks = virCheckpointMirrorDisks(step->view);
    g_autofree gchar *name = virCheckpointMirrorTurnName(step->mirror);
    g_autoptr(virCheckpointDef) def =
        virCheckpointMirrorCheckpointDef(name, job->target, disks);

    virCheckpointDefSetDomain(def, step->view->xml);
    return virCheckpointSegmentsCreate(segments, def, 0, NULL, error) &&
           virCheckpointFaultPoint("mirror/turned", error) &&
           virCheckpointSegmentsRefresh(segments, error);
}

gboolean
virCheckpointMirrorIsDecided(virCheckpointMirror *mirror,
                             const virCheckpointRecord *record,
                             GError **error)
{
    if (record->state != VIR_CHECKPOINT_RECORD_CREATING)
        return TRUE;
    mirror->needsSettling = TRUE;
    virCheckpointEngineUnsettle(mirror->engine, mirror->uuid);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "checkpoint '%s' is still being created: try again in a few seconds",
                record->def->name);
    return FALSE;
}

gboolean
virCheckpointMirrorTurnBack(const virCheckpointMirrorStep *step, GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorTurnName(step->mirror);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) records = NULL;
    const virCheckpointRecord *record;

    if (!step->view)
        return TRUE;
    if (!(records = virCheckpointStoreList(step->store, error)))
        return FALSE;
    record = virCheckpointTreeByName(records, name);
    if (!record || record->state == VIR_CHECKPOINT_RECORD_DELETING)
        return TRUE;
    if (!virCheckpointMirrorIsDecided(step->mirror, record, error))
        return FALSE;
    segments = virCheckpointSegmentsNewBrief(step->store, step->view, error);
    return segments && virCheckpointSegmentsDelete(segments, record->id, error);
}

gboolean
virCheckpointMirrorTurnOver(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GError) left = NULL;

    if (!job->destId || mirror->offline ||
        (job->finish && job->checkpoint && !job->native))
        return TRUE;
    segments = virCheckpointSegmentsNewBrief(step->store, step->view, error);
    if (!segments || !virCheckpointMirrorTurnMake(step, segments, error))
        return FALSE;
    if (!virCheckpointSegmentsPark(segments, job->target, &left))
        g_info("domain '%s', disk '%s': not parked: %s", step->view->name, job->target,
               left ? left->message : "see above");
    return virCheckpointMirrorTurnBack(step, error);
}

/* Keeping */

static const virCheckpointNode *
virCheckpointMirrorWorkNode(const virCheckpointGraph *graph,
                            const gchar *name,
                            const virCheckpointBitmapInfo **work)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        *work = virCheckpointNodeBitmap(node, name);
        if (*work)
            return node;
    }
    return NULL;
}

gboolean
virCheckpointMirrorRestWrite(const virCheckpointMirrorStep *step,
                             const gchar *file,
                             guint64 *restBytes,
                             GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorBitmapName(step->mirror);
    g_autoptr(virCheckpointGraph) graph =
        virCheckpointGraphQuery(step->view->monitor, error);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    virCheckpointBitmapRef ref = {.name = name};
    const virCheckpointBitmapInfo *work = NULL;
    const virCheckpointNode *node;

    if (!graph)
        return FALSE;
    node = virCheckpointMirrorWorkNode(graph, name, &work);
    if (!node || work->busy || work->inconsistent) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "what is left is not known");
        return FALSE;
    }
    ref.node = node->name;
    g_array_append_val(sources, ref);
    *restBytes = work->countBytes;
    return virCheckpointSidecarWrite(step->store, step->view->monitor, node->sizeBytes,
                                     work->granularity, sources, file, error);
}

/* Writes the rest into a sidecar. */
static gboolean
virCheckpointMirrorKeepRest(const virCheckpointMirrorStep *step,
                            virCheckpointResumeRecord *record,
                            GError **error)
{
    record->rest = g_strdup_printf("%s.rest.qcow2", record->id);
    return virCheckpointMirrorRestWrite(step, record->rest, &record->restBytes, error);
}

/* The target's file must be at rest when its look is taken down. */
static gboolean
virCheckpointMirrorKeepStamp(const virCheckpointMirrorStep *step,
                             virCheckpointResumeRecord *record,
                             GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autofree gchar *file = g_strdup_printf("%s:", job->destId ? job->destId : "");
    g_autofree gchar *again = NULL;

    record->stamp =
        virCheckpointStampLookPath(job->destPath, VIR_CHECKPOINT_RESUME_PARTS);
    g_usleep(VIR_CHECKPOINT_RESUME_TICK_USEC);
    again = virCheckpointStampLookPath(job->destPath, VIR_CHECKPOINT_RESUME_PARTS);
    if (record->stamp && g_str_has_prefix(record->stamp, file) &&
        g_strcmp0(again, record->stamp) == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "'%s' was changed by someone else", job->destPath);
    return FALSE;
}

static gboolean
virCheckpointMirrorKeepRecord(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(virCheckpointResumeRecord) record = virCheckpointResumeRecordNew();
    guint i;

    record->id = g_strdup(job->id);
    record->target = g_strdup(job->target);
    record->sinceId = g_strdup(job->sinceId);
    record->destPath = g_strdup(job->destPath);
    for (i = 0; i < job->covered->len; i++)
        g_ptr_array_add(record->covered, g_strdup(g_ptr_array_index(job->covered, i)));
    if (!virCheckpointMirrorDetach(step, error) ||
        !virCheckpointMirrorKeepRest(step, record, error) ||
        !virCheckpointMirrorKeepStamp(step, record, error) ||
        !virCheckpointStoreSaveResume(step->store, record, error))
        return FALSE;
    g_info("domain %s, disk '%s': %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
           " bytes were not copied to '%s': the same call goes on there",
           step->mirror->uuid, job->target, record->restBytes, job->workBytes,
           job->destPath);
    return TRUE;
}

void
virCheckpointMirrorResumeKeep(const virCheckpointMirrorStep *step)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(GError) error = NULL;

    if (!job->destId || !job->sinceId || !job->covered)
        return;
    if (!virCheckpointMirrorKeepRecord(step, &error))
        g_info("domain %s, disk '%s': the next copy to '%s' starts over: %s",
               step->mirror->uuid, job->target, job->destPath, error->message);
}
