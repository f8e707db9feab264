/*
 * checkpoint_mirror_validate.c: everything that is refused before anything is begun
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: validation reads and changes nothing, so that a refused call leaves the host
 * as it was.  It runs inside the domain's slot, and the job's first step follows in the
 * same slot: what was found stays true as far as clients of ours are concerned.  What
 * can change past us (the target's locks, block jobs of libvirt's) is judged once more
 * by QEMU and libvirt when the steps are taken.
 *
 * What comes out is the whole plan as plain data: the job's record.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_foreign.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_resume.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_segmentspriv.h"

static gboolean
virCheckpointMirrorCheckDisk(const virCheckpointDisk *disk, GError **error)
{
    if (disk->empty || !disk->source) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' has no source file to be mirrored", disk->target);
        return FALSE;
    }
    if (disk->readOnly || disk->cdromOrFloppy) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' is read-only", disk->target);
        return FALSE;
    }
    if (g_strcmp0(disk->format, "qcow2") != 0 ||
        (g_strcmp0(disk->type, "file") != 0 && g_strcmp0(disk->type, "block") != 0)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "disk '%s' is not a qcow2 file: an incremental copy needs one, or a"
                    " block device with qcow2",
                    disk->target);
        return FALSE;
    }
    return TRUE;
}

/* An overlay of a block device would be put beside it, into /dev. */
static gboolean
virCheckpointMirrorCheckOverlay(virCheckpointOperation *operation,
                                const virCheckpointDisk *disk,
                                GError **error)
{
    if (!operation->view->running || operation->engine->overlayDir ||
        !virCheckpointMirrorIsBlock(disk->source))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                "disk '%s' is on the block device '%s': the daemon has to be told by"
                " --overlay-dir where writes made during a copy are kept",
                disk->target, disk->source);
    return FALSE;
}

/* Jobs of ours, of libvirt's, and backups, which hold the disk as well. */
static gboolean
virCheckpointMirrorCheckIdle(virCheckpointOperation *operation,
                             const virCheckpointDisk *disk,
                             GError **error)
{
    g_autoptr(virCheckpointMirror) other = NULL;
    virDomainBlockJobInfo info;
    gint found;

    other =
        virCheckpointMirrorFind(operation->engine, operation->view->uuid, disk->target);
    if (other && virCheckpointMirrorIsConcluded(other)) {
        virCheckpointMirrorAwaitGone(other);
        g_clear_pointer(&other, virCheckpointMirrorUnref);
    }
    found = operation->view->running ? virDomainGetBlockJobInfo(operation->view->domain,
                                                                disk->target, &info, 0)
                                     : 0;
    if (found < 0)
        return virCheckpointDomainSetError(error);
    if (!other && !disk->mirrored && found == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_BLOCK_COPY_ACTIVE,
                "disk '%s' already in active block job", disk->target);
    return FALSE;
}

/* The base checkpoint of ours, if the chain of segments from it to now is whole. */
static const virCheckpointRecord *
virCheckpointMirrorCheckBase(virCheckpointSegments *segments,
                             const gchar *name,
                             const gchar *target,
                             GError **error)
{
    const virCheckpointRecord *record =
        virCheckpointTreeByName(segments->records, name);
    g_autoptr(GPtrArray) chain = NULL;
    guint i;

    if (!record || record->state != VIR_CHECKPOINT_RECORD_READY) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    "no domain checkpoint with matching name '%s'", name);
        return NULL;
    }
    if (!virCheckpointRecordSegment(record, target)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                    "checkpoint '%s' does not cover disk '%s'", name, target);
        return NULL;
    }
    chain = virCheckpointTreeChain(segments->records, record, target);
    for (i = 0; i < chain->len; i++) {
        const virCheckpointRecord *part = g_ptr_array_index(chain, i);

        if (!virCheckpointRecordSegment(part, target)->lost)
            continue;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                    "changes of disk '%s' of domain '%s' since checkpoint '%s' are not"
                    " completely known (lost in '%s'): " VIR_CHECKPOINT_REMEDY,
                    target, segments->view->name, name, part->def->name,
                    segments->view->name, target);
        return NULL;
    }
    return record;
}

/* Where the copy begins: @base is a checkpoint of ours, or NULL for one of libvirt's
 * own, and for a full copy (@name NULL). */
static gboolean
virCheckpointMirrorFindBase(virCheckpointSegments *segments,
                            const gchar *name,
                            const gchar *target,
                            const virCheckpointRecord **base,
                            GError **error)
{
    g_autofree gchar *bitmap = NULL;

    *base = NULL;
    if (!name)
        return TRUE;
    if (virCheckpointTreeByName(segments->records, name)) {
        *base = virCheckpointMirrorCheckBase(segments, name, target, error);
        return *base != NULL;
    }
    bitmap = virCheckpointForeignBitmap(segments, name, target, error);
    return bitmap != NULL;
}

static gboolean
virCheckpointMirrorCheckName(virCheckpointSegments *segments,
                             const gchar *name,
                             GError **error)
{
    virDomainCheckpointPtr other;

    if (!name)
        return TRUE;
    other = virDomainCheckpointLookupByName(segments->view->domain, name, 0);
    if (!other && !virCheckpointTreeByName(segments->records, name))
        return TRUE;
    if (other)
        virDomainCheckpointFree(other);
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                "domain checkpoint %s already exists", name);
    return FALSE;
}

/* Every file that the domain has open: the target must be none of them. */
static GPtrArray *
virCheckpointMirrorImages(virCheckpointSegments *segments)
{
    GPtrArray *images = g_ptr_array_new_with_free_func(g_free);
    const GPtrArray *nodes = virCheckpointGraphNodes(segments->graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (node->file && g_path_is_absolute(node->file))
            g_ptr_array_add(images, g_strdup(node->file));
    }
    for (i = 0; i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);

        if (disk->source)
            g_ptr_array_add(images, g_strdup(disk->source));
    }
    return images;
}

/* A target that is opened by a storage daemon: it exists, and its format is said. */
static gboolean
virCheckpointMirrorCheckAside(virCheckpointSegments *segments,
                              const virCheckpointMirrorRequest *request,
                              const virCheckpointMirrorDest *dest,
                              virCheckpointJobRecord *job,
                              GError **error)
{
    g_autoptr(GPtrArray) images = virCheckpointMirrorImages(segments);

    if (!(request->flags & VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "destination '%s' is on the network or encrypted: it has to exist,"
                    " and flag VIR_DOMAIN_BLOCK_COPY_REUSE_EXT to be given",
                    dest->path);
        return FALSE;
    }
    if (dest->local && !virCheckpointMirrorTargetMayUse(dest->path, images, error))
        return FALSE;
    job->aside = TRUE;
    job->destFormat = g_strdup(dest->format ? dest->format : "raw");
    return virCheckpointMirrorAsideJudge(virDomainGetConnect(segments->view->domain),
                                         job, error);
}

static gboolean
virCheckpointMirrorCheckTarget(virCheckpointSegments *segments,
                               const virCheckpointMirrorRequest *request,
                               virCheckpointJobRecord *job,
                               int *targetFd,
                               GError **error)
{
    g_autoptr(virCheckpointMirrorDest) dest =
        virCheckpointMirrorDestParse(request->destXml, error);
    g_autoptr(GPtrArray) images = NULL;
    virCheckpointMirrorTargetNeeds needs = {0};
    gboolean block;

    if (!dest)
        return FALSE;
    job->destPath = g_strdup(dest->path);
    /* As stock: a block device is never made, only used. */
    block = virCheckpointMirrorIsBlock(dest->path);
    if (block) {
        g_free(job->destXml);
        if (!(job->destXml = virCheckpointMirrorDestAsBlock(request->destXml, error)))
            return FALSE;
    }
    if (dest->aside)
        return virCheckpointMirrorCheckAside(segments, request, dest, job, error);
    job->destCreated = !block && !(request->flags & VIR_DOMAIN_BLOCK_COPY_REUSE_EXT);
    if (job->destCreated) {
        job->destFormat = g_strdup(dest->format ? dest->format : "qcow2");
        return virCheckpointMirrorTargetMayCreate(dest->path, job->target, error);
    }
    images = virCheckpointMirrorImages(segments);
    needs.disk = job->target;
    needs.format = dest->format;
    needs.sizeBytes = job->sizeBytes;
    needs.images = images;
    /* QEMU's mirror, unlike a backup into a node of ours, takes equal sizes only. */
    needs.mayBeLarger = job->finish;
    *targetFd =
        virCheckpointMirrorTargetOpen(dest->path, &needs, &job->destFormat, error);
    return *targetFd >= 0;
}

/* A caller that will pivot hears now that it could not.  There is a checkpoint by then:
 * the base, or the one that the job makes. */
static gboolean
virCheckpointMirrorCheckPivot(const virCheckpointJobRecord *job,
                              int targetFd,
                              GError **error)
{
    gboolean keeps = g_str_equal(job->destFormat, "qcow2");

    if (job->endCheckpoints)
        return TRUE;
    if (targetFd >= 0 && !virCheckpointMirrorTargetKeepsBitmaps(
                             job->destPath, job->destFormat, &keeps, error))
        return FALSE;
    if (keeps)
        return TRUE;
    virCheckpointMirrorSetEndsCheckpoints(job, error);
    return FALSE;
}

static virCheckpointJobRecord *
virCheckpointMirrorNewRecord(virCheckpointOperation *operation,
                             const virCheckpointMirrorRequest *request,
                             const virCheckpointDisk *disk,
                             const virCheckpointRecord *base)
{
    virCheckpointJobRecord *job = virCheckpointJobRecordNew();

    if (!job->id)
        job->id = virCheckpointRecordNewId();
    job->state = VIR_CHECKPOINT_JOB_PREPARING;
    job->target = g_strdup(disk->target);
    job->finish = request->finish;
    job->verify = request->verify;
    job->endCheckpoints = request->endCheckpoints;
    job->full = request->bitmap == NULL;
    job->sinceId = base ? g_strdup(base->id) : NULL;
    job->since = g_strdup(request->bitmap);
    job->checkpoint = g_strdup(request->checkpoint);
    job->sourcePath = g_strdup(disk->source);
    job->overlayPath = virCheckpointMirrorOverlayPath(
        disk->source, operation->engine->overlayDir, job->id);
    job->destXml = g_strdup(request->destXml);
    job->flags = request->flags;
    job->bandwidthBytes = request->bandwidthBytes;
    job->granularity = request->granularity;
    job->bufSize = request->bufSize;
    job->startedUsec = g_get_real_time();
    return job;
}

/* The part that asks QEMU: the disk's node, and the records against it. */
static virCheckpointJobRecord *
virCheckpointMirrorPlan(virCheckpointOperation *operation,
                        const virCheckpointMirrorRequest *request,
                        const virCheckpointDisk *disk,
                        int *targetFd,
                        GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNewBrief(operation->store, operation->view, error);
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    g_autoptr(virCheckpointJobRecord) job = NULL;
    const virCheckpointRecord *base = NULL;
    const gchar *target = disk->target;
    const virCheckpointNode *top;

    g_ptr_array_add(targets, disk->target);
    if (!segments || !virCheckpointSegmentsOpen(segments, targets, error) ||
        (!operation->view->running && !virCheckpointSegmentsEnsure(segments, error)) ||
        !(top = virCheckpointSegmentsTop(segments, target, error)))
        return NULL;
    if (top->compatOld || g_strcmp0(top->driver, "qcow2") != 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "disk '%s' is not qcow2 version 3 (compat 1.1): no bitmap can be"
                    " kept in it",
                    disk->target);
        return NULL;
    }
    if (!virCheckpointMirrorFindBase(segments, request->bitmap, disk->target, &base,
                                     error))
        return NULL;
    if (!virCheckpointMirrorCheckName(segments, request->checkpoint, error))
        return NULL;
    job = virCheckpointMirrorNewRecord(operation, request, disk, base);
    job->sizeBytes = top->sizeBytes;
    if (!virCheckpointMirrorCheckTarget(segments, request, job, targetFd, error) ||
        !virCheckpointMirrorPlanNative(operation, job, error))
        return NULL;
    if (job->verify && job->aside) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "parameter 'verify' needs a destination that is a file or a block"
                    " device and not encrypted, unlike '%s'",
                    job->destPath);
        return NULL;
    }
    if (!virCheckpointMirrorCheckDelta(job, *targetFd,
                                       virCheckpointSegmentsGranularity(top), error))
        return NULL;
    if (request->pivot && !virCheckpointMirrorCheckPivot(job, *targetFd, error))
        return NULL;
    virCheckpointMirrorResumePlan(operation->store, job, *targetFd);
    return g_steal_pointer(&job);
}

virCheckpointJobRecord *
virCheckpointMirrorValidate(virCheckpointOperation *operation,
                            const virCheckpointMirrorRequest *request,
                            int *targetFd,
                            GError **error)
{
    const virCheckpointDisk *disk;

    if (!virCheckpointMirrorRequestCheck(request, error))
        return NULL;
    if (!operation->view->running && !request->finish) {
        g_set_error_literal(
            error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
            "domain is not running: only a copy with parameter 'finish' "
            "can be made of its disks");
        return NULL;
    }
    disk = virCheckpointDomainFindDisk(operation->view->disks, request->disk);
    if (!disk) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "disk '%s' not found in domain", request->disk);
        return NULL;
    }
    if (!virCheckpointMirrorCheckDisk(disk, error) ||
        !virCheckpointMirrorCheckOverlay(operation, disk, error) ||
        !virCheckpointMirrorCheckIdle(operation, disk, error))
        return NULL;
    return virCheckpointMirrorPlan(operation, request, disk, targetFd, error);
}
