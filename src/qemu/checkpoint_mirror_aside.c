/*
 * checkpoint_mirror_aside.c: the bulk pass in a storage daemon of the job's
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a target that is no file or block device of this host (NBD, with or without
 * TLS), or that is encrypted, or whose descriptor QEMU may not have, is written to by a
 * qemu-storage-daemon of the job's own.  Below the overlay S is frozen, so another
 * process may read it; the guest's QEMU never meets the target in this pass.  A server
 * that is stuck while QEMU connects to it, or while anything drains, stops QEMU's main
 * loop and with it the guest (seen); a backup by libvirt would be copy-before-write on
 * the guest's live disk on top of that.
 *
 * The set of what is to be copied is made in the guest's QEMU, like that of any other
 * target, and kept beside the records as a sidecar ("ID.work").  So a successor of a
 * daemon that died begins the pass again: S is as it was.
 *
 * What the job wrote counts only once it was flushed, and no command of the storage
 * daemon's flushes and says how that went, except a mirror: one from an empty node
 * copies nothing and is READY when its target was flushed.
 *
 * The daemon ends with the pass: the target must be free for libvirt's own copy, the
 * source for the commit.  One that waits for its server is killed.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_dest.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"
#include "checkpoint_offline.h"
#include "checkpoint_storage_argv.h"

/** The target's number among the daemon's disks: no domain has as many. */
#define VIR_CHECKPOINT_ASIDE_NUMBER 100000
/** Of all names of ours. */
#define VIR_CHECKPOINT_ASIDE_BITMAPS "virtcheckpoint"
#define VIR_CHECKPOINT_ASIDE_EMPTY "virtcheckpoint-empty"

virCheckpointMonitor *
virCheckpointMirrorBulkMonitor(const virCheckpointMirrorStep *step)
{
    const virCheckpointMirror *mirror = step->mirror;

    return mirror->job->aside && !mirror->offline ? mirror->daemon
                                                  : step->view->monitor;
}

static gchar *
virCheckpointMirrorWorkName(const virCheckpointJobRecord *job)
{
    return g_strconcat(job->id, ".work", NULL);
}

/* What is to be copied now. */
static gchar *
virCheckpointMirrorLoadName(const virCheckpointJobRecord *job)
{
    return job->offlineLeft ? g_strconcat(job->id, VIR_CHECKPOINT_MIRROR_LEFT, NULL)
                            : virCheckpointMirrorWorkName(job);
}

gboolean
virCheckpointMirrorAsideKeep(const virCheckpointMirrorStep *step,
                             const gchar *node,
                             GError **error)
{
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(step->mirror);
    g_autofree gchar *file = virCheckpointMirrorWorkName(step->mirror->job);
    g_autoptr(virCheckpointGraph) graph =
        virCheckpointGraphQuery(step->view->monitor, error);
    g_autoptr(GArray) sources =
        g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    virCheckpointBitmapRef ref = {.node = node, .name = bitmap};
    const virCheckpointBitmapInfo *info = NULL;
    const virCheckpointNode *found;

    if (step->mirror->job->full)
        return TRUE;
    if (!graph)
        return FALSE;
    if ((found = virCheckpointGraphNode(graph, node)))
        info = virCheckpointNodeBitmap(found, bitmap);
    if (!info) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "bitmap '%s' is not on node '%s'", bitmap, node);
        return FALSE;
    }
    g_array_append_val(sources, ref);
    return virCheckpointSidecarWrite(step->store, step->view->monitor, found->sizeBytes,
                                     info->granularity, sources, file, error) &&
           virCheckpointFaultPoint("aside/kept", error);
}

static gboolean
virCheckpointMirrorAsideRemove(const virCheckpointMirrorStep *step,
                               const gchar *file,
                               GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(step->store, file, error);

    return path && virCheckpointFileRemove(path, error);
}

gboolean
virCheckpointMirrorAsideForget(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autofree gchar *file = virCheckpointMirrorWorkName(job);
    g_autofree gchar *left = g_strconcat(job->id, VIR_CHECKPOINT_MIRROR_LEFT, NULL);

    /* Whatever the record says: they are written before it does. */
    return virCheckpointMirrorAsideRemove(step, file, error) &&
           virCheckpointMirrorAsideRemove(step, left, error);
}

/* The target as the daemon opens it. */
static virCheckpointStorageDisk *
virCheckpointMirrorAsideTarget(const gchar *destXml,
                               const gchar *format,
                               GError **error)
{
    g_autofree gchar *xml = virCheckpointMirrorCopyXml(destXml, format, error);
    virCheckpointStorageDisk *target;

    if (!xml)
        return NULL;
    target =
        virCheckpointStorageTarget(xml, format, VIR_CHECKPOINT_ASIDE_NUMBER, error);
    if (!target)
        g_prefix_error(error, "destination: ");
    return target;
}

/* S with what is below it, then T. */
static GPtrArray *
virCheckpointMirrorAsideDisks(const virCheckpointMirrorStep *step, GError **error)
{
    const virCheckpointJobRecord *job = step->mirror->job;
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    g_autoptr(GPtrArray) disks = NULL;
    virCheckpointStorageDisk *target;

    g_ptr_array_add(targets, job->target);
    if (!(disks = virCheckpointStorageDisks(step->view->xml, targets, error)))
        return NULL;
    if (disks->len != 1 ||
        !virCheckpointStorageCutAbove(g_ptr_array_index(disks, 0), job->sourcePath)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "disk '%s' left its image '%s'", job->target, job->sourcePath);
        return NULL;
    }
    if (!(target =
              virCheckpointMirrorAsideTarget(job->destXml, job->destFormat, error)))
        return NULL;
    g_ptr_array_add(disks, target);
    return g_steal_pointer(&disks);
}

gboolean
virCheckpointMirrorAsideLoad(const virCheckpointMirrorStep *step,
                             virCheckpointMonitor *monitor,
                             const gchar *node,
                             GError **error)
{
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(step->mirror);
    g_autofree gchar *file = virCheckpointMirrorLoadName(step->mirror->job);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    g_autoptr(GPtrArray) sidecars = g_ptr_array_new();
    g_autofree gchar *path = NULL;
    virCheckpointSidecarInfo info;

    if (step->mirror->job->full) {
        step->mirror->job->workBytes = step->mirror->job->sizeBytes;
        return TRUE;
    }
    path = virCheckpointStoreDomainPath(step->store, file, error);
    if (!path || !virCheckpointSidecarRead(path, &info, error))
        return FALSE;
    step->mirror->job->workBytes = info.countBytes;
    g_ptr_array_add(sidecars, file);
    virCheckpointTxnAdd(txn, node, bitmap, info.granularity, 0);
    return virCheckpointTxnRun(txn, monitor, error) &&
           virCheckpointSidecarLoad(step->store, monitor, sidecars, node, bitmap,
                                    error);
}

/* A stale bitmap of ours on the target would switch tracking off at the pivot. */
static gboolean
virCheckpointMirrorAsideClean(virCheckpointMonitor *monitor,
                              const gchar *node,
                              GError **error)
{
    g_autoptr(virCheckpointGraph) graph = virCheckpointGraphQuery(monitor, error);
    const virCheckpointNode *target;
    guint i;

    if (!graph || !(target = virCheckpointGraphNode(graph, node)))
        return FALSE;
    for (i = 0; i < target->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(target->bitmaps, i);

        if (g_str_has_prefix(info->name, VIR_CHECKPOINT_ASIDE_BITMAPS) &&
            !virCheckpointMonitorDo(
                monitor, "block-dirty-bitmap-remove",
                virCheckpointJsonBuild("s:node", node, "s:name", info->name, NULL),
                error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointMirrorAsideBegin(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    g_autoptr(GPtrArray) disks = virCheckpointMirrorAsideDisks(step, error);
    g_autoptr(GArray) inherited = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    const virCheckpointStorageDisk *source;
    const virCheckpointStorageDisk *target;

    if (!disks || !virCheckpointMirrorSave(step, error) ||
        !virCheckpointFaultPoint("aside/before-daemon", error))
        return FALSE;
    monitor = virCheckpointOfflineOpenDisks(virDomainGetConnect(step->view->domain),
                                            disks, FALSE, inherited, error);
    if (!monitor)
        return FALSE;
    source = g_ptr_array_index(disks, 0);
    target = g_ptr_array_index(disks, 1);
    if (!virCheckpointMirrorAsideClean(monitor, target->node, error) ||
        !virCheckpointMirrorAsideLoad(step, monitor, source->node, error) ||
        !virCheckpointFaultPoint("mirror/before-bulk", error) ||
        !virCheckpointMirrorBulkStart(mirror, monitor, source->node, target->node,
                                      error))
        return FALSE;
    mirror->job->asideBegun = TRUE;
    if (!virCheckpointMirrorSave(step, error))
        return FALSE;
    g_mutex_lock(&mirror->daemonLock);
    virCheckpointMonitorFree(mirror->daemon);
    mirror->daemon = g_steal_pointer(&monitor);
    g_mutex_unlock(&mirror->daemonLock);
    mirror->begun = TRUE;
    virCheckpointMirrorSetBulkBytes(mirror, mirror->job->workBytes);
    virCheckpointMirrorSetProgress(mirror, 0, mirror->job->workBytes);
    g_info("domain %s, disk '%s': copying to '%s' in a storage daemon", mirror->uuid,
           mirror->target, mirror->destPath);
    return virCheckpointFaultPoint("mirror/bulk-begun", error);
}

gboolean
virCheckpointMirrorAsideMayBegin(const virCheckpointMirror *mirror)
{
    return mirror->job->aside && mirror->job->asideBegun && !mirror->offline &&
           !mirror->daemon;
}

virCheckpointMirrorResult
virCheckpointMirrorAsideFlush(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMonitor *monitor = virCheckpointMirrorBulkMonitor(step);
    g_autofree gchar *name = virCheckpointMirrorJobName(step->mirror);
    g_autofree gchar *flush = g_strconcat(name, "-flush", NULL);
    g_autofree gchar *node =
        g_strdup_printf("disk%d-0-format", VIR_CHECKPOINT_ASIDE_NUMBER);
    g_auto(virCheckpointMirrorBulk) job = {0};

    if (!virCheckpointMirrorBulkQuery(monitor, flush, &job, error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    if (job.ready)
        return VIR_CHECKPOINT_MIRROR_MOVED;
    if (job.concluded) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "sync destination '%s': %s", step->mirror->destPath,
                    job.error ? job.error : "the job ended");
        return VIR_CHECKPOINT_MIRROR_RETRY;
    }
    if (job.present)
        return VIR_CHECKPOINT_MIRROR_WAIT;
    if (!virCheckpointFaultPoint("mirror/target-sync", error) ||
        !virCheckpointMonitorDo(
            monitor, "blockdev-add",
            virCheckpointJsonBuild(
                "s:driver", "null-co", "s:node-name", VIR_CHECKPOINT_ASIDE_EMPTY,
                "u:size", step->mirror->job->sizeBytes, "b:read-zeroes", TRUE, NULL),
            error) ||
        !virCheckpointMonitorDo(
            monitor, "blockdev-mirror",
            virCheckpointJsonBuild("s:job-id", flush, "s:device",
                                   VIR_CHECKPOINT_ASIDE_EMPTY, "s:target", node,
                                   "s:sync", "none", "b:auto-dismiss", FALSE, NULL),
            error))
        return VIR_CHECKPOINT_MIRROR_RETRY;
    return VIR_CHECKPOINT_MIRROR_WAIT;
}

/* What a daemon that has only the target open shows of it. */
static gboolean
virCheckpointMirrorAsideCheck(virCheckpointMonitor *monitor,
                              const gchar *node,
                              const virCheckpointJobRecord *job,
                              GError **error)
{
    g_autoptr(virCheckpointJson) nodes =
        virCheckpointMonitorRun(monitor, "query-named-block-nodes",
                                virCheckpointJsonBuild("b:flat", TRUE, NULL), error);
    guint64 sizeBytes = 0;
    gsize i;

    if (!nodes)
        return FALSE;
    for (i = 0; i < virCheckpointJsonLength(nodes); i++) {
        const virCheckpointJson *entry = virCheckpointJsonIndex(nodes, i);
        const virCheckpointJson *image = virCheckpointJsonGet(entry, "image");
        const gchar *below = virCheckpointJsonGetString(image, "backing-filename");

        if (g_strcmp0(virCheckpointJsonGetString(entry, "node-name"), node) != 0)
            continue;
        virCheckpointJsonGetUint64(image, "virtual-size", &sizeBytes);
        if (below) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                        "destination '%s' is not complete in itself: it refers to '%s'",
                        job->destPath, below);
            return FALSE;
        }
    }
    if (sizeBytes == job->sizeBytes)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                "destination '%s' has a size of %" G_GUINT64_FORMAT
                " bytes, disk '%s' one of %" G_GUINT64_FORMAT " bytes",
                job->destPath, sizeBytes, job->target, job->sizeBytes);
    return FALSE;
}

gboolean
virCheckpointMirrorAsideJudge(virConnectPtr conn,
                              const virCheckpointJobRecord *job,
                              GError **error)
{
    g_autoptr(GPtrArray) disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointStorageDiskFree);
    g_autoptr(GArray) inherited = g_array_new(FALSE, FALSE, sizeof(int));
    g_autoptr(virCheckpointMonitor) monitor = NULL;
    g_autoptr(GError) failed = NULL;
    virCheckpointStorageDisk *target =
        virCheckpointMirrorAsideTarget(job->destXml, job->destFormat, error);

    if (!target)
        return FALSE;
    target->writable = FALSE;
    g_ptr_array_add(disks, target);
    monitor = virCheckpointOfflineOpenDisks(conn, disks, FALSE, inherited, &failed);
    if (!monitor) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, failed->code,
                    "destination '%s' for disk %s: %s", job->destPath, job->target,
                    failed->message);
        return FALSE;
    }
    return virCheckpointMirrorAsideCheck(monitor, target->node, job, error);
}
