/*
 * checkpoint_mirror_jobs.c: the jobs inside a mirror, and what they leave in QEMU
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the bulk pass is a blockdev-backup that libvirt does not know, below the
 * overlay, into nodes made from our descriptor; the overlay's copy and its commit are
 * libvirt's own jobs.  All names are made from the job's id, so that a daemon that
 * comes back finds what the last one made by asking QEMU.
 *
 * The bulk job is kept after its end (auto-dismiss off): how it ended is known until
 * the record says what follows.  What it wrote counts only once its nodes are deleted
 * (they may hold unwritten metadata; their deletion swallows errors) and an explicit
 * sync of the file succeeded.
 */

#include "config.h"

#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_mirror_request.h"
#include "checkpoint_mirror_target.h"
#include "checkpoint_mirrorpriv.h"

/* QEMU cuts node names off at 31 bytes. */
#define VIR_CHECKPOINT_NODE_ID_CHARS 7

gchar *
virCheckpointMirrorJobName(const virCheckpointMirror *mirror)
{
    return g_strconcat(VIR_CHECKPOINT_MIRROR_PREFIX, mirror->job->id, NULL);
}

gchar *
virCheckpointMirrorBitmapName(const virCheckpointMirror *mirror)
{
    return g_strconcat(VIR_CHECKPOINT_MIRROR_BITMAP, mirror->job->id, NULL);
}

gchar *
virCheckpointMirrorNodeName(const virCheckpointMirror *mirror, const gchar *part)
{
    return g_strdup_printf("%s%.*s-%s", VIR_CHECKPOINT_MIRROR_PREFIX,
                           VIR_CHECKPOINT_NODE_ID_CHARS, mirror->job->id, part);
}

void
virCheckpointMirrorBulkClear(virCheckpointMirrorBulk *bulk)
{
    g_clear_pointer(&bulk->error, g_free);
}

gboolean
virCheckpointMirrorBulkQuery(virCheckpointMonitor *monitor,
                             const gchar *name,
                             virCheckpointMirrorBulk *bulk,
                             GError **error)
{
    g_autoptr(virCheckpointJson) jobs =
        virCheckpointMonitorRun(monitor, "query-jobs", NULL, error);
    gsize i;

    if (!jobs)
        return FALSE;
    virCheckpointMirrorBulkClear(bulk);
    memset(bulk, 0, sizeof(*bulk));
    for (i = 0; i < virCheckpointJsonLength(jobs); i++) {
        const virCheckpointJson *job = virCheckpointJsonIndex(jobs, i);
        const gchar *status;

        if (g_strcmp0(virCheckpointJsonGetString(job, "id"), name) != 0)
            continue;
        bulk->present = TRUE;
        status = virCheckpointJsonGetString(job, "status");
        bulk->concluded = g_strcmp0(status, "concluded") == 0;
        bulk->ready = g_strcmp0(status, "ready") == 0;
        bulk->error = g_strdup(virCheckpointJsonGetString(job, "error"));
        virCheckpointJsonGetUint64(job, "current-progress", &bulk->curBytes);
        virCheckpointJsonGetUint64(job, "total-progress", &bulk->endBytes);
    }
    return TRUE;
}

gboolean
virCheckpointMirrorBulkStart(const virCheckpointMirror *mirror,
                             virCheckpointMonitor *monitor,
                             const gchar *source,
                             const gchar *target,
                             GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);
    g_autofree gchar *bitmap = virCheckpointMirrorBitmapName(mirror);
    gboolean full = mirror->job->full;
    virCheckpointJson *arguments = virCheckpointJsonBuild(
        "s:job-id", name, "s:device", source, "s:target", target, "s:sync",
        full ? "full" : "bitmap", "s:bitmap", full ? NULL : bitmap, "s:bitmap-mode",
        full ? NULL : "always", "b:auto-dismiss", FALSE, NULL);

    if (mirror->bandwidthBytes)
        virCheckpointJsonAddUint64(arguments, "speed", mirror->bandwidthBytes);
    return virCheckpointMonitorDo(monitor, "blockdev-backup", arguments, error);
}

gboolean
virCheckpointMirrorBulkSetSpeed(const virCheckpointMirror *mirror,
                                virCheckpointMonitor *monitor,
                                guint64 bandwidthBytes,
                                GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorJobName(mirror);

    return virCheckpointMonitorDo(
        monitor, "block-job-set-speed",
        virCheckpointJsonBuild("s:device", name, "u:speed", bandwidthBytes, NULL),
        error);
}

gboolean
virCheckpointMirrorAttach(const virCheckpointMirrorStep *step,
                          gboolean *refused,
                          GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    virCheckpointMonitor *monitor = step->view->monitor;
    g_autofree gchar *format = virCheckpointMirrorNodeName(mirror, "t");
    g_autofree gchar *file = virCheckpointMirrorNodeName(mirror, "f");
    g_autofree gchar *path = NULL;
    gboolean block = virCheckpointMirrorIsBlock(mirror->destPath);
    gboolean inherited = mirror->offline;
    virCheckpointJson *top;
    guint64 set = 0;

    mirror->swept = FALSE;
    *refused = TRUE;
    if (!inherited &&
        !virCheckpointMonitorAddFd(monitor, mirror->targetFd, &set, error))
        return FALSE;
    path = inherited ? g_strdup_printf("/dev/fd/%d", mirror->targetFd)
                     : g_strdup_printf("/dev/fdset/%" G_GUINT64_FORMAT, set);
    if (!virCheckpointFaultPoint("mirror/target-fd", error) ||
        !virCheckpointMonitorDo(
            monitor, "blockdev-add",
            virCheckpointJsonBuild("s:driver", block ? "host_device" : "file",
                                   "s:node-name", file, "s:filename", path, "s:discard",
                                   "unmap", NULL),
            error)) {
        if (!inherited)
            virCheckpointMonitorRemoveFd(monitor, set, NULL);
        return FALSE;
    }
    *refused = FALSE;
    if (!virCheckpointFaultPoint("mirror/target-file", error))
        return FALSE;
    top = virCheckpointJsonBuild("s:driver", mirror->job->destFormat, "s:node-name",
                                 format, "s:file", file, "s:discard", "unmap", NULL);
    /* The copy of a disk to a larger device: a backup wants equal sizes. */
    if (block && g_str_equal(mirror->job->destFormat, "raw"))
        virCheckpointJsonAddUint64(top, "size", mirror->job->sizeBytes);
    return virCheckpointMonitorDo(monitor, "blockdev-add", top, error);
}

static gboolean
virCheckpointMirrorDeleteNode(virCheckpointMonitor *monitor,
                              const virCheckpointGraph *graph,
                              const gchar *name,
                              GError **error)
{
    if (!virCheckpointGraphNode(graph, name))
        return TRUE;
    return virCheckpointMonitorDo(monitor, "blockdev-del",
                                  virCheckpointJsonBuild("s:node-name", name, NULL),
                                  error);
}

/* The set's number stands in the name of the file that the node opened. */
static gboolean
virCheckpointMirrorDeleteTarget(const virCheckpointMirrorStep *step,
                                const virCheckpointGraph *graph,
                                GError **error)
{
    virCheckpointMonitor *monitor = step->view->monitor;
    g_autofree gchar *format = virCheckpointMirrorNodeName(step->mirror, "t");
    g_autofree gchar *file = virCheckpointMirrorNodeName(step->mirror, "f");

    return virCheckpointMirrorDeleteNode(monitor, graph, format, error) &&
           virCheckpointFaultPoint("mirror/target-closed", error) &&
           virCheckpointMirrorDeleteNode(monitor, graph, file, error) &&
           virCheckpointMonitorSweepFds(monitor, error);
}

gboolean
virCheckpointMirrorDetach(const virCheckpointMirrorStep *step, GError **error)
{
    virCheckpointMirror *mirror = step->mirror;
    /* QEMU flushes as it closes its nodes and keeps to itself how that went; a
     * descriptor that it shares would be told that all is well afterwards. */
    VIR_CHECKPOINT_AUTOFD int fd =
        virCheckpointMirrorTargetReopen(mirror->targetFd, mirror->destPath, error);
    g_autoptr(virCheckpointGraph) graph = NULL;

    if (fd < 0 || !(graph = virCheckpointGraphQueryNodes(step->view->monitor, error)) ||
        !virCheckpointMirrorDeleteTarget(step, graph, error) ||
        !virCheckpointFaultPoint("mirror/target-sync", error))
        return FALSE;
    return virCheckpointMirrorTargetSync(fd, mirror->destPath, error);
}

/* The work bitmap is transient and the only one of its name. */
static gboolean
virCheckpointMirrorDeleteBitmap(const virCheckpointMirrorStep *step,
                                const virCheckpointGraph *graph,
                                GError **error)
{
    g_autofree gchar *name = virCheckpointMirrorBitmapName(step->mirror);
    const GPtrArray *nodes = virCheckpointGraphNodes(graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (virCheckpointNodeBitmap(node, name) &&
            !virCheckpointMonitorDo(
                step->view->monitor, "block-dirty-bitmap-remove",
                virCheckpointJsonBuild("s:node", node->name, "s:name", name, NULL),
                error))
            return FALSE;
    }
    return TRUE;
}

gboolean
virCheckpointMirrorDeleteWork(const virCheckpointMirrorStep *step, GError **error)
{
    g_autoptr(virCheckpointGraph) graph =
        virCheckpointGraphQueryNodes(step->view->monitor, error);

    return graph && virCheckpointMirrorDeleteBitmap(step, graph, error);
}

/* *busy: it was told to end and has not yet. */
static gboolean
virCheckpointMirrorEndBulk(const virCheckpointMirrorStep *step,
                           gboolean *busy,
                           GError **error)
{
    virCheckpointMonitor *monitor = step->view->monitor;
    g_autofree gchar *name = virCheckpointMirrorJobName(step->mirror);
    g_auto(virCheckpointMirrorBulk) bulk = {0};

    *busy = FALSE;
    if (!virCheckpointMirrorBulkQuery(monitor, name, &bulk, error))
        return FALSE;
    if (!bulk.present)
        return TRUE;
    if (bulk.concluded)
        return virCheckpointMonitorDo(
            monitor, "job-dismiss", virCheckpointJsonBuild("s:id", name, NULL), error);
    *busy = TRUE;
    if (step->mirror->cancelSent)
        return TRUE;
    step->mirror->cancelSent = TRUE;
    return virCheckpointMonitorDo(monitor, "job-cancel",
                                  virCheckpointJsonBuild("s:id", name, NULL), error);
}

gboolean
virCheckpointMirrorSweep(const virCheckpointMirrorStep *step,
                         gboolean *busy,
                         GError **error)
{
    g_autoptr(virCheckpointGraph) graph = NULL;

    if (!virCheckpointMirrorEndBulk(step, busy, error))
        return FALSE;
    if (*busy)
        return TRUE;
    if (!virCheckpointFaultPoint("mirror/job-dismissed", error) ||
        !(graph = virCheckpointGraphQueryNodes(step->view->monitor, error)) ||
        !virCheckpointMirrorDeleteTarget(step, graph, error) ||
        !virCheckpointMirrorDeleteBitmap(step, graph, error))
        return FALSE;
    if (step->mirror->targetFd >= 0)
        close(step->mirror->targetFd);
    step->mirror->targetFd = -1;
    if (!virCheckpointFaultPoint("mirror/swept", error))
        return FALSE;
    step->mirror->swept = TRUE;
    return TRUE;
}

static const gchar *
virCheckpointMirrorInnerJob(gint type)
{
    return type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY ? "copy" : "active-commit";
}

gboolean
virCheckpointMirrorInnerQuery(virCheckpointMirror *mirror,
                              virDomainPtr domain,
                              virCheckpointMirrorInner *inner,
                              GError **error)
{
    g_autofree gchar *xml = NULL;
    virDomainBlockJobInfo info = {0};
    gint found;

    memset(inner, 0, sizeof(*inner));
    found = virDomainGetBlockJobInfo(domain, mirror->target, &info, 0);
    if (found < 0)
        return virCheckpointDomainSetError(error);
    if (found == 0)
        return TRUE;
    inner->type = info.type;
    inner->curBytes = info.cur;
    inner->endBytes = info.end;
    if (info.type != VIR_DOMAIN_BLOCK_JOB_TYPE_COPY &&
        info.type != VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT)
        return TRUE;
    if (!(xml = virDomainGetXMLDesc(domain, 0)))
        return virCheckpointDomainSetError(error);
    inner->ready = virCheckpointMirrorXmlReady(xml, mirror->target,
                                               virCheckpointMirrorInnerJob(info.type));
    return TRUE;
}

void
virCheckpointMirrorWhereClear(virCheckpointMirrorWhere *where)
{
    g_clear_pointer(&where->graph, virCheckpointGraphFree);
    g_clear_pointer(&where->known, g_free);
}

static gboolean
virCheckpointMirrorLookBy(const virCheckpointMirrorStep *step,
                          virCheckpointMirrorWhere *where,
                          gboolean all,
                          GError **error)
{
    const virCheckpointMirror *mirror = step->mirror;
    virCheckpointMonitor *monitor;
    const virCheckpointDisk *disk;

    virCheckpointMirrorWhereClear(where);
    memset(where, 0, sizeof(*where));
    if (!virCheckpointDomainViewRefresh(step->view, error))
        return FALSE;
    disk = virCheckpointDomainFindDisk(step->view->disks, mirror->target);
    if (!step->view->running || !disk || !disk->alias) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' of domain '%s' is gone", mirror->target,
                    step->view->name);
        return FALSE;
    }
    monitor = step->view->monitor;
    where->graph = all ? virCheckpointGraphQuery(monitor, error)
                       : virCheckpointGraphQueryDisks(monitor, error);
    if (!where->graph)
        return FALSE;
    where->top = virCheckpointGraphTop(where->graph, disk->alias);
    if (!where->top) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                    "disk '%s' of domain '%s' has no medium", mirror->target,
                    step->view->name);
        return FALSE;
    }
    where->known = virCheckpointMirrorXmlSource(step->view->xml, mirror->target);
    where->overlay =
        virCheckpointGraphLayer(where->graph, where->top, mirror->overlayPath);
    where->source =
        virCheckpointGraphLayer(where->graph, where->top, mirror->sourcePath);
    if (virCheckpointGraphLayer(where->graph, where->top, mirror->destPath) ==
        where->top)
        where->dest = where->top;
    /* QEMU may show an address in its own words; but only a pivot leads away from S. */
    if (mirror->job->aside && !where->overlay && !where->source)
        where->dest = where->top;
    return TRUE;
}

gboolean
virCheckpointMirrorLook(const virCheckpointMirrorStep *step,
                        virCheckpointMirrorWhere *where,
                        GError **error)
{
    return virCheckpointMirrorLookBy(step, where, FALSE, error);
}

gboolean
virCheckpointMirrorLookAtAll(const virCheckpointMirrorStep *step,
                             virCheckpointMirrorWhere *where,
                             GError **error)
{
    return virCheckpointMirrorLookBy(step, where, TRUE, error);
}

gboolean
virCheckpointMirrorIsDefinedOn(const virCheckpointMirror *mirror,
                               const virCheckpointDomainView *view,
                               const gchar *path)
{
    g_autofree gchar *found = virCheckpointMirrorXmlSource(view->xml, mirror->target);

    return g_strcmp0(found, path) == 0;
}

GPtrArray *
virCheckpointMirrorDisks(const virCheckpointDomainView *view)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(view->disks, i);

        g_ptr_array_add(targets, g_strdup(disk->target));
    }
    return targets;
}
