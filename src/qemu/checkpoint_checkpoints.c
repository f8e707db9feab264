/*
 * checkpoint_checkpoints.c: the checkpoint calls
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: the calls behave as libvirt's, code and text of errors included.  Those that
 * change something hold the domain's slot and settle first; those that only read
 * records take a snapshot of the store and never wait.  Which checkpoint is whose
 * parent, and which are shown, comes from the records alone: what is being created is
 * not there yet, what is being deleted still is.
 */

#include "config.h"

#include <string.h>

#include "checkpoint_compact.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_leave.h"
#include "checkpoint_leaving.h"
#include "checkpoint_offline.h"
#include "checkpoint_redefine.h"
#include "checkpoint_segmentspriv.h"

/* Flags that libvirt refuses get libvirt's sentence, which has no prefix. */
static gboolean
virCheckpointEngineCheckFlags(guint flags,
                              guint known,
                              const gchar *function,
                              GError **error)
{
    if (!(flags & ~known))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_LIBVIRT_ERROR, VIR_ERR_INVALID_ARG,
                "unsupported flags (0x%x) in function %s", flags & ~known, function);
    return FALSE;
}

static gboolean
virCheckpointEngineNoSuch(const gchar *name, GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                "no domain checkpoint with matching name '%s'", name);
    return FALSE;
}

/* The record that clients know as @name. */
static virCheckpointRecord *
virCheckpointEngineFind(GPtrArray *records, const gchar *name, GError **error)
{
    virCheckpointRecord *record = name ? virCheckpointTreeByName(records, name) : NULL;

    if (record && record->state != VIR_CHECKPOINT_RECORD_CREATING)
        return record;
    virCheckpointEngineNoSuch(name, error);
    return NULL;
}

/*
 * A push that may have ended decides about its checkpoint before the records are looked
 * at: one that was read before and is returned after would come back from the dead.
 */
static void
virCheckpointEngineConcludeBackup(virCheckpointEngine *engine, const gchar *uuid)
{
    if (!virCheckpointBackupIsPending(engine, uuid))
        return;
    virCheckpointEngineUnsettle(engine, uuid);
    virCheckpointEngineSettle(engine, uuid, NULL);
}

/*
 * TRUE if a crash left something undecided that concerns which checkpoints there are:
 * an @unready record, or a copy that was being started and takes its checkpoint back.
 * One that this daemon began, or whose start was answered, is no such copy.
 */
static gboolean
virCheckpointEngineIsUndecided(virCheckpointEngine *engine,
                               const gchar *uuid,
                               gboolean unready)
{
    g_autoptr(GPtrArray) jobs = NULL;
    guint i;

    if (unready)
        return TRUE;
    jobs = virCheckpointStorePeekJobs(engine->store, uuid, NULL);
    for (i = 0; jobs && i < jobs->len; i++) {
        if (!virCheckpointEngineHasBegun(engine, uuid, g_ptr_array_index(jobs, i)))
            return TRUE;
    }
    return FALSE;
}

/* The record that clients know as @name, alone: as below. */
static virCheckpointRecord *
virCheckpointEnginePeekOne(virCheckpointEngine *engine,
                           const gchar *uuid,
                           const gchar *name,
                           GError **error)
{
    g_autoptr(virCheckpointRecord) record = NULL;
    gboolean unready = FALSE;
    gboolean settled;

    virCheckpointEngineConcludeBackup(engine, uuid);
    settled = virCheckpointEngineIsSettled(engine, uuid);
    if (!virCheckpointStorePeekOne(engine->store, uuid, name, &record, &unready, error))
        return NULL;
    if (!settled && virCheckpointEngineIsUndecided(engine, uuid, unready)) {
        g_clear_pointer(&record, virCheckpointRecordFree);
        virCheckpointEngineSettle(engine, uuid, NULL);
        if (!virCheckpointStorePeekOne(engine->store, uuid, name, &record, &unready,
                                       error))
            return NULL;
    }
    if (record && record->state != VIR_CHECKPOINT_RECORD_CREATING)
        return g_steal_pointer(&record);
    virCheckpointEngineNoSuch(name, error);
    return NULL;
}

/*
 * The records' relations as they are.  Only what a crash left undecided is waited for:
 * otherwise a checkpoint would come or go under the eyes of the client that asks what
 * became of it.  So it is asked first whether the domain is settled, and then read:
 * the other way round, what was read may be what settling has just decided against.
 */
static GPtrArray *
virCheckpointEnginePeek(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    g_autoptr(GPtrArray) records = NULL;
    gboolean unready = FALSE;
    gboolean settled;
    guint i;

    virCheckpointEngineConcludeBackup(engine, uuid);
    settled = virCheckpointEngineIsSettled(engine, uuid);
    records = virCheckpointStorePeekShared(engine->store, uuid, error);
    if (settled || !records)
        return g_steal_pointer(&records);
    for (i = 0; !unready && i < records->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(records, i);

        unready = record->state != VIR_CHECKPOINT_RECORD_READY;
    }
    if (!virCheckpointEngineIsUndecided(engine, uuid, unready))
        return g_steal_pointer(&records);
    virCheckpointEngineSettle(engine, uuid, NULL);
    return virCheckpointStorePeekShared(engine->store, uuid, error);
}

static gboolean
virCheckpointEngineRedefine(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const gchar *xml,
                            gboolean validate,
                            gchar **name,
                            GError **error)
{
    g_autoptr(virCheckpointDef) def =
        virCheckpointDefParse(xml, VIR_CHECKPOINT_DEF_PARSE_REDEFINE, error);
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(GPtrArray) records = NULL;
    gboolean taken = FALSE;

    if (!def || !(records = virCheckpointEnginePeek(engine, uuid, error)))
        return FALSE;
    if (!virCheckpointEngineFind(records, def->name, NULL)) {
        if (!virCheckpointRedefineNew(engine, uuid, def, validate, records, &taken,
                                      error))
            return FALSE;
        if (!taken)
            return virCheckpointEngineNoSuch(def->name, error);
        *name = g_strdup(def->name);
        return TRUE;
    }
    if (!(operation = virCheckpointOperationBegin(engine, uuid, 0, error)) ||
        !virCheckpointRedefine(operation, def, validate, error))
        return FALSE;
    *name = g_strdup(def->name);
    return TRUE;
}

GPtrArray *
virCheckpointEngineDisks(const virCheckpointDomainView *view)
{
    GPtrArray *disks = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; i < view->disks->len; i++) {
        const virCheckpointDisk *from = g_ptr_array_index(view->disks, i);
        virCheckpointDomainDisk *disk = g_new0(virCheckpointDomainDisk, 1);

        disk->target = from->target;
        disk->source = from->source;
        disk->readOnly = from->readOnly;
        disk->empty = from->empty;
        disk->qcow2 = g_strcmp0(from->format, "qcow2") == 0;
        g_ptr_array_add(disks, disk);
    }
    return disks;
}

void
virCheckpointEngineParkRest(virCheckpointEngine *engine,
                            virCheckpointSegments *segments,
                            const gchar *target)
{
    g_autoptr(GError) error = NULL;

    if (!virCheckpointSegmentsPark(segments, target, &error))
        g_info("domain %s, %s: not all is parked: %s", segments->view->name,
               target ? target : "all disks", error->message);
    if (segments->unswept ||
        (error && !g_error_matches(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY)))
        virCheckpointEngineSettleLater(engine, segments->view->uuid);
}

/*
 * Before the answer: whoever was told that a checkpoint exists may end the guest or
 * commit a layer at once, on libvirt's own socket, too, and a frozen bitmap that is
 * still in the image then is lost.  And a monitor command of ours under way while a
 * guest is destroyed and started again makes libvirt 9.0 take the new QEMU for dead
 * (seen).  What cannot be parked now is tried again by the next operation.
 */
void
virCheckpointEnginePark(virCheckpointOperation *operation)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNew(operation->store, operation->view, NULL);

    if (segments && !virCheckpointSegmentsParkLast(segments))
        virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
}

/* A copy of a guest that is off has an image open: nobody else can write to it. */
static gboolean
virCheckpointEngineCheckIdle(virCheckpointOperation *operation, GError **error)
{
    if (operation->view->running ||
        !virCheckpointEngineHasMirror(operation->engine, operation->view->uuid, NULL))
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_BLOCK_COPY_ACTIVE,
                "domain '%s' is shut off and has an active block job",
                operation->view->name);
    return FALSE;
}

/* The disks (gchar*) that @def covers. */
static GPtrArray *
virCheckpointEngineCovered(const virCheckpointDef *def)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;

    for (i = 0; def->disks && i < def->disks->len; i++) {
        const virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);

        if (disk->type == VIR_CHECKPOINT_DISK_BITMAP)
            g_ptr_array_add(targets, g_strdup(disk->name));
    }
    return targets;
}

static gboolean
virCheckpointEngineCreateLocked(virCheckpointOperation *operation,
                                virCheckpointDef *def,
                                guint flags,
                                GError **error)
{
    g_autoptr(GPtrArray) disks = virCheckpointEngineDisks(operation->view);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) targets = NULL;

    if (!virCheckpointEngineCheckIdle(operation, error) ||
        !virCheckpointDefAlignDisks(def, disks, FALSE, error) ||
        !(segments =
              virCheckpointSegmentsNewBrief(operation->store, operation->view, error)))
        return FALSE;
    targets = virCheckpointEngineCovered(def);
    if (!virCheckpointSegmentsOpen(segments, targets, error))
        return FALSE;
    virCheckpointLeavingFirst(operation->engine, operation->store, operation->view);
    if (!virCheckpointSegmentsCreate(segments, def,
                                     flags & VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE
                                         ? VIR_CHECKPOINT_SEGMENTS_QUIESCE
                                         : 0,
                                     NULL, error)) {
        if (!segments->refused)
            virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
        return FALSE;
    }
    g_info("domain %s: checkpoint '%s' created", operation->view->name, def->name);
    if (!virCheckpointSegmentsParkLast(segments))
        virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
    return TRUE;
}

gboolean
virCheckpointEngineCreate(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *xml,
                          guint flags,
                          gchar **name,
                          GError **error)
{
    g_autoptr(virCheckpointOperation) operation = NULL;
    g_autoptr(virCheckpointDef) def = NULL;

    if (!virCheckpointEngineCheckFlags(
            flags,
            VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE |
                VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE |
                VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE,
            "qemuCheckpointCreateXML", error))
        return FALSE;
    if ((flags & VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE) &&
        !(flags & VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)) {
        g_set_error_literal(
            error, VIR_CHECKPOINT_LIBVIRT_ERROR, VIR_ERR_INVALID_ARG,
            "Flag 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE' is required by "
            "flag 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE'");
        return FALSE;
    }
    if (flags & VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE)
        return virCheckpointEngineRedefine(
            engine, uuid, xml,
            (flags & VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE) != 0, name, error);
    if (!(def = virCheckpointDefParse(xml, 0, error)) ||
        !(operation = virCheckpointOperationBegin(engine, uuid, 0, error)))
        return FALSE;
    def->creationTime = g_get_real_time() / G_USEC_PER_SEC;
    if (!def->name)
        def->name = g_strdup_printf("%" G_GINT64_FORMAT, def->creationTime);
    if (!virCheckpointEngineCreateLocked(operation, def, flags, error))
        return FALSE;
    *name = g_strdup(def->name);
    return TRUE;
}

/* The ids to delete, in that order. */
static GPtrArray *
virCheckpointEngineVictims(GPtrArray *records,
                           const virCheckpointRecord *record,
                           guint flags)
{
    GPtrArray *ids = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) below = NULL;
    guint i;

    if (flags & (VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN |
                 VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY)) {
        below = virCheckpointTreeDescendants(records, record->def->name);
        for (i = below->len; i-- > 0;) {
            const virCheckpointRecord *child = g_ptr_array_index(below, i);

            g_ptr_array_add(ids, g_strdup(child->id));
        }
    }
    if (!(flags & VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY))
        g_ptr_array_add(ids, g_strdup(record->id));
    return ids;
}

/* The disks (gchar*) of which a bitmap may be of no use after the deletion. */
static GPtrArray *
virCheckpointEngineReleasing(virCheckpointSegments *segments, GPtrArray *ids)
{
    GPtrArray *targets = g_ptr_array_new_with_free_func(g_free);
    guint i;
    guint j;

    for (i = 0; i < ids->len; i++) {
        const virCheckpointRecord *record =
            virCheckpointTreeById(segments->records, g_ptr_array_index(ids, i));

        for (j = 0; j < record->segments->len; j++) {
            const virCheckpointSegment *segment =
                g_ptr_array_index(record->segments, j);

            if (!virCheckpointTreePrevious(segments->records, record,
                                           segment->target) &&
                !g_ptr_array_find_with_equal_func(targets, segment->target, g_str_equal,
                                                  NULL))
                g_ptr_array_add(targets, g_strdup(segment->target));
        }
    }
    return targets;
}

static gboolean
virCheckpointEngineDeleteLocked(virCheckpointOperation *operation,
                                const gchar *name,
                                guint flags,
                                GError **error)
{
    g_autoptr(virCheckpointSegments) segments =
        virCheckpointSegmentsNewBrief(operation->store, operation->view, error);
    const virCheckpointRecord *record;
    g_autoptr(GPtrArray) ids = NULL;
    g_autoptr(GPtrArray) targets = NULL;
    g_autoptr(GError) unchecked = NULL;
    gboolean parked;
    guint i;

    if (!segments)
        return FALSE;
    /* It hands on what is there: a loss that cannot be settled now is settled next. */
    if (!virCheckpointSegmentsSeemTracked(segments) &&
        !virCheckpointSegmentsEnsure(segments, &unchecked))
        g_info("domain %s: before a deletion: %s", operation->view->name,
               unchecked->message);
    if (!(record = virCheckpointEngineFind(segments->records, name, error)))
        return FALSE;
    ids = virCheckpointEngineVictims(segments->records, record, flags);
    targets = virCheckpointEngineReleasing(segments, ids);
    if (flags & VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
        virCheckpointLeaveBits(segments, ids);
    for (i = 0; i < ids->len; i++) {
        const gchar *id = g_ptr_array_index(ids, i);

        if (!virCheckpointSegmentsDelete(segments, id, error)) {
            virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
            return FALSE;
        }
    }
    g_info("domain %s: checkpoint '%s' deleted (%u in all)", operation->view->name,
           name, ids->len);
    if (!virCheckpointSegmentsSeemTracked(segments))
        virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
    /* What is not parked, and bitmaps that stay in an image. */
    parked = virCheckpointSegmentsParkLast(segments);
    if (!virCheckpointSegmentsSweepOff(segments, targets) || !parked)
        virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
    return TRUE;
}

gboolean
virCheckpointEngineDelete(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          GError **error)
{
    g_autoptr(virCheckpointOperation) operation = NULL;

    if (!virCheckpointEngineCheckFlags(flags,
                                       VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN |
                                           VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY |
                                           VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY,
                                       "qemuCheckpointDelete", error))
        return FALSE;
    if ((flags & VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN) &&
        (flags & VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY)) {
        g_set_error_literal(error, VIR_CHECKPOINT_LIBVIRT_ERROR, VIR_ERR_INVALID_ARG,
                            "Flags 'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN' and "
                            "'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY' are mutually "
                            "exclusive");
        return FALSE;
    }
    if (!(operation = virCheckpointOperationBegin(engine, uuid, 0, error)) ||
        !virCheckpointEngineDeleteLocked(operation, name, flags, error))
        return FALSE;
    virCheckpointCompactLater(engine, uuid);
    return TRUE;
}

/* The number of bytes changed on disk @target since @record. */
static gboolean
virCheckpointEngineMeasure(virCheckpointSegments *segments,
                           const virCheckpointRecord *record,
                           virCheckpointDiskDef *disk,
                           GError **error)
{
    g_autofree gchar *name =
        g_strdup_printf(VIR_CHECKPOINT_HELPER_BITMAP "%08x", g_random_int());
    const virCheckpointNode *top =
        virCheckpointSegmentsTop(segments, disk->name, error);
    const virCheckpointNode *now;
    const virCheckpointBitmapInfo *info = NULL;
    g_autoptr(virCheckpointGraph) graph = NULL;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();

    if (!top || !virCheckpointSegmentsSince(segments, record, disk->name, top->name,
                                            name, FALSE, error))
        return FALSE;
    graph = virCheckpointGraphQueryNodes(segments->view->monitor, error);
    virCheckpointTxnRemove(txn, top->name, name);
    if (!virCheckpointTxnRun(txn, segments->view->monitor, graph ? error : NULL) ||
        !graph)
        return FALSE;
    if ((now = virCheckpointGraphNode(graph, top->name)))
        info = virCheckpointNodeBitmap(now, name);
    if (!info) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                    "the disk '%s' changed while it was looked at", disk->name);
        return FALSE;
    }
    disk->hasSize = TRUE;
    disk->sizeBytes = info->countBytes;
    return TRUE;
}

/*
 * A disk that was taken out has no size, nor has one whose changes are not known (its
 * image was replaced, its QEMU was killed): the others still have theirs.  If nothing
 * can be said of any disk, that is the answer.
 */
static gboolean
virCheckpointEngineMeasureAll(virCheckpointSegments *segments,
                              const virCheckpointRecord *record,
                              virCheckpointDef *def,
                              GError **error)
{
    g_autoptr(GError) unknown = NULL;
    gboolean any = FALSE;
    guint i;

    for (i = 0; def->disks && i < def->disks->len; i++) {
        virCheckpointDiskDef *disk = g_ptr_array_index(def->disks, i);
        g_autoptr(GError) failed = NULL;

        if (disk->type != VIR_CHECKPOINT_DISK_BITMAP ||
            !virCheckpointSegmentsFindTop(segments, disk->name))
            continue;
        if (virCheckpointEngineMeasure(segments, record, disk, &failed)) {
            any = TRUE;
            continue;
        }
        if (!g_error_matches(failed, VIR_CHECKPOINT_ERROR,
                             VIR_ERR_CHECKPOINT_INCONSISTENT)) {
            g_propagate_error(error, g_steal_pointer(&failed));
            return FALSE;
        }
        g_debug("domain=%s checkpoint=%s no size: %s", segments->view->uuid,
                record->def->name, failed->message);
        if (!unknown)
            unknown = g_steal_pointer(&failed);
    }
    if (any || !unknown)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&unknown));
    return FALSE;
}

static virCheckpointDef *
virCheckpointEngineDefWithSizes(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const gchar *name,
                                GError **error)
{
    g_autoptr(virCheckpointOperation) operation =
        virCheckpointOperationBegin(engine, uuid, 0, error);
    g_autoptr(virCheckpointSegments) segments = NULL;
    g_autoptr(GPtrArray) targets = NULL;
    g_autoptr(virCheckpointDef) def = NULL;
    const virCheckpointRecord *record;

    if (!operation ||
        !(segments =
              virCheckpointSegmentsNew(operation->store, operation->view, error)) ||
        !(record = virCheckpointEngineFind(segments->records, name, error)))
        return NULL;
    targets = virCheckpointOfflineTargets(record);
    if (!virCheckpointSegmentsOpen(segments, targets, error) ||
        !virCheckpointSegmentsEnsure(segments, error) ||
        !(record = virCheckpointEngineFind(segments->records, name, error)))
        return NULL;
    def = virCheckpointDefCopy(record->def);
    if (!virCheckpointEngineMeasureAll(segments, record, def, error)) {
        virCheckpointEngineUnsettle(engine, uuid);
        return NULL;
    }
    return g_steal_pointer(&def);
}

static virCheckpointDef *
virCheckpointEnginePeekDef(virCheckpointEngine *engine,
                           const gchar *uuid,
                           const gchar *name,
                           GError **error)
{
    g_autoptr(virCheckpointRecord) record =
        virCheckpointEnginePeekOne(engine, uuid, name, error);

    return record ? g_steal_pointer(&record->def) : NULL;
}

/* What VIR_DOMAIN_XML_SECURE adds: passwords of graphics, as libvirt prints them. */
static void
virCheckpointEngineDropSecrets(virCheckpointDef *def)
{
    g_autoptr(GRegex) tag = g_regex_new("<graphics [^>]*>", 0, 0, NULL);
    g_autoptr(GRegex) secret = g_regex_new(" passwd='[^']*'", 0, 0, NULL);
    g_autoptr(GMatchInfo) match = NULL;
    GString *clean;
    gint from = 0;

    if (!def->domain)
        return;
    clean = g_string_new(NULL);
    g_regex_match(tag, def->domain, 0, &match);
    while (g_match_info_matches(match)) {
        g_autofree gchar *text = g_match_info_fetch(match, 0);
        g_autofree gchar *without =
            g_regex_replace_literal(secret, text, -1, 0, "", 0, NULL);
        gint start;
        gint end;

        g_match_info_fetch_pos(match, 0, &start, &end);
        g_string_append_len(clean, def->domain + from, start - from);
        g_string_append(clean, without);
        from = end;
        g_match_info_next(match, NULL);
    }
    g_string_append(clean, def->domain + from);
    virCheckpointDefSetDomain(def, clean->str);
    g_string_free(clean, TRUE);
}

gboolean
virCheckpointEngineGetXml(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          gchar **xml,
                          GError **error)
{
    g_autoptr(virCheckpointDef) def = NULL;
    guint format = 0;

    if (!virCheckpointEngineCheckFlags(flags,
                                       VIR_DOMAIN_CHECKPOINT_XML_SECURE |
                                           VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN |
                                           VIR_DOMAIN_CHECKPOINT_XML_SIZE,
                                       "qemuCheckpointGetXMLDesc", error))
        return FALSE;
    if (!(def = virCheckpointEnginePeekDef(engine, uuid, name, error)))
        return FALSE;
    if (flags & VIR_DOMAIN_CHECKPOINT_XML_SIZE) {
        virCheckpointDefFree(def);
        if (!(def = virCheckpointEngineDefWithSizes(engine, uuid, name, error)))
            return FALSE;
        format |= VIR_CHECKPOINT_DEF_FORMAT_SIZE;
    }
    if (flags & VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN)
        format |= VIR_CHECKPOINT_DEF_FORMAT_NO_DOMAIN;
    if (!(flags & VIR_DOMAIN_CHECKPOINT_XML_SECURE))
        virCheckpointEngineDropSecrets(def);
    *xml = virCheckpointDefFormat(def, format);
    return TRUE;
}

void
virCheckpointEngineEntryFree(virCheckpointEngineEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->name);
    g_free(entry->parent);
    g_free(entry);
}

GPtrArray *
virCheckpointEngineList(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    g_autoptr(GPtrArray) records = virCheckpointEnginePeek(engine, uuid, error);
    g_autoptr(GPtrArray) sorted = NULL;
    GPtrArray *entries;
    guint i;

    if (!records)
        return NULL;
    sorted = virCheckpointTreeSorted(records);
    entries =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointEngineEntryFree);
    for (i = 0; i < sorted->len; i++) {
        const virCheckpointRecord *record = g_ptr_array_index(sorted, i);
        virCheckpointEngineEntry *entry;

        if (record->state == VIR_CHECKPOINT_RECORD_CREATING)
            continue;
        entry = g_new0(virCheckpointEngineEntry, 1);
        entry->name = g_strdup(record->def->name);
        entry->parent = g_strdup(record->def->parent);
        g_ptr_array_add(entries, entry);
    }
    return entries;
}

gboolean
virCheckpointEngineHas(virCheckpointEngine *engine,
                       const gchar *uuid,
                       const gchar *name)
{
    g_autoptr(virCheckpointRecord) record =
        virCheckpointEnginePeekOne(engine, uuid, name, NULL);

    return record != NULL;
}
