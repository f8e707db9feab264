/*
 * checkpoint_recovery.c: finishing whatever an earlier operation left
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/recovery.md): every step of an operation is recorded before it
 * is taken, so the records tell what may have happened, and each thing that may have
 * happened can be done again.  Settling runs at daemon start, when a domain starts,
 * after the backend came back, and before an operation on a domain that is not known
 * settled.
 *
 * The order matters: helper nodes first, because they hold files; then creations,
 * because until they are decided it is unknown which bitmap ought to record; then
 * deletions, before anything is parked under a name that they still hand on; then jobs,
 * which may move a disk to another file; then the invariant, parking, and what nobody
 * names anymore.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_heirs.h"
#include "checkpoint_offline.h"
#include "checkpoint_quiesce.h"
#include "checkpoint_recoverytable.h"

static gboolean
virCheckpointRecoveryRun(virCheckpointMonitor *monitor,
                         const gchar *command,
                         virCheckpointJson *arguments)
{
    g_autoptr(GError) error = NULL;

    if (virCheckpointMonitorDo(monitor, command, arguments, &error))
        return TRUE;
    g_debug("left over: %s", error->message);
    return FALSE;
}

/* TRUE if a node of the graph is above @below, which QEMU deletes together with it. */
static gboolean
virCheckpointRecoveryIsBacking(const virCheckpointGraph *graph,
                               const virCheckpointNode *below)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        if (virCheckpointGraphBacking(graph, g_ptr_array_index(nodes, i)) == below)
            return TRUE;
    }
    return FALSE;
}

/* Nodes of sidecars, format nodes before the files below them, and transient bitmaps.
 */
static void
virCheckpointRecoverySweepNodes(virCheckpointSegments *segments)
{
    virCheckpointMonitor *monitor = segments->view->monitor;
    const GPtrArray *nodes = virCheckpointGraphNodes(segments->graph);
    guint pass;
    guint i;
    guint j;

    for (pass = 0; pass < 2; pass++) {
        for (i = 0; i < nodes->len; i++) {
            const virCheckpointNode *node = g_ptr_array_index(nodes, i);
            gboolean file = g_strcmp0(node->driver, "file") == 0;

            if (g_str_has_prefix(node->name, VIR_CHECKPOINT_HELPER_PREFIX) &&
                file == (pass == 1) &&
                !virCheckpointRecoveryIsBacking(segments->graph, node))
                virCheckpointRecoveryRun(
                    monitor, "blockdev-del",
                    virCheckpointJsonBuild("s:node-name", node->name, NULL));
        }
    }
    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        for (j = 0; j < node->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, j);

            if (g_str_has_prefix(info->name, VIR_CHECKPOINT_HELPER_BITMAP))
                virCheckpointRecoveryRun(monitor, "block-dirty-bitmap-remove",
                                         virCheckpointJsonBuild("s:node", node->name,
                                                                "s:name", info->name,
                                                                NULL));
        }
    }
}

/* TRUE if one of them is still there: its command failed. */
static gboolean
virCheckpointRecoveryHasHelpers(const virCheckpointGraph *graph)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(graph);
    guint i;
    guint j;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        if (g_str_has_prefix(node->name, VIR_CHECKPOINT_HELPER_PREFIX))
            return TRUE;
        for (j = 0; j < node->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, j);

            if (g_str_has_prefix(info->name, VIR_CHECKPOINT_HELPER_BITMAP))
                return TRUE;
        }
    }
    return FALSE;
}

/* Bitmaps of @record that are not there, whatever the reason, are nobody's to hand on.
 */
static gboolean
virCheckpointRecoveryForgetMissing(virCheckpointSegments *segments,
                                   virCheckpointRecord *record,
                                   GError **error)
{
    guint i;

    for (i = 0; i < record->segments->len; i++) {
        virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, segment->target);
        const gchar *name = virCheckpointSegmentActive(segment);

        if (!name || (top && virCheckpointNodeBitmap(top, name)))
            continue;
        if (!virCheckpointSegmentsRelease(segments, name, error))
            return FALSE;
        g_ptr_array_set_size(segment->bitmaps, 0);
    }
    return TRUE;
}

/*
 * A creation that was not answered.  The same transaction again decides: now it has
 * run, before or just now, or it never can.  Then it is taken back, like a deletion:
 * had it run just now, it would stand for a later moment than its client meant.
 */
static gboolean
virCheckpointRecoveryCreating(virCheckpointSegments *segments,
                              virCheckpointRecord *record,
                              GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointSegmentsCreateTxn(segments, record);
    g_autoptr(virCheckpointRecord) copy = virCheckpointRecordCopy(record);
    g_autoptr(GError) refused = NULL;

    /* Nobody else can have sent it to a storage daemon that is gone. */
    if (segments->view->running &&
        !virCheckpointTxnRun(txn, segments->view->monitor, &refused) &&
        !virCheckpointMonitorAnswered(segments->view->monitor)) {
        g_propagate_error(error, g_steal_pointer(&refused));
        return FALSE;
    }
    if (!virCheckpointFaultPoint("settle/transaction", error) ||
        !virCheckpointSegmentsRefresh(segments, error) ||
        !virCheckpointRecoveryForgetMissing(segments, copy, error))
        return FALSE;
    copy->state = VIR_CHECKPOINT_RECORD_DELETING;
    g_info("domain %s: checkpoint '%s', whose creation was not answered, is taken back",
           segments->view->name, copy->def->name);
    return virCheckpointStoreSave(segments->store, copy, error);
}

/* The log tells what is done before it is done. */
static void
virCheckpointRecoverySay(virCheckpointSegments *segments,
                         const virCheckpointRecord *record)
{
    g_info("domain %s: checkpoint '%s' is %s: %s", segments->view->name,
           record->def->name, virCheckpointRecordStateToString(record->state),
           virCheckpointRecoveryOfCheckpoint(record->state));
}

/* The first record in state @state, or NULL. */
static virCheckpointRecord *
virCheckpointRecoveryFind(virCheckpointSegments *segments,
                          virCheckpointRecordState state)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == state)
            return record;
    }
    return NULL;
}

static gboolean
virCheckpointRecoveryRecords(virCheckpointSegments *segments, GError **error)
{
    virCheckpointRecord *record;

    /* Which bitmap an undecided one took the place of may be in one that is not known.
     */
    if (segments->unread && virCheckpointSegmentsHasUnnamed(segments) &&
        virCheckpointRecoveryFind(segments, VIR_CHECKPOINT_RECORD_CREATING))
        return virCheckpointSegmentsKnowAll(segments, error);
    /* Without the images nobody can tell: the bitmaps may be in them. */
    while (segments->graph && (record = virCheckpointRecoveryFind(
                                   segments, VIR_CHECKPOINT_RECORD_CREATING))) {
        virCheckpointRecoverySay(segments, record);
        if (!virCheckpointRecoveryCreating(segments, record, error) ||
            !virCheckpointFaultPoint("settle/created", error) ||
            !virCheckpointSegmentsRefresh(segments, error))
            return FALSE;
    }
    while ((record =
                virCheckpointRecoveryFind(segments, VIR_CHECKPOINT_RECORD_DELETING))) {
        g_autofree gchar *id = g_strdup(record->id);

        virCheckpointRecoverySay(segments, record);
        if (!virCheckpointSegmentsFinishDelete(segments, id, error) ||
            !virCheckpointSegmentsRefresh(segments, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointRecoveryJobs(virCheckpointEngine *engine,
                          virCheckpointStoreDomain *store,
                          virCheckpointDomainView *view,
                          gboolean *any,
                          GError **error)
{
    g_autoptr(GPtrArray) jobs = virCheckpointStoreListJobs(store, error);
    guint i;

    if (!jobs)
        return FALSE;
    *any = jobs->len > 0;
    for (i = 0; i < jobs->len; i++) {
        const virCheckpointJobRecord *job = g_ptr_array_index(jobs, i);

        if (!virCheckpointMirrorRecover(engine, store, view, job, error)) {
            g_prefix_error(error, "copy of disk '%s': ", job->target);
            return FALSE;
        }
    }
    return TRUE;
}

/*
 * Libvirt shows the domain shut off, but its QEMU lives (libvirtd was killed at a bad
 * moment and could not read its status file): whatever is done with the disks now would
 * destroy them.
 */
gboolean
virCheckpointRecoveryNoQemu(const gchar *uuid, const gchar *name, GError **error)
{
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    const gchar *entry;

    while (proc && (entry = g_dir_read_name(proc))) {
        g_autofree gchar *path = g_build_filename("/proc", entry, "cmdline", NULL);
        g_autofree gchar *line = NULL;
        gsize length;
        const gchar *at;
        gboolean uuidNext = FALSE;

        if (!g_ascii_isdigit(*entry) ||
            !g_file_get_contents(path, &line, &length, NULL))
            continue;
        for (at = line; at < line + length; at += strlen(at) + 1) {
            if (uuidNext && g_ascii_strcasecmp(at, uuid) == 0) {
                g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                            "domain '%s' is shown shut off, but its QEMU runs as "
                            "process %s: end that first",
                            name, entry);
                return FALSE;
            }
            uuidNext = g_str_equal(at, "-uuid");
        }
    }
    return TRUE;
}

/*
 * The records, with the images of a guest that is off at hand if one of them needs
 * that.  Jobs may need the images for themselves.
 */
static gboolean
virCheckpointRecoveryImages(virCheckpointSegments *segments,
                            GPtrArray *unsettled,
                            GError **error)
{
    if (unsettled->len > 0 && !virCheckpointSegmentsOpen(segments, unsettled, error))
        return FALSE;
    if (!virCheckpointSegmentsResolveKept(segments, error) ||
        !virCheckpointRecoveryRecords(segments, error))
        return FALSE;
    virCheckpointOfflineClose(segments->view);
    return TRUE;
}

gboolean
virCheckpointRecoverySettle(virCheckpointEngine *engine,
                            virCheckpointStoreDomain *store,
                            virCheckpointDomainView *view,
                            GError **error)
{
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) unsettled = NULL;
    g_autoptr(GPtrArray) deleting = NULL;
    gboolean jobs;

    /* Somebody may have edited a record in place. */
    virCheckpointStoreLookAgain(store);
    if (!(segments = virCheckpointSegmentsNew(store, view, error)))
        return FALSE;
    if (!virCheckpointQuiesceRecover(store, view))
        virCheckpointEngineAskAgain(engine, view->uuid);
    unsettled = virCheckpointOfflineUnsettled(segments->records);
    deleting = virCheckpointOfflineDeleting(segments->records);
    if (!view->running && !virCheckpointRecoveryNoQemu(view->uuid, view->name, error))
        return FALSE;
    if (segments->graph) {
        virCheckpointRecoverySweepNodes(segments);
        if (!virCheckpointMonitorSweepFds(view->monitor, error) ||
            !virCheckpointSegmentsRefresh(segments, error))
            return FALSE;
        segments->unswept = virCheckpointRecoveryHasHelpers(segments->graph);
    }
    if (!virCheckpointRecoveryImages(segments, unsettled, error) ||
        !virCheckpointBackupRecover(engine, store, view, error) ||
        !virCheckpointRecoveryJobs(engine, store, view, &jobs, error) ||
        !virCheckpointFaultPoint("settle/jobs", error) ||
        (unsettled->len > 0 &&
         !virCheckpointSegmentsOpen(segments, unsettled, error)) ||
        !virCheckpointSegmentsRefresh(segments, error) ||
        !virCheckpointSegmentsEnsure(segments, error))
        return FALSE;
    /* What cannot be parked is no reason to refuse the domain: it is tried again. */
    virCheckpointEngineParkRest(engine, segments, NULL);
    virCheckpointSegmentsParkOff(segments);
    if (!virCheckpointHeirsNote(segments, error))
        return FALSE;
    if (deleting->len > 0 || virCheckpointSegmentsWaitsForSweep(segments))
        virCheckpointSegmentsSweepOff(segments, deleting);
    return jobs || virCheckpointStoreCollect(store, error);
}
