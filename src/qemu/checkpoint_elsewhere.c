/*
 * checkpoint_elsewhere.c: a client defines a checkpoint that another store has
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a guest that migrates takes its active bitmap along, but its records and
 * sidecars stay in the store of the host that it left.  Where that store is not known
 * a management stack redefines its checkpoints from the XML that it keeps.  Libvirt
 * would take them for its own: it could not delete them, for want of their bitmaps, and
 * show them without a size rather than say what is wrong.  So they become ours, with
 * every segment lost: listed, refused with the remedy when used, healed like any other
 * loss.
 *
 * That a checkpoint is another store's is believed where a disk of it carries a bitmap
 * of our prefix that this store never made, and none of its own name.  That bitmap is
 * left alone: it records on for the store that knows it.
 *
 * Nothing that is known here may come to depend on what is not.  So such a checkpoint
 * follows the parent in its XML only where the changes before it are lost as well, and
 * else precedes all that there are.
 */

#include "config.h"

#include <libvirt/virterror.h>

#include "checkpoint_backup.h"
#include "checkpoint_elsewhere.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_offline.h"
#include "checkpoint_segmentspriv.h"

/* The disks (gchar*, borrowed) that @def covers and the domain has. */
static GPtrArray *
virCheckpointElsewhereTargets(const virCheckpointOperation *operation,
                              const virCheckpointDef *def)
{
    GPtrArray *targets = g_ptr_array_new();
    guint i;

    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        if (disk->type == VIR_CHECKPOINT_DISK_BITMAP &&
            virCheckpointDomainFindDisk(operation->view->disks, disk->name))
            g_ptr_array_add(targets, disk->name);
    }
    return targets;
}

/* TRUE if libvirt has a checkpoint of that name, or one of ours under it. */
static gboolean
virCheckpointElsewhereIsTheirs(const virCheckpointOperation *operation,
                               const gchar *name)
{
    virDomainCheckpointPtr theirs;

    if (virCheckpointBackupIsOurName(name))
        return TRUE;
    theirs = virDomainCheckpointLookupByName(operation->view->domain, name, 0);
    if (theirs)
        virDomainCheckpointFree(theirs);
    return theirs != NULL;
}

/* TRUE if no disk of @def has a bitmap of the checkpoint's own, and one at least has
 * one of another store. */
static gboolean
virCheckpointElsewhereIsSeen(virCheckpointSegments *segments,
                             const virCheckpointDef *def)
{
    gboolean seen = FALSE;
    guint i;
    guint j;

    for (i = 0; i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);
        const virCheckpointNode *top =
            disk->type == VIR_CHECKPOINT_DISK_BITMAP
                ? virCheckpointSegmentsFindTop(segments, disk->name)
                : NULL;

        if (!top)
            continue;
        if (virCheckpointNodeBitmap(top, disk->bitmap ? disk->bitmap : def->name))
            return FALSE;
        for (j = 0; j < top->bitmaps->len; j++) {
            const virCheckpointBitmapInfo *info = g_ptr_array_index(top->bitmaps, j);

            seen = seen || virCheckpointSegmentsIsForeign(segments, info->name);
        }
    }
    return seen;
}

/* The parent in the XML, if on each disk of @targets what precedes is lost, too. */
static const virCheckpointRecord *
virCheckpointElsewhereParent(virCheckpointSegments *segments,
                             const virCheckpointDef *def,
                             GPtrArray *targets)
{
    const virCheckpointRecord *parent =
        def->parent ? virCheckpointTreeByName(segments->records, def->parent) : NULL;
    guint i;

    for (i = 0; parent && i < targets->len; i++) {
        const gchar *target = g_ptr_array_index(targets, i);
        const virCheckpointRecord *owner =
            virCheckpointRecordSegment(parent, target)
                ? parent
                : virCheckpointTreePrevious(segments->records, parent, target);

        if (owner && !virCheckpointRecordSegment(owner, target)->lost)
            return NULL;
    }
    return parent;
}

static virCheckpointRecord *
virCheckpointElsewhereRecord(virCheckpointSegments *segments,
                             const virCheckpointDef *def,
                             const virCheckpointRecord *parent,
                             GPtrArray *targets)
{
    virCheckpointRecord *record = virCheckpointRecordNew();
    guint i;

    record->id = virCheckpointRecordNewId();
    record->state = VIR_CHECKPOINT_RECORD_READY;
    record->def = virCheckpointDefCopy(def);
    g_free(record->def->parent);
    record->def->parent = parent ? g_strdup(parent->def->name) : NULL;
    for (i = 0; i < targets->len; i++) {
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, g_ptr_array_index(targets, i));
        virCheckpointSegment *segment;

        if (!top)
            continue;
        segment = virCheckpointSegmentNew(g_ptr_array_index(targets, i));
        segment->lost = TRUE;
        segment->sizeBytes = top->sizeBytes;
        segment->granularity = virCheckpointSegmentsGranularity(top);
        g_ptr_array_add(record->segments, segment);
    }
    return record;
}

/* What followed @parent, or nothing, follows @record. */
static gboolean
virCheckpointElsewhereLink(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           const gchar *parent,
                           GError **error)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *child = g_ptr_array_index(segments->records, i);

        if (g_str_equal(child->id, record->id) ||
            g_strcmp0(child->def->parent, parent) != 0)
            continue;
        child = virCheckpointSegmentsEdit(segments, child);
        g_free(child->def->parent);
        child->def->parent = g_strdup(record->def->name);
        if (!virCheckpointStoreSave(segments->store, child, error) ||
            !virCheckpointFaultPoint("elsewhere/linked", error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointElsewhereAdd(virCheckpointSegments *segments,
                          const virCheckpointDef *def,
                          GPtrArray *targets,
                          GError **error)
{
    const virCheckpointRecord *parent =
        virCheckpointElsewhereParent(segments, def, targets);
    g_autoptr(virCheckpointRecord) record =
        virCheckpointElsewhereRecord(segments, def, parent, targets);

    /* Until what follows is its child it is a branch without a bitmap: inconsistent. */
    if (!virCheckpointStoreSave(segments->store, record, error) ||
        !virCheckpointFaultPoint("elsewhere/recorded", error) ||
        !virCheckpointElsewhereLink(segments, record, parent ? parent->def->name : NULL,
                                    error) ||
        !virCheckpointSegmentsRefresh(segments, error) ||
        !virCheckpointSegmentsEnsure(segments, error))
        return FALSE;
    virCheckpointSegmentsPark(segments, NULL, NULL);
    virCheckpointSegmentsParkOff(segments);
    return TRUE;
}

static gboolean
virCheckpointElsewhereRefuse(const virCheckpointOperation *operation,
                             const virCheckpointDef *def,
                             const gchar *target,
                             GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                "domain '%s', disk '%s': the changes since checkpoint '%s' are in "
                "another store: use it on a host that has that, or create a new "
                "checkpoint and make a full copy",
                operation->view->name, target, def->name);
    return FALSE;
}

gboolean
virCheckpointElsewhereTake(virCheckpointOperation *operation,
                           const virCheckpointDef *def,
                           gboolean validate,
                           gboolean *taken,
                           GError **error)
{
    g_autoptr(GPtrArray) targets = virCheckpointElsewhereTargets(operation, def);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GError) unseen = NULL;

    *taken = FALSE;
    if (targets->len == 0 || virCheckpointElsewhereIsTheirs(operation, def->name))
        return TRUE;
    segments = virCheckpointSegmentsNew(operation->store, operation->view, &unseen);
    if (!segments || !virCheckpointSegmentsOpen(segments, targets, &unseen)) {
        g_info("domain %s: whether another store has checkpoint '%s' is not known: %s",
               operation->view->name, def->name, unseen->message);
        return TRUE;
    }
    if (!virCheckpointElsewhereIsSeen(segments, def))
        return TRUE;
    if (validate)
        return virCheckpointElsewhereRefuse(operation, def,
                                            g_ptr_array_index(targets, 0), error);
    if (!virCheckpointElsewhereAdd(segments, def, targets, error)) {
        virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
        return FALSE;
    }
    g_info("domain %s: checkpoint '%s', which another store has, is redefined: it is "
           "inconsistent here",
           operation->view->name, def->name);
    *taken = TRUE;
    return TRUE;
}
