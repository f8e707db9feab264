/*
 * checkpoint_park.c: parking frozen bits, and the invariant
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: bits that can no longer change are copied into a sidecar.  Frozen are: the
 * bitmaps of every segment but a disk's newest; in the newest all but the last, active
 * one; and that one's copies on layers that an external snapshot put below the top.
 *
 * Order, per bitmap: the sidecar is complete and has its name; the journal says that
 * nothing needs the bitmap anymore ("released"); the record names the sidecar and no
 * longer the bitmap, in one write; QEMU removes the bitmap.  So a bitmap that a record
 * names is one that has not been parked, and a released one that none names is garbage,
 * wherever it turns up: on a read-only layer it stays until that can be written.
 *
 * The invariant: the newest segment's bitmap is on the disk's top format node,
 * persistent, recording and consistent, and on each of its layers.  Where that does not
 * hold changes of unknown extent are missing: "lost" is saved first, then tracking
 * starts anew under a new name, so that no crash in between can make it look healthy.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_heal.h"
#include "checkpoint_segmentspriv.h"

/* A file name for a sidecar with the bits of bitmap @name that is not taken. */
gchar *
virCheckpointParkFileName(virCheckpointSegments *segments,
                          const gchar *name,
                          GError **error)
{
    const gchar *id = name + strlen(VIR_CHECKPOINT_BITMAP_PREFIX);
    guint n;

    for (n = 1;; n++) {
        g_autofree gchar *file = g_strdup_printf("%s.%u.qcow2", id, n);
        g_autofree gchar *path =
            virCheckpointStoreDomainPath(segments->store, file, error);

        if (!path)
            return NULL;
        if (!g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&file);
    }
}

/*
 * One sidecar for each disk size among @layers: bitmaps merge only between equal ones,
 * and a disk may have been resized while a snapshot was on top.
 * Returns: file names (transfer full), or NULL.
 */
static GPtrArray *
virCheckpointParkLayers(virCheckpointSegments *segments,
                        GPtrArray *layers,
                        const gchar *name,
                        GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) left = g_ptr_array_copy(layers, NULL, NULL);

    while (left->len > 0) {
        const virCheckpointNode *first = g_ptr_array_index(left, 0);
        const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(first, name);
        g_autoptr(GArray) sources =
            g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
        g_autofree gchar *file = virCheckpointParkFileName(segments, name, error);
        guint i;

        if (!file)
            return NULL;
        for (i = 0; i < left->len;) {
            const virCheckpointNode *layer = g_ptr_array_index(left, i);
            virCheckpointBitmapRef ref = {layer->name, name};

            if (layer->sizeBytes != first->sizeBytes) {
                i++;
                continue;
            }
            g_array_append_val(sources, ref);
            g_ptr_array_remove_index(left, i);
        }
        if (!virCheckpointSidecarWrite(segments->store, segments->view->monitor,
                                       first->sizeBytes, info->granularity, sources,
                                       file, error))
            return NULL;
        g_ptr_array_add(files, g_steal_pointer(&file));
    }
    return g_steal_pointer(&files);
}

gboolean
virCheckpointSegmentsCopy(virCheckpointSegments *segments,
                          virCheckpointSegment *segment,
                          const virCheckpointNode *top,
                          const gchar *name,
                          GError **error)
{
    const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(top, name);
    g_autoptr(GPtrArray) layers = g_ptr_array_new();
    g_autoptr(GPtrArray) files = NULL;

    if (info->countBytes == 0)
        return TRUE;
    g_ptr_array_add(layers, (gpointer)top);
    if (!(files = virCheckpointParkLayers(segments, layers, name, error)))
        return FALSE;
    g_ptr_array_add(segment->sidecars, g_strdup(g_ptr_array_index(files, 0)));
    return TRUE;
}

/* Saves @record's @segment with @files added and, if given, bitmap @drop taken out. */
static gboolean
virCheckpointParkSave(virCheckpointSegments *segments,
                      virCheckpointRecord *record,
                      virCheckpointSegment *segment,
                      GPtrArray *files,
                      const gchar *drop,
                      GError **error)
{
    guint i;

    for (i = 0; i < files->len; i++)
        g_ptr_array_add(segment->sidecars, g_strdup(g_ptr_array_index(files, i)));
    if (drop && g_strcmp0(drop, segment->kept) == 0) {
        g_clear_pointer(&segment->kept, g_free);
        g_clear_pointer(&segment->stamp, g_free);
    }
    if (drop &&
        g_ptr_array_find_with_equal_func(segment->bitmaps, drop, g_str_equal, &i))
        g_ptr_array_remove_index(segment->bitmaps, i);
    return virCheckpointStoreSave(segments->store, record, error);
}

typedef enum {
    VIR_CHECKPOINT_PARK_PARTS_READY,
    VIR_CHECKPOINT_PARK_PARTS_BUSY, /* somebody's job holds one */
    VIR_CHECKPOINT_PARK_PARTS_LOST, /* one is missing or inconsistent */
} virCheckpointParkParts;

/* Which of @layers have bitmap @name (into @with); the lowest one must. */
static virCheckpointParkParts
virCheckpointParkFind(GPtrArray *layers, const gchar *name, GPtrArray *with)
{
    const virCheckpointBitmapInfo *info = NULL;
    guint i;

    for (i = 0; i < layers->len; i++) {
        info = virCheckpointNodeBitmap(g_ptr_array_index(layers, i), name);
        if (!info)
            continue;
        if (info->inconsistent)
            return VIR_CHECKPOINT_PARK_PARTS_LOST;
        if (info->busy)
            return VIR_CHECKPOINT_PARK_PARTS_BUSY;
        g_ptr_array_add(with, g_ptr_array_index(layers, i));
    }
    return info ? VIR_CHECKPOINT_PARK_PARTS_READY : VIR_CHECKPOINT_PARK_PARTS_LOST;
}

/* Where frozen bitmap @name of @segment is: the layers that have it go into @with. */
static virCheckpointParkParts
virCheckpointParkLook(virCheckpointSegments *segments,
                      const virCheckpointNode *top,
                      const virCheckpointSegment *segment,
                      const gchar *name,
                      GPtrArray *with)
{
    g_autoptr(GPtrArray) layers =
        virCheckpointSegmentsLayers(segments, top, segment, name);

    /* Copied before a checkpoint of the guest that was off froze it. */
    if (g_strcmp0(name, segment->kept) == 0)
        return VIR_CHECKPOINT_PARK_PARTS_READY;
    /* Nothing carries a frozen bitmap to another file: it is where it was made. */
    if (!virCheckpointGraphLayer(segments->graph, top, segment->born))
        return VIR_CHECKPOINT_PARK_PARTS_LOST;
    return virCheckpointParkFind(layers, name, with);
}

/* Parks one frozen bitmap of @segment.  *@left is set when it must wait. */
static gboolean
virCheckpointParkFrozen(virCheckpointSegments *segments,
                        virCheckpointRecord *record,
                        virCheckpointSegment *segment,
                        const gchar *bitmap,
                        gboolean *left,
                        GError **error)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    g_autoptr(GPtrArray) with = g_ptr_array_new();
    g_autoptr(GPtrArray) files = NULL;
    g_autofree gchar *name = g_strdup(bitmap);
    virCheckpointParkParts parts = VIR_CHECKPOINT_PARK_PARTS_BUSY;

    if (top)
        parts = virCheckpointParkLook(segments, top, segment, name, with);
    if (parts == VIR_CHECKPOINT_PARK_PARTS_BUSY) {
        *left = TRUE;
        return TRUE;
    }
    if (parts == VIR_CHECKPOINT_PARK_PARTS_LOST) {
        segment->lost = TRUE;
        virCheckpointHealSpoil(segments->view->uuid, segment->target);
        virCheckpointSegmentsWarnLost(segments, record, segment->target);
        files = g_ptr_array_new();
    } else if (!(files = virCheckpointParkLayers(segments, with, name, error))) {
        return FALSE;
    }
    return virCheckpointFaultPoint("park/written", error) &&
           virCheckpointSegmentsRelease(segments, name, error) &&
           virCheckpointFaultPoint("park/released", error) &&
           virCheckpointParkSave(segments, record, segment, files, name, error) &&
           virCheckpointFaultPoint("park/saved", error);
}

static gboolean
virCheckpointParkAnyWritable(GPtrArray *layers)
{
    guint i;

    for (i = 0; i < layers->len; i++) {
        if (!((const virCheckpointNode *)g_ptr_array_index(layers, i))->readOnly)
            return TRUE;
    }
    return FALSE;
}

/* Parks what a snapshot froze of the active bitmap of @segment. */
static gboolean
virCheckpointParkLower(virCheckpointSegments *segments,
                       virCheckpointRecord *record,
                       virCheckpointSegment *segment,
                       gboolean *left,
                       GError **error)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    g_autoptr(GPtrArray) with = g_ptr_array_new();
    g_autoptr(GPtrArray) layers = NULL;
    g_autoptr(GPtrArray) files = NULL;

    if (!top || g_strcmp0(top->file, segment->born) == 0)
        return TRUE;
    /* One that is not healthy is for virCheckpointSegmentsEnsure() to judge. */
    if (!virCheckpointSegmentsIsHealthy(segments, top, segment)) {
        *left = TRUE;
        return TRUE;
    }
    layers = virCheckpointSegmentsLayers(segments, top, segment,
                                         virCheckpointSegmentActive(segment));
    g_ptr_array_remove_index(layers, 0);
    /* A commit writes to them: what it writes is in the top's bitmap, too. */
    if (virCheckpointParkAnyWritable(layers)) {
        *left = TRUE;
        return TRUE;
    }
    if (layers->len > 0 &&
        virCheckpointParkFind(layers, virCheckpointSegmentActive(segment), with) !=
            VIR_CHECKPOINT_PARK_PARTS_READY) {
        *left = TRUE;
        return TRUE;
    }
    files = virCheckpointParkLayers(segments, with, virCheckpointSegmentActive(segment),
                                    error);
    if (!files || !virCheckpointFaultPoint("park-lower/written", error))
        return FALSE;
    g_free(segment->born);
    segment->born = g_strdup(top->file);
    return virCheckpointParkSave(segments, record, segment, files, NULL, error) &&
           virCheckpointFaultPoint("park-lower/saved", error);
}

static gboolean
virCheckpointParkSegment(virCheckpointSegments *segments,
                         virCheckpointRecord *record,
                         virCheckpointSegment *segment,
                         gboolean *left,
                         GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    gboolean newest = FALSE;
    gboolean ok = TRUE;
    guint i;

    for (i = 0; i < segment->bitmaps->len; i++)
        g_ptr_array_add(names, g_strdup(g_ptr_array_index(segment->bitmaps, i)));
    for (i = 0; ok && i < names->len; i++) {
        const gchar *name = g_ptr_array_index(names, i);

        if (virCheckpointSegmentsIsActive(segments, record, segment, name))
            newest = TRUE;
        else
            ok = virCheckpointParkFrozen(segments, record, segment, name, left, error);
    }
    if (ok && newest)
        ok = virCheckpointParkLower(segments, record, segment, left, error);
    return ok;
}

/* TRUE if a frozen bitmap of @segment seems lost. */
static gboolean
virCheckpointParkSeemsLost(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const virCheckpointSegment *segment)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    guint i;

    for (i = 0; top && i < segment->bitmaps->len; i++) {
        const gchar *name = g_ptr_array_index(segment->bitmaps, i);
        g_autoptr(GPtrArray) with = g_ptr_array_new();

        if (!virCheckpointSegmentsIsActive(segments, record, segment, name) &&
            virCheckpointParkLook(segments, top, segment, name, with) ==
                VIR_CHECKPOINT_PARK_PARTS_LOST)
            return TRUE;
    }
    return FALSE;
}

gboolean
virCheckpointSegmentsPark(virCheckpointSegments *segments,
                          const gchar *target,
                          GError **error)
{
    gboolean left = FALSE;
    guint i;
    guint j;

    if (!segments->graph)
        return TRUE;
    if (!virCheckpointSegmentsConfirm(segments, virCheckpointParkSeemsLost, error))
        return FALSE;
    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            virCheckpointSegment *segment = g_ptr_array_index(record->segments, j);
            g_autoptr(GError) failed = NULL;

            if (target && g_strcmp0(segment->target, target) != 0)
                continue;
            if (virCheckpointParkSegment(segments, record, segment, &left, &failed))
                continue;
            g_warning(
                "domain %s (%s), disk %s: the bits of checkpoint '%s' stay in the "
                "image for now: %s",
                segments->view->name, segments->view->uuid, segment->target,
                record->def->name, failed->message);
            if (!left)
                g_propagate_error(error, g_steal_pointer(&failed));
            left = TRUE;
            error = NULL;
        }
    }
    virCheckpointSegmentsSweep(segments);
    if (left && error)
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "a bitmap of domain '%s' cannot be parked yet",
                    segments->view->name);
    return !left;
}
