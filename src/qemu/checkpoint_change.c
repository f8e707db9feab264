/*
 * checkpoint_change.c: creating and deleting one checkpoint
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a record says what is about to be done before QEMU hears of it.
 *
 * Create: record CREATING, with the new bitmaps' names; one transaction over all disks
 * that adds, per disk, the new active bitmap and then disables the previous one; look;
 * record READY.  The transaction is atomic, so after an answer of QEMU's it is clear
 * what happened.  Without one it is settled later by sending the same transaction
 * again: "exists already" means that it ran, and a late twin of it then fails as a
 * whole.  Looking instead of sending would not do: a dead daemon's transaction can
 * still run inside libvirtd.  A guest whose file systems are to be still is frozen for
 * that transaction alone: all that it needs is open by then.
 *
 * Delete is a change of records, not of bitmaps: bitmap names are ids, so the previous
 * segment of each disk takes the parts over as they are, an active bitmap included.
 * Every step of it can be done twice.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_heirs.h"
#include "checkpoint_offline.h"
#include "checkpoint_quiesce.h"

virCheckpointTxn *
virCheckpointSegmentsCreateTxn(virCheckpointSegments *segments,
                               const virCheckpointRecord *record)
{
    virCheckpointTxn *txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsFindTop(segments, segment->target);
        const virCheckpointRecord *newest =
            virCheckpointSegmentsNewest(segments, segment->target);
        const virCheckpointSegment *previous = NULL;
        const gchar *active;

        if (!top)
            continue;
        virCheckpointTxnAdd(txn, top->name, virCheckpointSegmentActive(segment),
                            segment->granularity, VIR_CHECKPOINT_BITMAP_PERSISTENT);
        if (newest)
            previous = virCheckpointRecordSegment(newest, segment->target);
        active = previous ? virCheckpointSegmentActive(previous) : NULL;
        /* Its bits are in sidecars already when the guest is off. */
        if (active && segments->view->writable &&
            g_strcmp0(previous->kept, active) == 0)
            virCheckpointTxnRemove(txn, top->name, active);
        else if (active)
            virCheckpointTxnDisable(txn, top->name, active);
    }
    return txn;
}

static gboolean
virCheckpointChangeIsCreated(virCheckpointSegments *segments,
                             const virCheckpointSegment *segment)
{
    const virCheckpointNode *top =
        virCheckpointSegmentsFindTop(segments, segment->target);
    const virCheckpointBitmapInfo *info = NULL;

    if (top)
        info = virCheckpointNodeBitmap(top, virCheckpointSegmentActive(segment));
    return info && info->recording && info->persistent && !info->inconsistent;
}

guint
virCheckpointSegmentsCountCreated(virCheckpointSegments *segments,
                                  const virCheckpointRecord *record)
{
    guint count = 0;
    guint i;

    for (i = 0; i < record->segments->len; i++)
        count += virCheckpointChangeIsCreated(segments,
                                              g_ptr_array_index(record->segments, i));
    return count;
}

/* Why a creation that QEMU took is none. */
static void
virCheckpointChangeNotCreated(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              GError **error)
{
    guint i = 0;

    /* The first disk that is without. */
    while (
        i + 1 < record->segments->len &&
        virCheckpointChangeIsCreated(segments, g_ptr_array_index(record->segments, i)))
        i++;
    g_set_error(
        error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
        segments->view->running
            ? "disk '%s': its new bitmap does not record: it changed meanwhile"
            : "disk '%s': its image did not take the new bitmap: there may be "
              "no room for it",
        ((virCheckpointSegment *)g_ptr_array_index(record->segments, i))->target);
}

static virCheckpointSegment *
virCheckpointChangeNewSegment(virCheckpointSegments *segments,
                              const gchar *target,
                              GError **error)
{
    const virCheckpointNode *top = virCheckpointSegmentsTop(segments, target, error);
    g_autoptr(virCheckpointSegment) segment = NULL;
    g_autofree gchar *id = virCheckpointRecordNewId();

    if (!top)
        return NULL;
    if (!virCheckpointSegmentsCanTrack(segments, top)) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "checkpoint for disk %s unsupported: %s", target,
                    g_strcmp0(top->driver, "qcow2") != 0 ? "the image is not qcow2"
                    : top->readOnly                      ? "the image is read-only"
                                    : "a qcow2 version 2 image cannot hold bitmaps");
        return NULL;
    }
    segment = virCheckpointSegmentNew(target);
    segment->born = g_strdup(top->file);
    virCheckpointHeirsFind(segments, target, top, segment->heirs);
    segment->sizeBytes = top->sizeBytes;
    segment->granularity = virCheckpointSegmentsGranularity(top);
    g_ptr_array_add(segment->bitmaps,
                    g_strconcat(VIR_CHECKPOINT_BITMAP_PREFIX, id, NULL));
    return g_steal_pointer(&segment);
}

/* The journal learns the names of all bitmaps of @record in one write. */
static gboolean
virCheckpointChangeJournal(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    guint i;

    for (i = 0; i < record->segments->len; i++)
        g_ptr_array_add(names, (gpointer)virCheckpointSegmentActive(
                                   g_ptr_array_index(record->segments, i)));
    g_ptr_array_add(names, NULL);
    return names->len == 1 ||
           virCheckpointStoreJournalAdd(segments->store,
                                        (const gchar *const *)names->pdata, error);
}

/* No two checkpoints of a domain have one name, libvirt's own included. */
static gboolean
virCheckpointChangeCheckName(virCheckpointSegments *segments,
                             const gchar *name,
                             GError **error)
{
    virDomainCheckpointPtr theirs = NULL;

    if (!virCheckpointTreeByName(segments->records, name))
        theirs = virDomainCheckpointLookupByName(segments->view->domain, name, 0);
    if (!theirs && !virCheckpointTreeByName(segments->records, name))
        return TRUE;
    if (theirs)
        virDomainCheckpointFree(theirs);
    segments->refused = TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                "domain moment %s already exists", name);
    return FALSE;
}

virCheckpointRecord *
virCheckpointSegmentsPlan(virCheckpointSegments *segments,
                          const virCheckpointDef *def,
                          GError **error)
{
    g_autoptr(virCheckpointRecord) record = virCheckpointRecordNew();
    const virCheckpointRecord *parent = virCheckpointTreeCurrent(segments->records);
    g_autofree char *domain = NULL;
    g_autofree gchar *complete = NULL;
    guint i;

    g_free(record->id);
    record->id = virCheckpointRecordNewId();
    record->state = VIR_CHECKPOINT_RECORD_CREATING;
    virCheckpointDefFree(record->def);
    record->def = virCheckpointDefCopy(def);
    if (record->def->creationTime == 0)
        record->def->creationTime = g_get_real_time() / G_USEC_PER_SEC;
    if (!record->def->name)
        record->def->name =
            g_strdup_printf("%" G_GINT64_FORMAT, record->def->creationTime);
    if (!virCheckpointChangeCheckName(segments, record->def->name, error))
        return NULL;
    g_free(record->def->parent);
    record->def->parent = parent ? g_strdup(parent->def->name) : NULL;
    /* As it runs, in the form that could be defined: what libvirt keeps, too. */
    domain = virDomainGetXMLDesc(segments->view->domain,
                                 VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE);
    if (!domain) {
        virCheckpointDomainSetError(error);
        return NULL;
    }
    complete = virCheckpointDomainComplete(domain, segments->view->xml);
    virCheckpointDefSetDomain(record->def, complete);
    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);
        virCheckpointSegment *segment;

        if (disk->type != VIR_CHECKPOINT_DISK_BITMAP)
            continue;
        if (!(segment = virCheckpointChangeNewSegment(segments, disk->name, error)))
            return NULL;
        g_ptr_array_add(record->segments, segment);
    }
    if (!virCheckpointChangeJournal(segments, record, error))
        return NULL;
    return g_steal_pointer(&record);
}

/* Sends the transaction, together with what fills the sidecars that are open for it: if
 * QEMU does not like that, without, and *@ahead is FALSE. */
static gboolean
virCheckpointChangeSend(virCheckpointSegments *segments,
                        virCheckpointRecord *record,
                        gboolean *ahead,
                        GError **error)
{
    g_autoptr(virCheckpointTxn) txn = virCheckpointSegmentsCreateTxn(segments, record);
    g_autoptr(virCheckpointTxn) alone = NULL;
    g_autoptr(GError) refused = NULL;

    if (!virCheckpointSegmentsParkAheadFill(segments, txn))
        return virCheckpointTxnRun(txn, segments->view->monitor, error);
    if (virCheckpointTxnRun(txn, segments->view->monitor, &refused))
        return TRUE;
    if (!virCheckpointMonitorAnswered(segments->view->monitor)) {
        g_propagate_error(error, g_steal_pointer(&refused));
        return FALSE;
    }
    g_debug("domain=%s created without parking ahead: %s", segments->view->uuid,
            refused->message);
    *ahead = FALSE;
    alone = virCheckpointSegmentsCreateTxn(segments, record);
    return virCheckpointTxnRun(alone, segments->view->monitor, error);
}

/* The same, between freeze and thaw when asked: nothing else is, since all of the guest
 * that writes waits.  Thaws whatever happens.  *@answered: as of the transaction,
 * before any other command. */
static gboolean
virCheckpointChangeSendStill(virCheckpointSegments *segments,
                             virCheckpointRecord *record,
                             guint flags,
                             gboolean *answered,
                             GError **error)
{
    const gboolean quiesce = (flags & VIR_CHECKPOINT_SEGMENTS_QUIESCE) != 0;
    gboolean ahead = TRUE;
    gboolean sent;

    if (quiesce && !virCheckpointQuiesceFreeze(segments->store, segments->view, error))
        return FALSE;
    sent = virCheckpointChangeSend(segments, record, &ahead, error);
    *answered = sent || virCheckpointMonitorAnswered(segments->view->monitor);
    if (quiesce && !virCheckpointQuiesceThaw(segments->store, segments->view))
        segments->unswept = TRUE;
    if (!ahead)
        virCheckpointSegmentsParkAheadDrop(segments);
    return sent;
}

/*
 * Sends the transaction and looks whether every disk records.  A snapshot that somebody
 * took at the same moment moves the top away below us: then once more.
 */
static gboolean
virCheckpointChangeApply(virCheckpointSegments *segments,
                         virCheckpointRecord *record,
                         guint flags,
                         gboolean *answered,
                         GError **error)
{
    guint attempt;

    for (attempt = 0; attempt < 2; attempt++) {
        if (!virCheckpointChangeSendStill(segments, record, flags, answered, error) ||
            !virCheckpointSegmentsRestamp(segments, error) ||
            !virCheckpointFaultPoint("create/transaction", error) ||
            !virCheckpointSegmentsReadBack(segments, error) ||
            !virCheckpointSegmentsRefresh(segments, error))
            return FALSE;
        if (virCheckpointSegmentsCountCreated(segments, record) ==
            record->segments->len)
            return TRUE;
        if (!segments->view->running)
            break;
        virCheckpointSegmentsParkAheadDrop(segments);
    }
    virCheckpointChangeNotCreated(segments, record, error);
    return FALSE;
}

gboolean
virCheckpointSegmentsCreate(virCheckpointSegments *segments,
                            const virCheckpointDef *def,
                            guint flags,
                            virCheckpointRecord **record,
                            GError **error)
{
    g_autoptr(virCheckpointRecord) plan = NULL;
    g_autoptr(GPtrArray) targets = NULL;
    gboolean answered = TRUE;

    /* Who cannot be frozen is told before anything is done. */
    if ((flags & VIR_CHECKPOINT_SEGMENTS_QUIESCE) &&
        !virCheckpointQuiesceAsk(segments->view, error)) {
        segments->refused = TRUE;
        return FALSE;
    }
    if (!virCheckpointSegmentsEnsure(segments, error) ||
        !(plan = virCheckpointSegmentsPlan(segments, def, error)) ||
        !virCheckpointFaultPoint("create/planned", error) ||
        !virCheckpointStoreSave(segments->store, plan, error))
        return FALSE;
    g_debug("domain=%s checkpoint=%s state=none->creating", segments->view->uuid,
            plan->def->name);
    if (!virCheckpointFaultPoint("create/recorded", error))
        return FALSE;
    targets = virCheckpointOfflineTargets(plan);
    if (!virCheckpointSegmentsWritable(segments, targets, error)) {
        virCheckpointSegmentsReadBack(segments, NULL);
        virCheckpointStoreRemove(segments->store, plan->id, NULL);
        return FALSE;
    }
    virCheckpointSegmentsParkAhead(segments, plan);
    if (!virCheckpointChangeApply(segments, plan, flags, &answered, error)) {
        virCheckpointSegmentsParkAheadDrop(segments);
        virCheckpointSegmentsReadBack(segments, NULL);
        /* Refused as a whole, or nobody knows: then it stays for settling.  A storage
         * daemon that did not answer has gone, and what it did is in the images. */
        if (segments->view->monitor && (answered || !segments->view->running) &&
            virCheckpointMonitorAnswered(segments->view->monitor) &&
            virCheckpointSegmentsRefresh(segments, NULL) &&
            virCheckpointSegmentsCountCreated(segments, plan) == 0)
            virCheckpointStoreRemove(segments->store, plan->id, NULL);
        return FALSE;
    }
    plan->state = VIR_CHECKPOINT_RECORD_READY;
    if (!virCheckpointStoreSave(segments->store, plan, error) ||
        !virCheckpointFaultPoint("create/ready", error))
        return FALSE;
    g_debug("domain=%s checkpoint=%s state=creating->ready", segments->view->uuid,
            plan->def->name);
    virCheckpointSegmentsSaved(segments, plan);
    virCheckpointHeirsBegin(segments, plan);
    if (record)
        *record = g_steal_pointer(&plan);
    return TRUE;
}

static void
virCheckpointChangeUnite(GPtrArray *into, const GPtrArray *from)
{
    guint i;

    for (i = 0; i < from->len; i++) {
        const gchar *name = g_ptr_array_index(from, i);

        if (!g_ptr_array_find_with_equal_func(into, name, g_str_equal, NULL))
            g_ptr_array_add(into, g_strdup(name));
    }
}

/* @into takes all parts of @from over. */
static void
virCheckpointChangeTakeOver(virCheckpointSegment *into,
                            const virCheckpointSegment *from)
{
    virCheckpointChangeUnite(into->sidecars, from->sidecars);
    virCheckpointChangeUnite(into->bitmaps, from->bitmaps);
    into->lost = into->lost || from->lost;
    if (from->kept && !into->kept) {
        into->kept = g_strdup(from->kept);
        into->stamp = g_strdup(from->stamp);
    }
    if (from->bitmaps->len > 0) {
        g_free(into->born);
        into->born = g_strdup(from->born);
        virCheckpointSegmentSetNames(into->heirs, from->heirs);
        into->sizeBytes = from->sizeBytes;
        into->granularity = from->granularity;
    }
}

/* Hands each segment of @record to the previous one of its disk, or releases its
 * bitmaps.  Mostly all previous ones are in one record: it is written once. */
static gboolean
virCheckpointChangeHandOver(virCheckpointSegments *segments,
                            const virCheckpointRecord *record,
                            GError **error)
{
    g_autoptr(GPtrArray) heirs = g_ptr_array_new();
    guint i;
    guint j;

    for (i = 0; i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);
        virCheckpointRecord *previous =
            virCheckpointTreePrevious(segments->records, record, segment->target);

        if (previous) {
            previous = virCheckpointSegmentsEdit(segments, previous);
            virCheckpointChangeTakeOver(
                virCheckpointRecordSegment(previous, segment->target), segment);
            if (!g_ptr_array_find(heirs, previous, NULL))
                g_ptr_array_add(heirs, previous);
            continue;
        }
        for (j = 0; j < segment->bitmaps->len; j++) {
            if (!virCheckpointSegmentsRelease(
                    segments, g_ptr_array_index(segment->bitmaps, j), error))
                return FALSE;
        }
    }
    for (i = 0; i < heirs->len; i++) {
        if (!virCheckpointStoreSave(segments->store, g_ptr_array_index(heirs, i),
                                    error) ||
            !virCheckpointFaultPoint("delete/handed-over", error))
            return FALSE;
    }
    return virCheckpointFaultPoint("delete/released", error);
}

static gboolean
virCheckpointChangeReparent(virCheckpointSegments *segments,
                            const virCheckpointRecord *record,
                            GError **error)
{
    guint i;

    for (i = 0; i < segments->records->len; i++) {
        virCheckpointRecord *child = g_ptr_array_index(segments->records, i);

        if (child == record || g_strcmp0(child->def->parent, record->def->name) != 0)
            continue;
        child = virCheckpointSegmentsEdit(segments, child);
        g_free(child->def->parent);
        child->def->parent = g_strdup(record->def->parent);
        if (!virCheckpointStoreSave(segments->store, child, error) ||
            !virCheckpointFaultPoint("delete/reparented", error))
            return FALSE;
    }
    return TRUE;
}

/* The sidecars of @record that nobody takes over. */
static GPtrArray *
virCheckpointChangeUnused(virCheckpointSegments *segments,
                          const virCheckpointRecord *record)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        if (!virCheckpointTreePrevious(segments->records, record, segment->target))
            virCheckpointChangeUnite(names, segment->sidecars);
    }
    return names;
}

/* TRUE if nothing of a disk can be newer than @record or between it and the previous
 * one but what is known. */
static gboolean
virCheckpointChangeIsEnd(virCheckpointSegments *segments,
                         const virCheckpointRecord *record,
                         const gchar *target)
{
    const virCheckpointRecord *up = record;

    if (virCheckpointSegmentsNewest(segments, target) != record)
        return FALSE;
    do {
        if (!up->def->parent)
            return TRUE;
        up = virCheckpointTreeParent(segments->records, up);
    } while (up && !virCheckpointRecordSegment(up, target));
    return up != NULL;
}

/* A record that cannot be read may be the one that is to take the bits over, or a
 * child: it would come back to a chain that is cut. */
static gboolean
virCheckpointChangeMayDelete(virCheckpointSegments *segments,
                             const virCheckpointRecord *record,
                             GError **error)
{
    gboolean known = !segments->unread || !virCheckpointSegmentsHasUnnamed(segments);
    guint i;

    for (i = 0; known && segments->unread && i < record->segments->len; i++) {
        const virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        known = virCheckpointChangeIsEnd(segments, record, segment->target);
    }
    return known || virCheckpointSegmentsKnowAll(segments, error);
}

gboolean
virCheckpointSegmentsFinishDelete(virCheckpointSegments *segments,
                                  const gchar *id,
                                  GError **error)
{
    virCheckpointRecord *record = virCheckpointTreeById(segments->records, id);
    g_autofree gchar *name = g_strdup(record->def->name);
    g_autoptr(GPtrArray) unused = NULL;

    if (!virCheckpointChangeMayDelete(segments, record, error) ||
        !virCheckpointChangeHandOver(segments, record, error) ||
        !virCheckpointChangeReparent(segments, record, error))
        return FALSE;
    unused = virCheckpointChangeUnused(segments, record);
    if (segments->records->len == 1)
        virCheckpointSegmentsAwaitSweep(segments);
    if (!virCheckpointStoreRemove(segments->store, record->id, error) ||
        !virCheckpointFaultPoint("delete/removed", error))
        return FALSE;
    virCheckpointSegmentsRemoved(segments, record);
    g_debug("domain=%s checkpoint=%s state=deleting->none", segments->view->uuid, name);
    virCheckpointSegmentsSweepSeen(segments);
    return virCheckpointFaultPoint("delete/swept", error) &&
           virCheckpointStoreCollectOf(segments->store, unused, error);
}

gboolean
virCheckpointSegmentsDelete(virCheckpointSegments *segments,
                            const gchar *id,
                            GError **error)
{
    virCheckpointRecord *record = virCheckpointTreeById(segments->records, id);

    if (!record)
        return TRUE;
    if (!virCheckpointChangeMayDelete(segments, record, error))
        return FALSE;
    g_debug("domain=%s checkpoint=%s state=ready->deleting", segments->view->uuid,
            record->def->name);
    record = virCheckpointSegmentsEdit(segments, record);
    record->state = VIR_CHECKPOINT_RECORD_DELETING;
    if (!virCheckpointStoreSave(segments->store, record, error) ||
        !virCheckpointFaultPoint("delete/recorded", error))
        return FALSE;
    return virCheckpointSegmentsFinishDelete(segments, id, error);
}
