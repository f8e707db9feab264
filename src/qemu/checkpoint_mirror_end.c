/*
 * checkpoint_mirror_end.c: back to one image
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: whatever happened before, a job ends with the guest on S (or on T after a
 * pivot), the overlay merged and gone, and nothing of ours left in QEMU.  Both states
 * here are entered with the outcome decided and recorded, and they are repeated until
 * they are done: they never fail, they are only late.
 *
 * COMMITTING.  Libvirt commits O into S while the guest runs; the base is always named
 * (without it libvirt commits into the bottom of the chain and deletes the user's
 * image).  S's own bitmap records what the commit writes, and libvirt merges O's bitmap
 * into it.  A guest that is off gets the same from qemu-img; O stays whole (-d) until
 * the configuration names S, so that this can be done twice.
 *
 * Does O matter at all?  For a guest that runs QEMU's graph answers; for one that is
 * off the configuration does.  Therefore it is changed right before a pivot and not
 * after it: a libvirtd that dies in its pivot leaves it as it was, and an old O would
 * be put over a newer S.  Between the two O is still the disk, and S lacks what QEMU
 * has in its caches; so that the definition is ahead is recorded first ("leaving").
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_definition.h"
#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_resume.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_replica.h"

/* Recorded: the definition names @path. */
static gboolean
virCheckpointMirrorNoteDefined(const virCheckpointMirrorStep *step,
                               const gchar *path,
                               GError **error)
{
    virCheckpointJobRecord *job = step->mirror->job;

    if (g_strcmp0(job->defined, path) == 0)
        return TRUE;
    g_free(job->defined);
    job->defined = g_strdup(path);
    return virCheckpointMirrorSave(step, error);
}

gboolean
virCheckpointMirrorFixConfig(const virCheckpointMirrorStep *step,
                             const gchar *from,
                             const gchar *to,
                             const gchar *format,
                             GError **error)
{
    virDomainPtr domain = step->view->domain;
    g_autofree gchar *xml = NULL;
    g_autofree gchar *disk = NULL;
    g_autofree gchar *changed = NULL;
    g_autoptr(GError) failed = NULL;
    virDomainPtr redefined;
    gint persistent = virDomainIsPersistent(domain);
    gboolean back = g_str_equal(to, step->mirror->overlayPath);

    if (persistent < 0)
        return virCheckpointDomainSetError(error);
    if (!persistent)
        return TRUE;
    xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
    if (!xml)
        return virCheckpointDomainSetError(error);
    if (g_str_equal(to, step->mirror->destPath))
        disk = virCheckpointMirrorCopyXml(step->mirror->job->destXml, format, error);
    else
        disk = virCheckpointMirrorDestXml(to, format, virCheckpointMirrorIsBlock(to));
    if (!disk)
        return FALSE;
    changed = virCheckpointMirrorReplaceSource(xml, from, disk, &failed);
    if (failed) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    /* Libvirt may have changed it by itself a moment ago. */
    if (!changed)
        return virCheckpointDefinitionSync(error);
    /* What is left is not needed from here on, what is named is from there on. */
    if ((!back && !virCheckpointMirrorNoteDefined(step, to, error)) ||
        !virCheckpointFaultPoint("mirror/before-config", error))
        return FALSE;
    redefined = virDomainDefineXML(virDomainGetConnect(domain), changed);
    if (!redefined)
        return virCheckpointDomainSetError(error);
    virDomainFree(redefined);
    return virCheckpointDefinitionSync(error) &&
           (!back || virCheckpointMirrorNoteDefined(step, to, error)) &&
           virCheckpointFaultPoint("mirror/config-fixed", error);
}

/* Starts libvirt's commit of O; what a foreign snapshot put on top of it stays. */
static virCheckpointMirrorResult
virCheckpointMirrorCommitStart(const virCheckpointMirrorStep *step,
                               const virCheckpointMirrorWhere *where,
                               GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    gboolean active = where->top == where->overlay;
    const gchar *top = active ? NULL : mirror->overlayPath;
    guint flags = VIR_DOMAIN_BLOCK_COMMIT_DELETE;

    if (active)
        flags |= VIR_DOMAIN_BLOCK_COMMIT_ACTIVE;
    /* Taken back if a commit that was ready broke. */
    if (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                      "qcow2", error) ||
        !virCheckpointFaultPoint("mirror/before-commit", error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (virDomainBlockCommit(step->view->domain, mirror->target, mirror->sourcePath,
                             top, 0, flags) < 0) {
        virCheckpointDomainSetError(error);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    mirror->innerRan = TRUE;
    virCheckpointMirrorExpectEnd(mirror);
    return virCheckpointFaultPoint("mirror/commit-begun", error)
               ? VIR_CHECKPOINT_MIRROR_WAIT
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

gboolean
virCheckpointMirrorLeave(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;

    if (!mirror->job->leaving) {
        mirror->job->leaving = TRUE;
        if (!virCheckpointMirrorSave(step, error))
            return FALSE;
    }
    return virCheckpointMirrorFixConfig(step, mirror->overlayPath, mirror->sourcePath,
                                        "qcow2", error);
}

/* A guest that was ended just before never left O, though QEMU closed O in order. */
static void
virCheckpointMirrorLeaveRefused(const virCheckpointMirrorStep *step, const GError *why)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GError) error = NULL;

    if (virCheckpointErrorCode(why) != VIR_ERR_OPERATION_INVALID ||
        virDomainIsActive(step->view->domain) != 0)
        return;
    if (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                      "qcow2", &error))
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error ? error->message : "not changed");
}

/* Libvirt has a job on the disk. */
static virCheckpointMirrorResult
virCheckpointMirrorCommitInner(const virCheckpointMirrorStep *step,
                               const virCheckpointMirrorInner *inner,
                               GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    guint flags = 0;

    if (inner->type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT && inner->ready)
        flags = VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT;
    else if (inner->type != VIR_DOMAIN_BLOCK_JOB_TYPE_COPY)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    /* Before the pivot: from then on O gets old, and whatever happens to libvirtd the
     * next start must not find it. */
    if (flags && !virCheckpointMirrorLeave(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    mirror->innerRan = TRUE;
    virCheckpointMirrorExpectEnd(mirror);
    if (!virCheckpointFaultPoint("mirror/before-commit-pivot", error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (virDomainBlockJobAbort(step->view->domain, mirror->target, flags) < 0) {
        g_autoptr(GError) why = NULL;

        virCheckpointDomainSetError(&why);
        if (flags)
            virCheckpointMirrorLeaveRefused(step, why);
        g_propagate_error(error, g_steal_pointer(&why));
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    return virCheckpointFaultPoint("mirror/after-commit-pivot", error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}

virCheckpointMirrorResult
virCheckpointMirrorCommit(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};
    virCheckpointMirrorInner inner;
    gboolean busy;

    if (!virCheckpointMirrorRunning(step))
        return virCheckpointMirrorCommitOffline(step, error);
    /* Each turn of the commit comes through here. */
    busy = FALSE;
    if (!mirror->swept && !virCheckpointMirrorSweep(step, &busy, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (busy)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (!virCheckpointMirrorInnerQuery(mirror, step->view->domain, &inner, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (inner.type)
        return virCheckpointMirrorCommitInner(step, &inner, error);
    if (!virCheckpointMirrorLook(step, &where, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!where.overlay)
        return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_CLEANING, error)
                   ? VIR_CHECKPOINT_MIRROR_MOVED
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    if (!where.source) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "'%s' is not below '%s'", mirror->sourcePath, mirror->overlayPath);
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (where.top == where.overlay && g_strcmp0(where.known, mirror->overlayPath) != 0)
        return virCheckpointMirrorCommitByHand(step, &where, error);
    return virCheckpointMirrorCommitStart(step, &where, error);
}

/* By its id; or, if the daemon died before it could record that, by its name: the name
 * was free when the job began, and a job's checkpoint covers one disk. */
static const virCheckpointRecord *
virCheckpointMirrorFindCheckpoint(const virCheckpointMirrorStep *step,
                                  GPtrArray *records)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    const virCheckpointRecord *record;

    if (job->checkpointId)
        return virCheckpointTreeById(records, job->checkpointId);
    record = virCheckpointTreeByName(records, job->checkpoint);
    if (!record || record->segments->len != 1 ||
        !virCheckpointRecordSegment(record, job->target) ||
        record->def->creationTime < job->startedUsec / G_USEC_PER_SEC)
        return NULL;
    return record;
}

/* The image of a guest that is off gets rid of the bitmap. */
static void
virCheckpointMirrorSweepOff(const virCheckpointMirrorStep *step,
                            virCheckpointSegments *segments)
{
    g_autoptr(GPtrArray) targets = g_ptr_array_new();

    if (step->view->running)
        return;
    g_ptr_array_add(targets, step->mirror->target);
    if (!virCheckpointSegmentsSweepOff(segments, targets))
        virCheckpointEngineSettleLater(step->mirror->engine, step->mirror->uuid);
    virCheckpointOfflineClose(step->view);
}

gboolean
virCheckpointMirrorTakeCheckpointBack(const virCheckpointMirrorStep *step,
                                      GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(virCheckpointSegments) segments = NULL;
    const virCheckpointRecord *record;

    if (!mirror->job->checkpoint || !step->view)
        return TRUE;
    segments = virCheckpointSegmentsNewBrief(step->store, step->view, error);
    if (!segments)
        return FALSE;
    record = virCheckpointMirrorFindCheckpoint(step, segments->records);
    if (record) {
        g_autofree gchar *id = g_strdup(record->id);

        if (!virCheckpointMirrorIsDecided(mirror, record, error) ||
            !virCheckpointFaultPoint("mirror/before-take-back", error) ||
            !virCheckpointSegmentsDelete(segments, id, error))
            return FALSE;
        virCheckpointMirrorSweepOff(step, segments);
    }
    g_clear_pointer(&mirror->job->checkpointId, g_free);
    return virCheckpointFaultPoint("mirror/taken-back", error);
}

/* Segments remember the file in which their bitmap was made. */
static gboolean
virCheckpointMirrorRebase(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GPtrArray) records = virCheckpointStoreList(step->store, error);
    const gchar *to = mirror->pivoted ? mirror->destPath : mirror->sourcePath;
    guint i;

    if (!records)
        return FALSE;
    for (i = 0; i < records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(records, i);
        virCheckpointSegment *segment =
            virCheckpointRecordSegment(record, mirror->target);

        if (!segment || !segment->born ||
            (!g_str_equal(segment->born, mirror->overlayPath) &&
             !(mirror->pivoted && g_str_equal(segment->born, mirror->sourcePath))))
            continue;
        g_free(segment->born);
        segment->born = g_strdup(to);
        g_ptr_array_set_size(segment->heirs, 0);
        if (!virCheckpointStoreSave(step->store, record, error))
            return FALSE;
    }
    return TRUE;
}

/* Libvirt's commit has removed O by itself, and syncs nothing: a power cut would bring
 * it back when no record names it any more. */
static gboolean
virCheckpointMirrorOverlayStaysAway(const virCheckpointMirror *mirror, GError **error)
{
    g_autofree gchar *folder = g_path_get_dirname(mirror->overlayPath);

    return !g_file_test(folder, G_FILE_TEST_IS_DIR) ||
           virCheckpointFileSyncName(mirror->overlayPath, error);
}

/* FALSE with an error if a QEMU has the overlay after all. */
static gboolean
virCheckpointMirrorNobodyHasOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};

    if (!virCheckpointMirrorRunning(step))
        return virCheckpointRecoveryNoQemu(mirror->uuid, mirror->uuid, error);
    if (!virCheckpointMirrorLook(step, &where, error))
        return FALSE;
    if (!where.overlay)
        return TRUE;
    mirror->onOverlay = TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "disk '%s' moved to the overlay '%s' after all", mirror->target,
                mirror->overlayPath);
    return FALSE;
}

/*
 * What it is called at last, of a guest that runs or is off.  Only of one that was off
 * a start past us may have come for it: times alone cannot tell, for a power cut may
 * take those of what a guest has flushed.
 */
static gchar *
virCheckpointMirrorLastName(const virCheckpointMirror *mirror, gboolean running)
{
    return g_strconcat(mirror->overlayPath, running ? ".gone" : ".left", NULL);
}

/* Whoever renamed the overlay died before its removal.  A guest that had been started
 * past us on it and that died, too, has written to it, and nobody to the source since:
 * what it wrote is nowhere else. */
static gboolean
virCheckpointMirrorLeftIsNeeded(const virCheckpointMirrorStep *step, const gchar *left)
{
    const virCheckpointMirror *mirror = step->mirror;

    return step->view && !virCheckpointMirrorRunning(step) && !mirror->pivoted &&
           virCheckpointMirrorWrittenLater(left, mirror->sourcePath, 0);
}

/* It is committed, as that of any guest that ended on one.  Its name comes last: until
 * then whoever takes over finds things as they were found here.  Always FALSE: no
 * cleaning now. */
static gboolean
virCheckpointMirrorBringBack(const virCheckpointMirrorStep *step,
                             const gchar *left,
                             GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;

    if (!virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING, error) ||
        !virCheckpointFaultPoint("mirror/left-needed", error) ||
        !virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                      "qcow2", error) ||
        !virCheckpointFaultPoint("mirror/left-named", error) ||
        !virCheckpointFileMove(left, mirror->overlayPath, error) ||
        !virCheckpointFaultPoint("mirror/left-back", error))
        return FALSE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "a guest wrote to disk '%s', overlay '%s', after all", mirror->target,
                mirror->overlayPath);
    return FALSE;
}

/*
 * The overlay's file goes when nothing names it.  It is renamed first and QEMU asked
 * once more: a snapshot that a dead connection sent may still have run, or somebody has
 * started the guest past us by a definition from before; whoever opens the file
 * afterwards does not find it.
 */
static gboolean
virCheckpointMirrorRemoveOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *left = virCheckpointMirrorLastName(mirror, FALSE);
    g_autofree gchar *gone =
        virCheckpointMirrorLastName(mirror, virCheckpointMirrorRunning(step));

    if (rename(mirror->overlayPath, gone) < 0) {
        if (errno != ENOENT) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_SYSTEM_ERROR,
                        "remove '%s': %s", mirror->overlayPath, g_strerror(errno));
            return FALSE;
        }
        if (virCheckpointMirrorLeftIsNeeded(step, left))
            return virCheckpointMirrorBringBack(step, left, error);
        g_free(gone);
        gone =
            virCheckpointMirrorLastName(mirror, !g_file_test(left, G_FILE_TEST_EXISTS));
    }
    if (!virCheckpointFaultPoint("mirror/overlay-renamed", error))
        return FALSE;
    if (!virCheckpointMirrorNobodyHasOverlay(step, error)) {
        if (rename(gone, mirror->overlayPath) < 0 && errno != ENOENT)
            g_warning("rename '%s': %s", gone, g_strerror(errno));
        return FALSE;
    }
    return virCheckpointFileRemove(gone, error) &&
           virCheckpointMirrorOverlayStaysAway(mirror, error) &&
           virCheckpointFaultPoint("mirror/overlay-removed", error);
}

/* Where the guest is now; for one that is off, what its definition names. */
static gboolean
virCheckpointMirrorCheckPivoted(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_auto(virCheckpointMirrorWhere) where = {0};

    if (mirror->finish || !step->view)
        return TRUE;
    if (!virCheckpointMirrorRunning(step)) {
        mirror->pivoted = mirror->pivoted || virCheckpointMirrorIsDefinedOn(
                                                 mirror, step->view, mirror->destPath);
        return TRUE;
    }
    if (!virCheckpointMirrorLook(step, &where, error))
        return FALSE;
    mirror->pivoted = where.dest != NULL;
    return TRUE;
}

/* The definition of a domain must name the image that stays before the other goes. */
static gboolean
virCheckpointMirrorSettleConfig(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;

    if (!step->view)
        return TRUE;
    if (mirror->pivoted)
        return virCheckpointMirrorFixConfig(step, mirror->overlayPath, mirror->destPath,
                                            mirror->job->destFormat, error);
    return virCheckpointMirrorFixConfig(step, mirror->overlayPath, mirror->sourcePath,
                                        "qcow2", error);
}

static void
virCheckpointMirrorSettleSegments(const virCheckpointMirrorStep *step)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointSegments) segments = NULL;

    if (!virCheckpointMirrorRunning(step))
        return;
    segments = virCheckpointSegmentsNew(step->store, step->view, &error);
    if (segments && virCheckpointSegmentsEnsure(segments, &error)) {
        virCheckpointEngineParkRest(step->mirror->engine, segments,
                                    step->mirror->target);
        return;
    }
    virCheckpointEngineSettleLater(step->mirror->engine, step->mirror->uuid);
    g_warning("domain '%s', disk '%s': after the mirror: %s", step->view->name,
              step->mirror->target, error->message);
}

/* What nobody names waits for the last job: settling leaves it alone until then. */
static void
virCheckpointMirrorCollect(const virCheckpointMirrorStep *step)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(step->store, &error);

    if (!jobs || (jobs->len == 0 && !virCheckpointStoreCollect(step->store, &error)))
        g_warning("domain %s: %s", step->mirror->uuid, error->message);
}

virCheckpointMirrorResult
virCheckpointMirrorClean(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;
    gboolean failed = job->outcome != VIR_CHECKPOINT_JOB_COMPLETED;
    gboolean busy = FALSE;

    if (virCheckpointMirrorRunning(step) &&
        (!virCheckpointMirrorSweep(step, &busy, error) ||
         !virCheckpointMirrorSweepByHand(step, &busy, error)))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (busy)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (mirror->onOverlay) {
        mirror->onOverlay = FALSE;
        return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_COMMITTING, error)
                   ? VIR_CHECKPOINT_MIRROR_MOVED
                   : VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (!virCheckpointFaultPoint("mirror/cleaning", error) ||
        !virCheckpointMirrorCheckPivoted(step, error) ||
        !virCheckpointMirrorSettleConfig(step, error) ||
        !virCheckpointMirrorPivotRepair(step, error) ||
        !virCheckpointMirrorDropOrphans(step, error) ||
        !virCheckpointMirrorRemoveOverlay(step, error) ||
        !virCheckpointMirrorRebase(step, error) ||
        !virCheckpointMirrorAsideForget(step, error) ||
        (failed && (!virCheckpointMirrorTurnBack(step, error) ||
                    !virCheckpointMirrorTakeCheckpointBack(step, error))))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!failed) {
        virCheckpointMirrorResumeForget(step->store, job);
        virCheckpointReplicaNote(step->store, job);
    }
    if (failed && job->destCreated && !mirror->pivoted &&
        !virCheckpointFileRemove(job->destPath, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    virCheckpointMirrorSettleSegments(step);
    if (!virCheckpointFaultPoint("mirror/before-forget", error) ||
        !virCheckpointStoreRemoveJob(step->store, job->id, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    virCheckpointMirrorCollect(step);
    return VIR_CHECKPOINT_MIRROR_OVER;
}
