/*
 * checkpoint_segments.c: where the bits of one domain's checkpoints are
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/segments.md): each checkpoint owns one segment per disk that
 * it covers, the changes from it to the next one.  A segment is the OR of its parts:
 * sidecar files, and bitmaps that are still in QEMU.  Only the newest segment of a disk
 * records; its bitmap is the one bitmap of ours on that disk at rest.
 *
 * The layers that hold live parts reach from the disk's top format node down to the
 * file in which the bitmap was made ("born"): an external snapshot puts a layer on top,
 * and libvirt makes the recording bitmap anew, empty, there.  Parking the lower ones
 * moves "born" up.
 *
 * This file has the look-ups and the set of changes since a checkpoint; creating and
 * deleting are in checkpoint_change.c, parking and the invariant in checkpoint_park.c.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_offline.h"
#include "checkpoint_segmentspriv.h"

/** What the journal has besides names: NAME + this, once nothing needs NAME anymore. */
#define RELEASED ".released"

static virCheckpointSegments *
virCheckpointSegmentsBegin(virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           gboolean brief)
{
    virCheckpointSegments *segments = g_new0(virCheckpointSegments, 1);

    segments->store = store;
    segments->view = view;
    segments->brief = brief;
    segments->newest = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    segments->replaced =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointRecordFree);
    return segments;
}

virCheckpointSegments *
virCheckpointSegmentsNew(virCheckpointStoreDomain *store,
                         virCheckpointDomainView *view,
                         GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsBegin(store, view, FALSE);

    if (!virCheckpointSegmentsRefresh(segments, error))
        return NULL;
    return g_steal_pointer(&segments);
}

virCheckpointSegments *
virCheckpointSegmentsNewBrief(virCheckpointStoreDomain *store,
                              virCheckpointDomainView *view,
                              GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsBegin(store, view, TRUE);

    if (!virCheckpointSegmentsRefresh(segments, error))
        return NULL;
    return g_steal_pointer(&segments);
}

/* Reads the records; @graph (transfer full) is the look that they go with. */
static gboolean
virCheckpointSegmentsRead(virCheckpointSegments *segments,
                          virCheckpointGraph *graph,
                          GError **error)
{
    /* While the guest is off many are changed, and nobody waits. */
    GPtrArray *records = segments->view->running
                             ? virCheckpointStoreShare(segments->store, error)
                             : virCheckpointStoreList(segments->store, error);

    if (!records) {
        virCheckpointGraphFree(graph);
        return FALSE;
    }
    g_clear_pointer(&segments->records, g_ptr_array_unref);
    segments->records = records;
    g_free(segments->unread);
    segments->unread = g_strdup(virCheckpointStoreUnread(segments->store));
    g_ptr_array_set_size(segments->replaced, 0);
    g_hash_table_remove_all(segments->newest);
    virCheckpointGraphFree(segments->graph);
    segments->graph = graph;
    return TRUE;
}

virCheckpointSegments *
virCheckpointSegmentsNewSeen(virCheckpointStoreDomain *store,
                             virCheckpointDomainView *view,
                             virCheckpointGraph **graph,
                             GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsBegin(store, view, TRUE);

    if (!virCheckpointSegmentsRead(segments, g_steal_pointer(graph), error))
        return NULL;
    return g_steal_pointer(&segments);
}

gboolean
virCheckpointSegmentsRefresh(virCheckpointSegments *segments, GError **error)
{
    virCheckpointMonitor *monitor = segments->view->monitor;
    virCheckpointGraph *graph = NULL;

    /* A guest that is off has no devices. */
    if (monitor && !(graph = segments->brief && segments->view->running
                                 ? virCheckpointGraphQueryDisks(monitor, error)
                                 : virCheckpointGraphQuery(monitor, error)))
        return FALSE;
    return virCheckpointSegmentsRead(segments, graph, error);
}

/* A copy of @record takes the place of the one with its id, which lives on. */
static virCheckpointRecord *
virCheckpointSegmentsReplace(virCheckpointSegments *segments,
                             const virCheckpointRecord *record)
{
    virCheckpointRecord *copy = virCheckpointRecordCopy(record);
    guint i;

    g_hash_table_remove_all(segments->newest);
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *here = g_ptr_array_index(segments->records, i);

        if (!g_str_equal(here->id, copy->id))
            continue;
        g_ptr_array_add(segments->replaced, here);
        segments->records->pdata[i] = copy;
        return copy;
    }
    g_ptr_array_add(segments->records, copy);
    return copy;
}

virCheckpointRecord *
virCheckpointSegmentsEdit(virCheckpointSegments *segments,
                          const virCheckpointRecord *record)
{
    virCheckpointRecord *here = virCheckpointTreeById(segments->records, record->id);

    return virCheckpointRecordIsShared(here)
               ? virCheckpointSegmentsReplace(segments, here)
               : here;
}

void
virCheckpointSegmentsSaved(virCheckpointSegments *segments,
                           const virCheckpointRecord *record)
{
    virCheckpointSegmentsReplace(segments, record);
}

void
virCheckpointSegmentsRemoved(virCheckpointSegments *segments,
                             virCheckpointRecord *record)
{
    g_hash_table_remove_all(segments->newest);
    g_ptr_array_add(segments->replaced, virCheckpointRecordRef(record));
    g_ptr_array_remove(segments->records, record);
}

void
virCheckpointSegmentsFree(virCheckpointSegments *segments)
{
    if (!segments)
        return;
    virCheckpointSegmentsParkAheadDrop(segments);
    if (segments->records)
        g_ptr_array_unref(segments->records);
    g_free(segments->unread);
    g_ptr_array_unref(segments->replaced);
    g_hash_table_unref(segments->newest);
    virCheckpointGraphFree(segments->graph);
    g_free(segments);
}

gboolean
virCheckpointSegmentsKnowAll(const virCheckpointSegments *segments, GError **error)
{
    if (!segments->unread)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "a record of domain '%s' cannot be read: %s: try again when it can, or "
                "give its checkpoint up with 'virsh checkpoint-check %s --repair'",
                segments->view->name, segments->unread, segments->view->name);
    return FALSE;
}

virCheckpointRecord *
virCheckpointSegmentsNewest(virCheckpointSegments *segments, const gchar *target)
{
    gpointer found;

    if (!g_hash_table_lookup_extended(segments->newest, target, NULL, &found)) {
        found = virCheckpointTreeNewest(segments->records, target);
        g_hash_table_insert(segments->newest, g_strdup(target), found);
    }
    return found;
}

const virCheckpointNode *
virCheckpointSegmentsFindTop(virCheckpointSegments *segments, const gchar *target)
{
    guint i;

    for (i = 0; segments->graph && i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);

        if (g_strcmp0(disk->target, target) == 0)
            return virCheckpointGraphTop(segments->graph, disk->alias);
    }
    return NULL;
}

const virCheckpointNode *
virCheckpointSegmentsTop(virCheckpointSegments *segments,
                         const gchar *target,
                         GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsFindTop(segments, target);

    if (top)
        return top;
    if (!segments->graph)
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                            "domain is not running");
    else
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "domain '%s' has no disk '%s' with a medium", segments->view->name,
                    target);
    return NULL;
}

const gchar *
virCheckpointSegmentActive(const virCheckpointSegment *segment)
{
    return segment->bitmaps->len > 0
               ? g_ptr_array_index(segment->bitmaps, segment->bitmaps->len - 1)
               : NULL;
}

gboolean
virCheckpointSegmentsIsRecording(virCheckpointSegments *segments,
                                 const gchar *target,
                                 const gchar *name)
{
    const virCheckpointRecord *newest = virCheckpointSegmentsNewest(segments, target);

    return newest && g_strcmp0(virCheckpointSegmentActive(
                                   virCheckpointRecordSegment(newest, target)),
                               name) == 0;
}

gboolean
virCheckpointSegmentsIsActive(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const virCheckpointSegment *segment,
                              const gchar *name)
{
    return virCheckpointSegmentsIsRecording(segments, segment->target, name) &&
           g_str_equal(virCheckpointSegmentsNewest(segments, segment->target)->id,
                       record->id);
}

static gboolean
virCheckpointSegmentsHolds(const virCheckpointNode *node,
                           const virCheckpointSegment *segment,
                           const gchar *bitmap)
{
    guint i;

    if (bitmap)
        return virCheckpointNodeBitmap(node, bitmap) != NULL;
    for (i = 0; i < segment->bitmaps->len; i++) {
        if (virCheckpointNodeBitmap(node, g_ptr_array_index(segment->bitmaps, i)))
            return TRUE;
    }
    return FALSE;
}

GPtrArray *
virCheckpointSegmentsLayers(virCheckpointSegments *segments,
                            const virCheckpointNode *top,
                            const virCheckpointSegment *segment,
                            const gchar *bitmap)
{
    GPtrArray *layers = g_ptr_array_new();
    const virCheckpointNode *born =
        virCheckpointGraphLayer(segments->graph, top, segment->born);
    const virCheckpointNode *node = top;
    gboolean passed = !born;

    /* A commit takes bits below the file in which they were made, and the next
     * snapshot, which may reuse its name, leaves them there. */
    while (node && (!passed || node == top ||
                    virCheckpointSegmentsHolds(node, segment, bitmap))) {
        g_ptr_array_add(layers, (gpointer)node);
        passed = passed || node == born;
        node = virCheckpointGraphBacking(segments->graph, node);
    }
    return layers;
}

gboolean
virCheckpointSegmentsIsHealthy(virCheckpointSegments *segments,
                               const virCheckpointNode *top,
                               const virCheckpointSegment *segment)
{
    const gchar *active = virCheckpointSegmentActive(segment);
    g_autoptr(GPtrArray) layers =
        virCheckpointSegmentsLayers(segments, top, segment, active);
    guint i;

    for (i = 0; active && i < layers->len; i++) {
        const virCheckpointBitmapInfo *info =
            virCheckpointNodeBitmap(g_ptr_array_index(layers, i), active);

        if (!info || info->inconsistent || !info->persistent)
            return FALSE;
        if (i == 0 && !info->recording)
            return FALSE;
    }
    return active != NULL;
}

gchar *
virCheckpointSegmentsNewName(virCheckpointSegments *segments, GError **error)
{
    g_autofree gchar *id = virCheckpointRecordNewId();
    g_autofree gchar *name = g_strconcat(VIR_CHECKPOINT_BITMAP_PREFIX, id, NULL);
    const gchar *const names[] = {name, NULL};

    if (!virCheckpointStoreJournalAdd(segments->store, names, error))
        return NULL;
    return g_steal_pointer(&name);
}

gboolean
virCheckpointSegmentsReleaseAll(virCheckpointSegments *segments,
                                GPtrArray *names,
                                GError **error)
{
    g_autoptr(GPtrArray) marks = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < names->len; i++) {
        g_autofree gchar *mark =
            g_strconcat(g_ptr_array_index(names, i), RELEASED, NULL);

        if (!virCheckpointStoreJournalHas(segments->store, mark))
            g_ptr_array_add(marks, g_steal_pointer(&mark));
    }
    if (marks->len == 0)
        return TRUE;
    /* Nobody comes to the images of a guest that is off unless something says so. */
    if (!segments->view->running)
        virCheckpointSegmentsAwaitSweep(segments);
    g_ptr_array_add(marks, NULL);
    return virCheckpointStoreJournalAdd(segments->store,
                                        (const gchar *const *)marks->pdata, error);
}

gboolean
virCheckpointSegmentsRelease(virCheckpointSegments *segments,
                             const gchar *name,
                             GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    g_ptr_array_add(names, (gpointer)name);
    return virCheckpointSegmentsReleaseAll(segments, names, error);
}

/* TRUE if a record names bitmap @name. */
static gboolean
virCheckpointSegmentsNames(virCheckpointSegments *segments, const gchar *name)
{
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (g_ptr_array_find_with_equal_func(segment->bitmaps, name, g_str_equal,
                                                 NULL))
                return TRUE;
        }
    }
    return FALSE;
}

/* TRUE if nobody needs bitmap @name any more. */
static gboolean
virCheckpointSegmentsIsReleased(virCheckpointSegments *segments, const gchar *name)
{
    g_autofree gchar *mark = g_strconcat(name, RELEASED, NULL);

    return g_str_has_prefix(name, VIR_CHECKPOINT_BITMAP_PREFIX) &&
           !virCheckpointSegmentsNames(segments, name) &&
           virCheckpointStoreJournalHas(segments->store, mark);
}

gboolean
virCheckpointSegmentsHasUnnamed(virCheckpointSegments *segments)
{
    guint i;
    guint j;

    for (i = 0; segments->graph && i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, disk->target);

        for (j = 0; top && j < top->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, j);

            if (g_str_has_prefix(info->name, VIR_CHECKPOINT_BITMAP_PREFIX) &&
                virCheckpointStoreJournalHas(segments->store, info->name) &&
                !virCheckpointSegmentsNames(segments, info->name) &&
                !virCheckpointSegmentsIsReleased(segments, info->name))
                return TRUE;
        }
    }
    return FALSE;
}

gboolean
virCheckpointSegmentsIsForeign(virCheckpointSegments *segments, const gchar *name)
{
    return g_str_has_prefix(name, VIR_CHECKPOINT_BITMAP_PREFIX) &&
           !virCheckpointSegmentsNames(segments, name) &&
           !virCheckpointStoreJournalHas(segments->store, name);
}

gboolean
virCheckpointSegmentsNodeHasReleased(virCheckpointSegments *segments,
                                     const virCheckpointNode *node)
{
    guint i;

    for (i = 0; i < node->bitmaps->len; i++) {
        const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, i);

        if (virCheckpointSegmentsIsReleased(segments, info->name))
            return TRUE;
    }
    return FALSE;
}

/*
 * Removes what is released from all nodes: in one go, else each by itself.  Returns how
 * many such bitmaps stay.
 */
static guint
virCheckpointSegmentsRemoveReleased(virCheckpointSegments *segments)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(segments->graph);
    virCheckpointMonitor *monitor = segments->view->monitor;
    g_autoptr(virCheckpointTxn) all = virCheckpointTxnNew();
    g_autoptr(GArray) refs = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    gboolean together;
    guint stay = 0;
    guint i;
    guint j;

    for (i = 0; i < nodes->len; i++) {
        const virCheckpointNode *node = g_ptr_array_index(nodes, i);

        for (j = 0; j < node->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(node->bitmaps, j);
            virCheckpointBitmapRef ref = {node->name, info->name};

            if (!virCheckpointSegmentsIsReleased(segments, info->name))
                continue;
            if (node->readOnly || info->busy) {
                g_debug("domain=%s node=%s bitmap=%s stays: in use or read-only",
                        segments->view->uuid, node->name, info->name);
                stay++;
                continue;
            }
            g_array_append_val(refs, ref);
            virCheckpointTxnRemove(all, node->name, info->name);
        }
    }
    together = virCheckpointTxnRun(all, monitor, NULL);
    for (i = 0; i < refs->len; i++) {
        const virCheckpointBitmapRef *ref =
            &g_array_index(refs, virCheckpointBitmapRef, i);
        g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
        g_autoptr(GError) error = NULL;

        virCheckpointTxnRemove(txn, ref->node, ref->name);
        if (together || virCheckpointTxnRun(txn, monitor, &error)) {
            virCheckpointGraphForget(segments->graph, ref->node, ref->name);
            continue;
        }
        stay++;
        segments->unswept = TRUE;
        g_debug("domain=%s node=%s bitmap=%s stays: %s", segments->view->uuid,
                ref->node, ref->name, error->message);
    }
    return stay;
}

/*
 * The store forgets a domain whose folder holds no records, journal included.  As long
 * as released bitmaps wait for a QEMU that can remove them this file keeps it; and as
 * long as they may be in images of a guest that is off it has settling look there.
 */
static void
virCheckpointSegmentsKeepFolder(virCheckpointSegments *segments, gboolean keep)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *path =
        virCheckpointStoreDomainPath(segments->store, "released", NULL);

    if (path && keep && !g_file_test(path, G_FILE_TEST_EXISTS)) {
        segments->awaited = virCheckpointFileWrite(path, "", &error);
        if (error)
            g_warning(
                "domain '%s': bitmaps that nobody needs stay until its next start: "
                "%s",
                segments->view->name, error->message);
    } else if (path && !keep) {
        virCheckpointFileRemove(path, NULL);
    }
}

/* TRUE if every disk that can hold a bitmap is in the graph. */
static gboolean
virCheckpointSegmentsSeesAll(const virCheckpointSegments *segments)
{
    guint i;

    for (i = 0; segments->graph && i < segments->view->disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(segments->view->disks, i);

        if (!disk->alias && !disk->readOnly && !disk->empty &&
            g_strcmp0(disk->format, "qcow2") == 0)
            return FALSE;
    }
    return segments->graph != NULL;
}

void
virCheckpointSegmentsAwaitSweep(virCheckpointSegments *segments)
{
    virCheckpointSegmentsKeepFolder(segments, TRUE);
}

gboolean
virCheckpointSegmentsWaitsForSweep(virCheckpointSegments *segments)
{
    g_autofree gchar *path =
        virCheckpointStoreDomainPath(segments->store, "released", NULL);

    return path && g_file_test(path, G_FILE_TEST_EXISTS);
}

void
virCheckpointSegmentsSweepSeen(virCheckpointSegments *segments)
{
    guint stay = 0;

    /* Whether the folder may go depends on all nodes. */
    if (segments->brief && segments->records->len == 0) {
        segments->brief = FALSE;
        virCheckpointSegmentsSweep(segments);
        return;
    }
    if (segments->graph)
        stay = virCheckpointSegmentsRemoveReleased(segments);
    if (segments->records->len == 0 || virCheckpointSegmentsWaitsForSweep(segments))
        virCheckpointSegmentsKeepFolder(segments,
                                        stay > 0 || !segments->view->running ||
                                            !virCheckpointSegmentsSeesAll(segments));
}

/* TRUE if a layer of any disk holds a bitmap that nobody needs. */
static gboolean
virCheckpointSegmentsHasReleased(virCheckpointSegments *segments)
{
    const GPtrArray *nodes = virCheckpointGraphNodes(segments->graph);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        if (virCheckpointSegmentsNodeHasReleased(segments, g_ptr_array_index(nodes, i)))
            return TRUE;
    }
    return FALSE;
}

void
virCheckpointSegmentsSwept(virCheckpointSegments *segments)
{
    /* Without records the journal goes with the folder, and nobody would know a bitmap
     * below the top for ours when a commit makes it writable. */
    if (segments->records->len > 0 || (virCheckpointSegmentsSeesAll(segments) &&
                                       !virCheckpointSegmentsHasReleased(segments)))
        virCheckpointSegmentsKeepFolder(segments, FALSE);
}

void
virCheckpointSegmentsSweep(virCheckpointSegments *segments)
{
    g_autoptr(GError) error = NULL;

    if (virCheckpointSegmentsRefresh(segments, &error)) {
        virCheckpointSegmentsSweepSeen(segments);
        return;
    }
    segments->unswept = TRUE;
    g_debug("domain=%s not swept: %s", segments->view->uuid, error->message);
}

static gboolean
virCheckpointSegmentsInconsistent(virCheckpointSegments *segments,
                                  const virCheckpointRecord *record,
                                  const gchar *target,
                                  const gchar *reason,
                                  GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                "domain '%s', disk '%s': %s at checkpoint '%s': " VIR_CHECKPOINT_REMEDY,
                segments->view->name, target, reason, record->def->name,
                segments->view->name, target);
    return FALSE;
}

gboolean
virCheckpointSegmentsCollect(virCheckpointSegments *segments,
                             const virCheckpointNode *top,
                             const virCheckpointNode *node,
                             const virCheckpointSegment *segment,
                             GArray *sources)
{
    g_autoptr(GPtrArray) layers =
        virCheckpointSegmentsLayers(segments, top, segment, NULL);
    const virCheckpointNode *born =
        virCheckpointGraphLayer(segments->graph, top, segment->born);
    gboolean chained =
        virCheckpointGraphLayer(segments->graph, top, node->file) == node;
    guint i;
    guint j;

    for (j = 0; j < segment->bitmaps->len; j++) {
        gboolean below = !chained;
        gboolean made = FALSE;
        gboolean found = FALSE;

        for (i = 0; i < layers->len; i++) {
            const virCheckpointNode *layer = g_ptr_array_index(layers, i);
            const virCheckpointBitmapInfo *info =
                virCheckpointNodeBitmap(layer, g_ptr_array_index(segment->bitmaps, j));
            virCheckpointBitmapRef ref = {layer->name, info ? info->name : NULL};

            below = below || layer == node;
            made = made || layer == born;
            if (!info || info->inconsistent)
                continue;
            /* It is where it was made, or a commit took it further down. */
            found = found || made;
            if (below)
                g_array_append_val(sources, ref);
        }
        if (!found)
            return FALSE;
    }
    return TRUE;
}

/* Names of sidecars can be used again once the file is gone; the file itself is never
 * written to. */
static gchar *
virCheckpointSegmentsPart(virCheckpointSegments *segments, const gchar *file)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(segments->store, file, NULL);
    g_autofree gchar *stamp = path ? virCheckpointOfflineStamp(path) : NULL;

    return stamp ? g_strdup_printf("%s@%s", file, stamp) : NULL;
}

GPtrArray *
virCheckpointSegmentsParts(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const gchar *target)
{
    g_autoptr(GPtrArray) chain =
        virCheckpointTreeChain(segments->records, record, target);
    GPtrArray *parts = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < chain->len; i++) {
        const virCheckpointSegment *segment =
            virCheckpointRecordSegment(g_ptr_array_index(chain, i), target);

        for (j = 0; j < segment->sidecars->len; j++) {
            gchar *part = virCheckpointSegmentsPart(
                segments, g_ptr_array_index(segment->sidecars, j));

            if (part)
                g_ptr_array_add(parts, part);
        }
    }
    return parts;
}

static gboolean
virCheckpointSegmentsIsCovered(virCheckpointSegments *segments, const gchar *file)
{
    g_autofree gchar *part = NULL;

    if (!segments->covered)
        return FALSE;
    part = virCheckpointSegmentsPart(segments, file);
    return part &&
           g_ptr_array_find_with_equal_func(segments->covered, part, g_str_equal, NULL);
}

typedef struct virCheckpointSince {
    GArray *sources;     /* virCheckpointBitmapRef */
    GPtrArray *sidecars; /* gchar*, borrowed */
    guint64 granularity;
} virCheckpointSince;

static void
virCheckpointSinceClear(virCheckpointSince *since)
{
    g_clear_pointer(&since->sources, g_array_unref);
    g_clear_pointer(&since->sidecars, g_ptr_array_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointSince, virCheckpointSinceClear)

/* Gathers the parts of all segments from @record on. */
static gboolean
virCheckpointSegmentsGather(virCheckpointSegments *segments,
                            const virCheckpointRecord *record,
                            const gchar *target,
                            const virCheckpointNode *node,
                            virCheckpointSince *since,
                            GError **error)
{
    g_autoptr(GPtrArray) chain =
        virCheckpointTreeChain(segments->records, record, target);
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);
    guint i;
    guint j;

    if (!top)
        return FALSE;
    if (chain->len == 0) {
        if (virCheckpointRecordSegment(record, target))
            return virCheckpointSegmentsInconsistent(
                segments, record, target, "the next checkpoint is not known", error);
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                    "checkpoint '%s' does not cover disk '%s'", record->def->name,
                    target);
        return FALSE;
    }
    for (i = 0; i < chain->len; i++) {
        const virCheckpointRecord *link = g_ptr_array_index(chain, i);
        const virCheckpointSegment *segment = virCheckpointRecordSegment(link, target);

        if (segment->lost)
            return virCheckpointSegmentsInconsistent(segments, link, target,
                                                     "changes were lost", error);
        if (!virCheckpointSegmentsCollect(segments, top, node, segment, since->sources))
            return virCheckpointSegmentsInconsistent(segments, link, target,
                                                     "a bitmap is missing", error);
        for (j = 0; j < segment->sidecars->len; j++) {
            gchar *file = g_ptr_array_index(segment->sidecars, j);

            if (!virCheckpointSegmentsIsCovered(segments, file))
                g_ptr_array_add(since->sidecars, file);
        }
        if (segment->granularity &&
            (!since->granularity || segment->granularity < since->granularity))
            since->granularity = segment->granularity;
    }
    return TRUE;
}

gboolean
virCheckpointSegmentsValidate(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              const gchar *target,
                              GError **error)
{
    g_auto(virCheckpointSince) since = {
        .sources = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef)),
        .sidecars = g_ptr_array_new(),
    };
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);
    guint i;

    if (!top ||
        !virCheckpointSegmentsGather(segments, record, target, top, &since, error))
        return FALSE;
    for (i = 0; i < since.sidecars->len; i++) {
        g_autofree gchar *path = virCheckpointStoreDomainPath(
            segments->store, g_ptr_array_index(since.sidecars, i), error);
        virCheckpointSidecarInfo info;
        g_autoptr(GError) bad = NULL;

        if (!path)
            return FALSE;
        if (!virCheckpointSidecarRead(path, &info, &bad) || info.inUse)
            return virCheckpointSegmentsInconsistent(
                segments, record, target,
                bad ? bad->message : "a sidecar was not closed", error);
    }
    return TRUE;
}

/* Makes bitmap @name on @node with the changes since @record. */
static gboolean
virCheckpointSegmentsMakeSet(virCheckpointSegments *segments,
                             const virCheckpointRecord *record,
                             const gchar *target,
                             const gchar *node,
                             const gchar *name,
                             guint flags,
                             GError **error)
{
    g_auto(virCheckpointSince) since = {
        .sources = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef)),
        .sidecars = g_ptr_array_new(),
    };
    const virCheckpointRecord *from =
        virCheckpointTreeById(segments->records, record->id);
    const virCheckpointNode *on = virCheckpointGraphNode(segments->graph, node);
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    if (!from || !on) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "there is no %s '%s'", from ? "node" : "checkpoint",
                    from ? node : record->def->name);
        return FALSE;
    }
    if (!virCheckpointSegmentsGather(segments, from, target, on, &since, error))
        return FALSE;
    virCheckpointTxnAdd(txn, node, name, since.granularity, flags);
    virCheckpointTxnMerge(txn, node, name, since.sources);
    if (!virCheckpointTxnRun(txn, segments->view->monitor, error))
        return FALSE;
    if (virCheckpointFaultPoint("since/merged", error) &&
        virCheckpointSidecarLoad(segments->store, segments->view->monitor,
                                 since.sidecars, node, name, error))
        return TRUE;
    virCheckpointTxnRemove(txn, node, name);
    virCheckpointTxnRun(txn, segments->view->monitor, NULL);
    return FALSE;
}

gboolean
virCheckpointSegmentsSince(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const gchar *target,
                           const gchar *node,
                           const gchar *name,
                           gboolean enabled,
                           GError **error)
{
    return virCheckpointSegmentsMakeSet(segments, record, target, node, name,
                                        enabled ? 0 : VIR_CHECKPOINT_BITMAP_DISABLED,
                                        error);
}

gboolean
virCheckpointSegmentsMaterialise(virCheckpointSegments *segments,
                                 const virCheckpointRecord *record,
                                 const gchar *target,
                                 const gchar *name,
                                 GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);

    return top &&
           virCheckpointSegmentsMakeSet(segments, record, target, top->name, name,
                                        VIR_CHECKPOINT_BITMAP_PERSISTENT, error);
}
