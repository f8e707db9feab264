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
 * Clients wait for this, so all bitmaps of all disks go together: one transaction, one
 * line of the journal, one write a record.  When the sidecars cannot be written in one
 * go each is tried by itself, so that a bad one does not keep the others.
 *
 * What a creation froze is in its sidecars already, mostly (checkpoint_park_ahead.c).
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
#include "checkpoint_heirs.h"
#include "checkpoint_segmentspriv.h"

/* TRUE if one of @parts (or NULL) is to become @file. */
static gboolean
virCheckpointParkHasPart(GPtrArray *parts, const gchar *file)
{
    guint i;

    for (i = 0; parts && i < parts->len; i++) {
        const virCheckpointSidecarPart *part = g_ptr_array_index(parts, i);

        if (g_str_equal(part->fileName, file))
            return TRUE;
    }
    return FALSE;
}

/* A file name for a sidecar with the bits of bitmap @name that is not taken, nor meant
 * for one of @parts. */
static gchar *
virCheckpointParkNextName(virCheckpointSegments *segments,
                          const gchar *name,
                          GPtrArray *parts,
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
        if (!virCheckpointParkHasPart(parts, file) &&
            !g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&file);
    }
}

gchar *
virCheckpointParkFileName(virCheckpointSegments *segments,
                          const gchar *name,
                          GError **error)
{
    return virCheckpointParkNextName(segments, name, NULL, error);
}

/*
 * The sidecars of bitmap @name: one for each disk size among @layers, since bitmaps
 * merge only between equal ones, and a disk may have been resized while a snapshot was
 * on top.  @name and the layers stay the caller's until they are written.
 * Returns: virCheckpointSidecarPart (transfer full), or NULL.
 */
static GPtrArray *
virCheckpointParkNewParts(virCheckpointSegments *segments,
                          GPtrArray *layers,
                          const gchar *name,
                          GError **error)
{
    g_autoptr(GPtrArray) parts =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointSidecarPartFree);
    g_autoptr(GPtrArray) left = g_ptr_array_copy(layers, NULL, NULL);

    while (left->len > 0) {
        const virCheckpointNode *first = g_ptr_array_index(left, 0);
        const virCheckpointBitmapInfo *info = virCheckpointNodeBitmap(first, name);
        g_autofree gchar *file =
            virCheckpointParkNextName(segments, name, parts, error);
        virCheckpointSidecarPart *part;
        guint i;

        if (!file)
            return NULL;
        part = virCheckpointSidecarPartNew(file, first->sizeBytes, info->granularity);
        g_ptr_array_add(parts, part);
        for (i = 0; i < left->len;) {
            const virCheckpointNode *layer = g_ptr_array_index(left, i);
            virCheckpointBitmapRef ref = {layer->name, name};

            if (layer->sizeBytes != first->sizeBytes) {
                i++;
                continue;
            }
            g_array_append_val(part->sources, ref);
            g_ptr_array_remove_index(left, i);
        }
        /* What was shown frozen stays so, and a copy of it alone has as many bits. */
        part->counted =
            part->sources->len == 1 && (!info->recording || first->readOnly);
        part->countBytes = info->countBytes;
    }
    return g_steal_pointer(&parts);
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
    g_autoptr(GPtrArray) parts = NULL;

    if (info->countBytes == 0)
        return TRUE;
    g_ptr_array_add(layers, (gpointer)top);
    if (!(parts = virCheckpointParkNewParts(segments, layers, name, error)) ||
        !virCheckpointSidecarWriteAll(segments->store, segments->view->monitor, parts,
                                      error))
        return FALSE;
    g_ptr_array_add(
        segment->sidecars,
        g_strdup(((virCheckpointSidecarPart *)g_ptr_array_index(parts, 0))->fileName));
    return TRUE;
}

/* What one bitmap needs to be parked. */
typedef struct virCheckpointParkItem {
    virCheckpointRecord *record;   /* borrowed */
    virCheckpointSegment *segment; /* borrowed */
    gchar *name;                   /* the bitmap */
    gboolean frozen;  /* all of it: its segment names it no longer then; else only what
                         a snapshot put below the top */
    gchar *born;      /* where the rest of the segment is then, or NULL: as before */
    gboolean lost;    /* parts of it are gone */
    GPtrArray *parts; /* virCheckpointSidecarPart*, owned */
} virCheckpointParkItem;

static void
virCheckpointParkItemFree(virCheckpointParkItem *item)
{
    g_free(item->name);
    g_free(item->born);
    if (item->parts)
        g_ptr_array_unref(item->parts);
    g_free(item);
}

static virCheckpointParkItem *
virCheckpointParkItemNew(virCheckpointSegments *segments,
                         const virCheckpointRecord *record,
                         const virCheckpointSegment *segment,
                         const gchar *name)
{
    virCheckpointParkItem *item = g_new0(virCheckpointParkItem, 1);

    item->record = virCheckpointSegmentsEdit(segments, record);
    item->segment = virCheckpointRecordSegment(item->record, segment->target);
    item->name = g_strdup(name);
    return item;
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

/* Plans for one frozen bitmap of @segment.  *@left is set when it must wait. */
static gboolean
virCheckpointParkFrozen(virCheckpointSegments *segments,
                        const virCheckpointRecord *record,
                        const virCheckpointSegment *segment,
                        const gchar *name,
                        GPtrArray *items,
                        gboolean *left,
                        GError **error)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    g_autoptr(GPtrArray) with = g_ptr_array_new();
    virCheckpointParkParts parts = VIR_CHECKPOINT_PARK_PARTS_BUSY;
    virCheckpointParkItem *item;

    if (top)
        parts = virCheckpointParkLook(segments, top, segment, name, with);
    if (parts == VIR_CHECKPOINT_PARK_PARTS_BUSY) {
        *left = TRUE;
        return TRUE;
    }
    item = virCheckpointParkItemNew(segments, record, segment, name);
    g_ptr_array_add(items, item);
    item->frozen = TRUE;
    item->lost = parts == VIR_CHECKPOINT_PARK_PARTS_LOST;
    if (item->lost)
        g_ptr_array_set_size(with, 0);
    return (item->parts =
                virCheckpointParkNewParts(segments, with, item->name, error)) != NULL;
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

/* Plans for what a snapshot froze of the active bitmap of @segment. */
static gboolean
virCheckpointParkLower(virCheckpointSegments *segments,
                       const virCheckpointRecord *record,
                       const virCheckpointSegment *segment,
                       GPtrArray *items,
                       gboolean *left,
                       GError **error)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    const gchar *active = virCheckpointSegmentActive(segment);
    g_autoptr(GPtrArray) with = g_ptr_array_new();
    g_autoptr(GPtrArray) layers = NULL;
    virCheckpointParkItem *item;

    if (!top || g_strcmp0(top->file, segment->born) == 0)
        return TRUE;
    /* One that is not healthy is for virCheckpointSegmentsEnsure() to judge. */
    if (!virCheckpointSegmentsIsHealthy(segments, top, segment)) {
        *left = TRUE;
        return TRUE;
    }
    layers = virCheckpointSegmentsLayers(segments, top, segment, active);
    g_ptr_array_remove_index(layers, 0);
    /* A commit writes to them: what it writes is in the top's bitmap, too. */
    if (virCheckpointParkAnyWritable(layers) ||
        (layers->len > 0 && virCheckpointParkFind(layers, active, with) !=
                                VIR_CHECKPOINT_PARK_PARTS_READY)) {
        *left = TRUE;
        return TRUE;
    }
    item = virCheckpointParkItemNew(segments, record, segment, active);
    g_ptr_array_add(items, item);
    item->born = g_strdup(top->file);
    return (item->parts =
                virCheckpointParkNewParts(segments, with, item->name, error)) != NULL;
}

/* Adds to @items what is to be parked of @segment. */
static gboolean
virCheckpointParkSegment(virCheckpointSegments *segments,
                         const virCheckpointRecord *record,
                         const virCheckpointSegment *segment,
                         GPtrArray *items,
                         gboolean *left,
                         GError **error)
{
    guint i;

    for (i = 0; i < segment->bitmaps->len; i++) {
        const gchar *name = g_ptr_array_index(segment->bitmaps, i);
        gboolean ok = TRUE;

        if (!virCheckpointSegmentsIsRecording(segments, segment->target, name))
            ok = virCheckpointParkFrozen(segments, record, segment, name, items, left,
                                         error);
        else if (virCheckpointSegmentsIsActive(segments, record, segment, name))
            ok = virCheckpointParkLower(segments, record, segment, items, left, error);
        else
            /* A deletion that did not end has handed it on already. */
            *left = TRUE;
        if (!ok)
            return FALSE;
    }
    return TRUE;
}

/* Nothing needs the frozen bitmaps of @items anymore: the journal learns it at once. */
static gboolean
virCheckpointParkRelease(virCheckpointSegments *segments,
                         GPtrArray *items,
                         GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    guint i;

    for (i = 0; i < items->len; i++) {
        const virCheckpointParkItem *item = g_ptr_array_index(items, i);

        if (item->frozen)
            g_ptr_array_add(names, item->name);
    }
    return virCheckpointSegmentsReleaseAll(segments, names, error);
}

/* What @item changes in its record. */
static void
virCheckpointParkApply(virCheckpointSegments *segments,
                       const virCheckpointParkItem *item)
{
    virCheckpointSegment *segment = item->segment;
    guint i;

    for (i = 0; i < item->parts->len; i++) {
        const virCheckpointSidecarPart *part = g_ptr_array_index(item->parts, i);

        g_ptr_array_add(segment->sidecars, g_strdup(part->fileName));
    }
    if (item->lost) {
        segment->lost = TRUE;
        virCheckpointHealSpoil(segments->view->uuid, segment->target);
        virCheckpointSegmentsWarnLost(segments, item->record, segment->target);
    }
    if (item->born) {
        g_free(segment->born);
        segment->born = g_strdup(item->born);
        virCheckpointHeirsFind(segments, segment->target,
                               virCheckpointSegmentsFindTop(segments, segment->target),
                               segment->heirs);
    }
    if (!item->frozen)
        return;
    if (g_strcmp0(item->name, segment->kept) == 0) {
        g_clear_pointer(&segment->kept, g_free);
        g_clear_pointer(&segment->stamp, g_free);
    }
    if (g_ptr_array_find_with_equal_func(segment->bitmaps, item->name, g_str_equal, &i))
        g_ptr_array_remove_index(segment->bitmaps, i);
    if (segment->bitmaps->len == 0)
        g_ptr_array_set_size(segment->heirs, 0);
}

/* Each record of @items names the sidecars and no longer the bitmaps, in one write. */
static gboolean
virCheckpointParkSave(virCheckpointSegments *segments, GPtrArray *items, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new();
    guint i;

    for (i = 0; i < items->len; i++) {
        const virCheckpointParkItem *item = g_ptr_array_index(items, i);

        virCheckpointParkApply(segments, item);
        if (!g_ptr_array_find(records, item->record, NULL))
            g_ptr_array_add(records, item->record);
    }
    for (i = 0; i < records->len; i++) {
        if (!virCheckpointStoreSave(segments->store, g_ptr_array_index(records, i),
                                    error) ||
            !virCheckpointFaultPoint("park/saved", error))
            return FALSE;
    }
    return TRUE;
}

/* Writes the sidecars of @items.  FALSE: none of them counts. */
static gboolean
virCheckpointParkWrite(virCheckpointSegments *segments,
                       GPtrArray *items,
                       GError **error)
{
    g_autoptr(GPtrArray) parts = g_ptr_array_new();
    gboolean taken;
    guint i;
    guint j;

    for (i = 0; i < items->len; i++) {
        const virCheckpointParkItem *item = g_ptr_array_index(items, i);

        for (j = 0; j < item->parts->len; j++)
            g_ptr_array_add(parts, g_ptr_array_index(item->parts, j));
    }
    return virCheckpointSegmentsParkAheadTake(segments, parts, &taken, error) &&
           (taken || virCheckpointSidecarWriteAll(
                         segments->store, segments->view->monitor, parts, error)) &&
           virCheckpointFaultPoint("park/written", error);
}

/* What could not be parked is tried again by the next operation. */
static void
virCheckpointParkWarn(virCheckpointSegments *segments,
                      const virCheckpointParkItem *item,
                      const GError *failed)
{
    g_warning("domain %s (%s), disk %s: the bits of checkpoint '%s' stay in the image "
              "until the next operation: %s",
              segments->view->name, segments->view->uuid, item->segment->target,
              item->record->def->name, failed->message);
}

/* Those of @items whose sidecars could be written; the first @error of the others. */
static GPtrArray *
virCheckpointParkWriteSome(virCheckpointSegments *segments,
                           GPtrArray *items,
                           GError **error)
{
    GPtrArray *written = g_ptr_array_new();
    g_autoptr(GError) together = NULL;
    guint i;

    if (virCheckpointParkWrite(segments, items, &together)) {
        g_ptr_array_extend(written, items, NULL, NULL);
        return written;
    }
    for (i = 0; i < items->len; i++) {
        virCheckpointParkItem *item = g_ptr_array_index(items, i);
        g_autoptr(GPtrArray) one = g_ptr_array_new();
        g_autoptr(GError) failed = NULL;

        g_ptr_array_add(one, item);
        if (items->len == 1) {
            failed = g_steal_pointer(&together);
        } else if (virCheckpointParkWrite(segments, one, &failed)) {
            g_ptr_array_add(written, item);
            continue;
        }
        virCheckpointParkWarn(segments, item, failed);
        if (error && !*error)
            g_propagate_error(error, g_steal_pointer(&failed));
    }
    return written;
}

/* TRUE if a frozen bitmap of @segment seems lost. */
static gboolean
virCheckpointParkSeemsLost(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const virCheckpointSegment *segment)
{
    const virCheckpointNode *top = NULL;
    guint i;

    /* Of a thousand segments all but a few have none. */
    if (segment->bitmaps->len > 0)
        top = virCheckpointSegmentsFindTop(segments, segment->target);
    for (i = 0; top && i < segment->bitmaps->len; i++) {
        const gchar *name = g_ptr_array_index(segment->bitmaps, i);
        g_autoptr(GPtrArray) with = g_ptr_array_new();

        if (!virCheckpointSegmentsIsRecording(segments, segment->target, name) &&
            virCheckpointParkLook(segments, top, segment, name, with) ==
                VIR_CHECKPOINT_PARK_PARTS_LOST)
            return TRUE;
    }
    return FALSE;
}

/* What is to be parked of disk @target, or of all. */
static GPtrArray *
virCheckpointParkPlan(virCheckpointSegments *segments,
                      const gchar *target,
                      gboolean *left,
                      GError **error)
{
    g_autoptr(GPtrArray) items =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointParkItemFree);
    guint i;
    guint j;

    for (i = 0; i < segments->records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(segments->records, i);

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (target && g_strcmp0(segment->target, target) != 0)
                continue;
            if (!virCheckpointParkSegment(segments, record, segment, items, left,
                                          error))
                return NULL;
        }
    }
    return g_steal_pointer(&items);
}

/* TRUE if one of @items names its bitmap no longer. */
static gboolean
virCheckpointParkAnyFrozen(GPtrArray *items)
{
    guint i;

    for (i = 0; i < items->len; i++) {
        if (((const virCheckpointParkItem *)g_ptr_array_index(items, i))->frozen)
            return TRUE;
    }
    return FALSE;
}

/* Parks; what is released then (@released: anything is) is still in QEMU. */
static gboolean
virCheckpointParkAll(virCheckpointSegments *segments,
                     const gchar *target,
                     gboolean *released,
                     GError **error)
{
    g_autoptr(GPtrArray) items = NULL;
    g_autoptr(GPtrArray) written = NULL;
    g_autoptr(GError) failed = NULL;
    gboolean left = FALSE;

    if (!virCheckpointSegmentsConfirm(segments, virCheckpointParkSeemsLost, error) ||
        !(items = virCheckpointParkPlan(segments, target, &left, error)))
        return FALSE;
    *released = virCheckpointParkAnyFrozen(items);
    if (items->len > 0) {
        written = virCheckpointParkWriteSome(segments, items, &failed);
        if (written->len > 0 && (!virCheckpointParkRelease(segments, written, error) ||
                                 !virCheckpointFaultPoint("park/released", error) ||
                                 !virCheckpointParkSave(segments, written, error)))
            return FALSE;
    }
    if (failed) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    if (left)
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                    "a bitmap of domain '%s' cannot be parked yet",
                    segments->view->name);
    return !left;
}

gboolean
virCheckpointSegmentsPark(virCheckpointSegments *segments,
                          const gchar *target,
                          GError **error)
{
    gboolean released = TRUE;
    gboolean parked;

    if (!segments->graph)
        return TRUE;
    parked = virCheckpointParkAll(segments, target, &released, error);
    if (parked && !released)
        virCheckpointSegmentsSweepSeen(segments);
    else
        virCheckpointSegmentsSweep(segments);
    return parked;
}

gboolean
virCheckpointSegmentsParkLast(virCheckpointSegments *segments)
{
    g_autoptr(GError) error = NULL;
    gboolean released;

    if (!segments->graph)
        return TRUE;
    if (virCheckpointParkAll(segments, NULL, &released, &error)) {
        virCheckpointSegmentsSweepSeen(segments);
        return !segments->unswept;
    }
    g_debug("domain=%s not all is parked: %s", segments->view->uuid, error->message);
    /* A record that could not be written still names what ours here names no more: only
     * the store knows what may go. */
    virCheckpointSegmentsSweep(segments);
    return !segments->unswept &&
           g_error_matches(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY);
}
