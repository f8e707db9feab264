/*
 * checkpoint_mirror_offline.c: the overlay of a guest that is off
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a guest that stopped in mid-mirror leaves its newest data in O.  qemu-img
 * commits O into S; O stays whole (-d) until nothing names it, so a commit that was
 * killed is done again.
 *
 * Tracking.  The bitmap that records on O does not get into S that way, and after a
 * SIGKILL it is gone.  But O's allocation holds every change since the overlay, and the
 * commit writes all of it: a bitmap that records on S meanwhile has them all.  S's own
 * bits from before the overlay are parked (the segment's "born" is O then), so a
 * missing or inconsistent bitmap on S is made anew before the commit and nothing is
 * lost.
 *
 * Is O needed?  The configuration says so, with two exceptions.  After a snapshot that
 * libvirtd died in (and an older daemon of ours, for it names O before a snapshot now)
 * it names S although the guest may have written to O.  S was read-only all the time,
 * so O was written last.  And just before QEMU leaves O it names S already: then a
 * bitmap that O does not hold in order shows that QEMU never closed O.
 *
 * And except where the configuration is an old one: a host that took the domain over
 * from one that died starts it from what its manager has kept, maybe since before the
 * copy.  The record says which file it named last, and it is made to name that.
 */

#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_dest.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_process.h"
#include "checkpoint_segmentspriv.h"

/* More than any pivot takes. */
#define VIR_CHECKPOINT_MIRROR_LEAVING_SEC 10

gboolean
virCheckpointMirrorWrittenLater(const gchar *path, const gchar *than, gint64 bySec)
{
    struct stat one;
    struct stat other;
    gint64 oneSec;

    if (stat(path, &one) < 0 || stat(than, &other) < 0)
        return FALSE;
    oneSec = (gint64)one.st_mtim.tv_sec - bySec;
    return oneSec > other.st_mtim.tv_sec ||
           (oneSec == other.st_mtim.tv_sec &&
            one.st_mtim.tv_nsec > other.st_mtim.tv_nsec);
}

/* A domain of which nothing is known any more (a transient one) needs what is there. */
static gboolean
virCheckpointMirrorOverlayNeeded(const virCheckpointMirrorStep *step)
{
    const virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;

    if (!g_file_test(mirror->overlayPath, G_FILE_TEST_EXISTS))
        return FALSE;
    if (!step->view || virCheckpointMirrorIsDetached(step) ||
        virCheckpointDomainFindDisk(step->view->disks, mirror->overlayPath))
        return TRUE;
    /* Failed before the bulk pass: in the snapshot, maybe. */
    return job->outcome == VIR_CHECKPOINT_JOB_FAILED && job->workBytes == 0 &&
           virCheckpointMirrorWrittenLater(mirror->overlayPath, mirror->sourcePath, 0);
}

/*
 * The file that the definition has to name instead of @named, or NULL.  S is what it
 * named before the copy; but somebody else may have committed O, and been on S since.
 * O it names rightly until right before the pivot, so on the host itself that is true.
 */
static const gchar *
virCheckpointMirrorNewer(const virCheckpointMirrorStep *step, const gchar *named)
{
    const virCheckpointMirror *mirror = step->mirror;
    const virCheckpointJobRecord *job = mirror->job;
    gboolean committing = job->state == VIR_CHECKPOINT_JOB_COMMITTING;

    if (!named || !job->defined || g_str_equal(named, job->defined))
        return NULL;
    if (g_str_equal(job->defined, mirror->overlayPath))
        return g_str_equal(named, mirror->sourcePath) &&
                       (committing ||
                        virCheckpointMirrorWrittenLater(mirror->overlayPath, named, 0))
                   ? job->defined
                   : NULL;
    if (g_str_equal(job->defined, mirror->destPath))
        return g_str_equal(named, mirror->sourcePath) ||
                       (g_str_equal(named, mirror->overlayPath) &&
                        virCheckpointEngineIsElsewhere(mirror->engine, mirror->uuid))
                   ? job->defined
                   : NULL;
    return NULL;
}

gboolean
virCheckpointMirrorRenewConfig(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *named = NULL;
    const gchar *newer;

    if (!step->view || step->view->running || mirror->offline)
        return TRUE;
    named = virCheckpointMirrorXmlSource(step->view->xml, mirror->target);
    if (!(newer = virCheckpointMirrorNewer(step, named)))
        return TRUE;
    g_warning("domain %s, disk '%s': its definition names '%s', and it ran on '%s' "
              "since: that is put right",
              mirror->uuid, mirror->target, named, newer);
    return virCheckpointMirrorFixConfig(
               step, named, newer,
               g_str_equal(newer, mirror->destPath) ? mirror->job->destFormat : "qcow2",
               error) &&
           virCheckpointDomainViewRefresh(step->view, error);
}

/* *present, *good: bitmap @name in the image at rest. */
static gboolean
virCheckpointMirrorFindBitmap(const gchar *path,
                              const gchar *name,
                              gboolean *present,
                              gboolean *good,
                              GError **error)
{
    const gchar *argv[] = {"qemu-img",      "info", "-f", "qcow2",
                           "--output=json", path,   NULL};
    g_autofree gchar *output = NULL;
    g_autoptr(virCheckpointJson) info = NULL;
    const virCheckpointJson *bitmaps;
    gsize i;
    gsize j;

    if (!virCheckpointProcessRun(argv, &output, error) ||
        !(info = virCheckpointJsonParse(output, -1, error)))
        return FALSE;
    *present = FALSE;
    *good = TRUE;
    bitmaps = virCheckpointJsonPath(info, "format-specific.data.bitmaps");
    for (i = 0; i < virCheckpointJsonLength(bitmaps); i++) {
        const virCheckpointJson *bitmap = virCheckpointJsonIndex(bitmaps, i);
        const virCheckpointJson *flags = virCheckpointJsonGet(bitmap, "flags");

        if (g_strcmp0(virCheckpointJsonGetString(bitmap, "name"), name) != 0)
            continue;
        *present = TRUE;
        for (j = 0; j < virCheckpointJsonLength(flags); j++) {
            if (g_strcmp0(virCheckpointJsonString(virCheckpointJsonIndex(flags, j)),
                          "in-use") == 0)
                *good = FALSE;
        }
    }
    return TRUE;
}

/* The name of the bitmap that records on the disk; NULL if none has to. */
static gchar *
virCheckpointMirrorActive(const virCheckpointMirrorStep *step)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(step->store, NULL);
    const virCheckpointRecord *newest =
        records ? virCheckpointTreeNewest(records, step->mirror->target) : NULL;

    return newest ? g_strdup(virCheckpointSegmentActive(
                        virCheckpointRecordSegment(newest, step->mirror->target)))
                  : NULL;
}

gboolean
virCheckpointMirrorOverlayLeft(const virCheckpointMirrorStep *step)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autofree gchar *name = virCheckpointMirrorActive(step);
    g_autoptr(GError) error = NULL;
    gboolean present = FALSE;
    gboolean good = FALSE;

    if (!name || !g_file_test(mirror->overlayPath, G_FILE_TEST_EXISTS))
        return TRUE;
    if (!virCheckpointMirrorFindBitmap(mirror->overlayPath, name, &present, &good,
                                       &error))
        g_warning("domain %s, disk '%s': %s", mirror->uuid, mirror->target,
                  error->message);
    return present && good;
}

static gboolean
virCheckpointMirrorRenewBitmap(const gchar *path,
                               const gchar *name,
                               guint64 granularity,
                               gboolean present,
                               GError **error)
{
    g_autofree gchar *size = g_strdup_printf("%" G_GUINT64_FORMAT, granularity);
    const gchar *remove[] = {"qemu-img", "bitmap", "--remove", "-f",
                             "qcow2",    path,     name,       NULL};
    const gchar *add[] = {"qemu-img", "bitmap", "--add", "-g", size,
                          "-f",       "qcow2",  path,    name, NULL};

    return (!present || virCheckpointProcessRun(remove, NULL, error)) &&
           virCheckpointProcessRun(add, NULL, error);
}

/* Something of the newest segment records on S while O is written into it. */
static gboolean
virCheckpointMirrorPrepareTracking(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GPtrArray) records = virCheckpointStoreList(step->store, error);
    const virCheckpointRecord *newest;
    const virCheckpointSegment *segment;
    const gchar *name;
    gboolean present;
    gboolean good;

    if (!records)
        return FALSE;
    newest = virCheckpointTreeNewest(records, mirror->target);
    segment = newest ? virCheckpointRecordSegment(newest, mirror->target) : NULL;
    if (!segment || segment->bitmaps->len == 0 ||
        g_strcmp0(segment->born, mirror->overlayPath) != 0)
        return TRUE;
    name = g_ptr_array_index(segment->bitmaps, segment->bitmaps->len - 1);
    if (!virCheckpointMirrorFindBitmap(mirror->sourcePath, name, &present, &good,
                                       error))
        return FALSE;
    if (present && good)
        return TRUE;
    return virCheckpointMirrorRenewBitmap(mirror->sourcePath, name,
                                          segment->granularity, present, error) &&
           virCheckpointFaultPoint("mirror/offline-tracking", error);
}

static gboolean
virCheckpointMirrorCommitFiles(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    const gchar *argv[] = {"qemu-img",
                           "commit",
                           "-q",
                           "-d",
                           "-f",
                           "qcow2",
                           "-b",
                           mirror->sourcePath,
                           mirror->overlayPath,
                           NULL};

    if (virCheckpointMirrorPrepareTracking(step, error) &&
        virCheckpointProcessRun(argv, NULL, error) &&
        virCheckpointFileSync(mirror->sourcePath, error))
        return TRUE;
    g_prefix_error(error, "commit '%s': ", mirror->overlayPath);
    return FALSE;
}

/*
 * From here on no start finds O.  One past us that began before that runs on it:
 * libvirt shows the domain active as soon as a start has read the definition, so
 * whoever sees it off after changing that may remove O.  Whoever sees it active names O
 * again at once: should that guest end before anybody looks again, O is needed.
 */
static gboolean
virCheckpointMirrorLeaveOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;

    if (!step->view || virCheckpointMirrorIsDetached(step))
        return TRUE;
    if (!virCheckpointMirrorFixConfig(step, mirror->overlayPath, mirror->sourcePath,
                                      "qcow2", error) ||
        !virCheckpointDomainViewRefresh(step->view, error))
        return FALSE;
    if (!step->view->running)
        return TRUE;
    if (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                      "qcow2", error) ||
        !virCheckpointFaultPoint("mirror/started-past-us", error))
        return FALSE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "the domain was started while '%s' was committed", mirror->overlayPath);
    return FALSE;
}

/*
 * A QEMU that ended just before it left O: the definition gets O again, as for any
 * guest that ended on it, and the next start finds it until it is committed.  For the
 * instant between QEMU's leaving O and closing it this is the wrong way round; but who
 * has run on S for longer than that has written to it later.
 */
static gboolean
virCheckpointMirrorReturnToOverlay(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;

    if (!mirror->job->leaving)
        return TRUE;
    if (step->view && !virCheckpointMirrorIsDetached(step) &&
        g_file_test(mirror->overlayPath, G_FILE_TEST_EXISTS) &&
        !virCheckpointMirrorOverlayLeft(step) &&
        !virCheckpointMirrorWrittenLater(mirror->sourcePath, mirror->overlayPath,
                                         VIR_CHECKPOINT_MIRROR_LEAVING_SEC) &&
        (!virCheckpointMirrorFixConfig(step, mirror->sourcePath, mirror->overlayPath,
                                       "qcow2", error) ||
         !virCheckpointDomainViewRefresh(step->view, error)))
        return FALSE;
    mirror->job->leaving = FALSE;
    return virCheckpointMirrorSave(step, error) &&
           virCheckpointFaultPoint("mirror/returned", error);
}

virCheckpointMirrorResult
virCheckpointMirrorCommitOffline(const virCheckpointMirrorStep *step, GError **error)
{
    gboolean busy;

    if (!virCheckpointMirrorSweepDetached(step, &busy, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (busy)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (!virCheckpointFaultPoint("mirror/before-offline-commit", error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!virCheckpointMirrorReturnToOverlay(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (step->view && step->view->running)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (virCheckpointMirrorOverlayNeeded(step) &&
        !virCheckpointMirrorCommitFiles(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (!virCheckpointFaultPoint("mirror/after-offline-commit", error) ||
        !virCheckpointMirrorLeaveOverlay(step, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    return virCheckpointMirrorMove(step, VIR_CHECKPOINT_JOB_CLEANING, error)
               ? VIR_CHECKPOINT_MIRROR_MOVED
               : VIR_CHECKPOINT_MIRROR_RETRY;
}
