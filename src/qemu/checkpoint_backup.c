/*
 * checkpoint_backup.c: backups from our checkpoints, by libvirt
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/backup.md): libvirt backs a disk up since a checkpoint of its
 * own that has one bitmap with all changes.  So for the length of its call we give it
 * one: the set since our checkpoint as one persistent, recording bitmap per disk, and a
 * checkpoint of libvirt's by a redefine, both under a new name.  Libvirt copies the
 * bitmap when the job begins, so bitmap and checkpoint go as soon as the call returned.
 *
 * A checkpoint in the same call is made by libvirt, in the transaction that starts the
 * job, under a new name, too.  Afterwards it becomes ours: per disk a bitmap of ours is
 * added, then libvirt's is merged into it, then the previous segment is frozen; then
 * libvirt's goes.  Whatever was written between the two is in both segments.
 *
 * All names are in the record, and in the journal as released, before libvirt or QEMU
 * hear of them: who is killed in between leaves garbage that is known as such.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "checkpoint_backup.h"
#include "checkpoint_backup_request.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_heirs.h"
#include "checkpoint_leaving.h"
#include "checkpoint_xml.h"

/** One call under way. */
typedef struct virCheckpointBackup {
    virCheckpointOperation *operation;
    virCheckpointSegments *segments;
    virCheckpointBackupRequest *request;
    virCheckpointBackupRecord *record;
    virCheckpointRecord *plan; /* of the checkpoint in the same call, or NULL */
    gchar *own;                /* libvirt's name of that, or NULL */
    gboolean adopting;         /* QEMU may have bitmaps of @plan */
} virCheckpointBackup;

static void
virCheckpointBackupClear(virCheckpointBackup *backup)
{
    g_clear_pointer(&backup->segments, virCheckpointSegmentsFree);
    g_clear_pointer(&backup->request, virCheckpointBackupRequestFree);
    g_clear_pointer(&backup->record, virCheckpointBackupRecordFree);
    g_clear_pointer(&backup->plan, virCheckpointRecordFree);
    g_clear_pointer(&backup->own, g_free);
    g_clear_pointer(&backup->operation, virCheckpointOperationEnd);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointBackup, virCheckpointBackupClear)

/* A new name that stands for @given; whoever finds it removes it. */
static gchar *
virCheckpointBackupNewName(virCheckpointBackup *backup,
                           const gchar *given,
                           GError **error)
{
    g_autofree gchar *name = virCheckpointSegmentsNewName(backup->segments, error);

    if (!name || !virCheckpointSegmentsRelease(backup->segments, name, error))
        return NULL;
    virCheckpointBackupRecordAddName(backup->record, name, given);
    return g_steal_pointer(&name);
}

/* The checkpoint of ours that clients know as @name, or NULL. */
static virCheckpointRecord *
virCheckpointBackupFind(virCheckpointBackup *backup, const gchar *name)
{
    virCheckpointRecord *record =
        virCheckpointTreeByName(backup->segments->records, name);

    return record && record->state == VIR_CHECKPOINT_RECORD_READY ? record : NULL;
}

/* Names for every checkpoint of ours that is used, into record and request. */
static gboolean
virCheckpointBackupNameSets(virCheckpointBackup *backup, GError **error)
{
    const GPtrArray *uses = virCheckpointBackupRequestUses(backup->request);
    guint i;

    for (i = 0; i < uses->len; i++) {
        const virCheckpointBackupUse *use = g_ptr_array_index(uses, i);
        g_autofree gchar *name = NULL;

        if (!virCheckpointBackupFind(backup, use->name))
            continue;
        if (!(name = virCheckpointBackupNewName(backup, use->name, error)))
            return FALSE;
        virCheckpointBackupRequestRename(backup->request, use->name, name);
    }
    return TRUE;
}

/* The document of a checkpoint of libvirt's: bitmaps named as it on @targets only. */
static gchar *
virCheckpointBackupCheckpointXml(virCheckpointBackup *backup,
                                 const gchar *name,
                                 GPtrArray *targets,
                                 gboolean redefine)
{
    GPtrArray *disks = backup->operation->view->disks;
    GString *buf = g_string_new("<domaincheckpoint>\n");
    guint i;

    virCheckpointXmlAppend(buf, "  <name>%s</name>\n", name);
    if (redefine)
        virCheckpointXmlAppend(buf,
                               "  <creationTime>%" G_GINT64_FORMAT "</creationTime>\n",
                               g_get_real_time() / G_USEC_PER_SEC);
    g_string_append(buf, "  <disks>\n");
    for (i = 0; i < disks->len; i++) {
        const virCheckpointDisk *disk = g_ptr_array_index(disks, i);

        if (g_ptr_array_find_with_equal_func(targets, disk->target, g_str_equal, NULL))
            virCheckpointXmlAppend(
                buf, "    <disk name='%s' checkpoint='bitmap' bitmap='%s'/>\n",
                disk->target, name);
        else
            virCheckpointXmlAppend(buf, "    <disk name='%s' checkpoint='no'/>\n",
                                   disk->target);
    }
    g_string_append(buf, "  </disks>\n</domaincheckpoint>\n");
    return g_string_free(buf, FALSE);
}

/* What libvirt says of a disk that its checkpoint does not cover, and the way out. */
static gboolean
virCheckpointBackupNotCovered(virCheckpointBackup *backup,
                              const virCheckpointBackupUse *use,
                              const gchar *target,
                              GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CHECKPOINT_INCONSISTENT,
                "domain '%s': missing or broken bitmap '%s' for disk '%s': the "
                "checkpoint does not cover the disk; back it up in full "
                "(backupmode='full')",
                backup->operation->view->name, use->name, target);
    return FALSE;
}

/* One checkpoint of ours becomes one of libvirt's called @name. */
static gboolean
virCheckpointBackupMaterialise(virCheckpointBackup *backup,
                               const virCheckpointBackupUse *use,
                               const gchar *name,
                               GError **error)
{
    const virCheckpointRecord *record = virCheckpointBackupFind(backup, use->name);
    g_autofree gchar *xml = NULL;
    virDomainCheckpointPtr made;
    guint i;

    for (i = 0; i < use->targets->len; i++) {
        const gchar *target = g_ptr_array_index(use->targets, i);

        if (!virCheckpointRecordSegment(record, target))
            return virCheckpointBackupNotCovered(backup, use, target, error);
        if (!virCheckpointSegmentsMaterialise(backup->segments, record, target, name,
                                              error) ||
            !virCheckpointFaultPoint("backup/materialised", error))
            return FALSE;
    }
    xml = virCheckpointBackupCheckpointXml(backup, name, use->targets, TRUE);
    made = virDomainCheckpointCreateXML(backup->operation->view->domain, xml,
                                        VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE);
    if (!made)
        return virCheckpointDomainSetError(error);
    virDomainCheckpointFree(made);
    return virCheckpointFaultPoint("backup/redefined", error);
}

static gboolean
virCheckpointBackupMaterialiseAll(virCheckpointBackup *backup, GError **error)
{
    const GPtrArray *uses = virCheckpointBackupRequestUses(backup->request);
    guint i;
    guint j;

    for (i = 0; i < backup->record->names->len; i++) {
        const virCheckpointBackupName *name =
            g_ptr_array_index(backup->record->names, i);

        for (j = 0; j < uses->len; j++) {
            const virCheckpointBackupUse *use = g_ptr_array_index(uses, j);

            if (g_strcmp0(name->ours, backup->own) != 0 &&
                g_str_equal(use->name, name->given) &&
                !virCheckpointBackupMaterialise(backup, use, name->ours, error))
                return FALSE;
        }
    }
    return TRUE;
}

/* The record of the checkpoint in the same call, and the document that libvirt gets. */
static gboolean
virCheckpointBackupPlan(virCheckpointBackup *backup,
                        const gchar *xml,
                        gchar **rewritten,
                        GError **error)
{
    g_autoptr(virCheckpointDef) def = virCheckpointDefParse(xml, 0, error);
    g_autoptr(GPtrArray) disks = NULL;
    g_autoptr(GPtrArray) targets = g_ptr_array_new();
    guint i;

    if (!def)
        return FALSE;
    def->creationTime = g_get_real_time() / G_USEC_PER_SEC;
    if (!def->name)
        def->name = g_strdup_printf("%" G_GINT64_FORMAT, def->creationTime);
    disks = virCheckpointEngineDisks(backup->operation->view);
    if (!virCheckpointDefAlignDisks(def, disks, FALSE, error) ||
        !(backup->plan = virCheckpointSegmentsPlan(backup->segments, def, error)) ||
        !(backup->own = virCheckpointBackupNewName(backup, def->name, error)))
        return FALSE;
    backup->record->checkpointId = g_strdup(backup->plan->id);
    for (i = 0; i < backup->plan->segments->len; i++) {
        const virCheckpointSegment *segment =
            g_ptr_array_index(backup->plan->segments, i);

        g_ptr_array_add(targets, segment->target);
    }
    *rewritten = virCheckpointBackupCheckpointXml(backup, backup->own, targets, FALSE);
    return TRUE;
}

/* Libvirt's bitmap of @segment's disk, on every layer that has it. */
static GArray *
virCheckpointBackupOwnBitmaps(virCheckpointBackup *backup, const virCheckpointNode *top)
{
    GArray *sources = g_array_new(FALSE, FALSE, sizeof(virCheckpointBitmapRef));
    const virCheckpointNode *node;

    for (node = top; node;
         node = virCheckpointGraphBacking(backup->segments->graph, node)) {
        const virCheckpointBitmapInfo *info =
            virCheckpointNodeBitmap(node, backup->own);
        virCheckpointBitmapRef ref = {node->name, backup->own};

        if (info && !info->inconsistent)
            g_array_append_val(sources, ref);
    }
    return sources;
}

/*
 * Per disk: our bitmap added, libvirt's merged into it, the previous segment frozen.
 * Until the last step the previous one records, too: nothing is in neither.
 */
static virCheckpointTxn *
virCheckpointBackupAdoptTxn(virCheckpointBackup *backup, GError **error)
{
    virCheckpointSegments *segments = backup->segments;
    g_autoptr(virCheckpointTxn) txn = virCheckpointTxnNew();
    guint i;

    for (i = 0; i < backup->plan->segments->len; i++) {
        virCheckpointSegment *segment = g_ptr_array_index(backup->plan->segments, i);
        const virCheckpointNode *top =
            virCheckpointSegmentsTop(segments, segment->target, error);
        const virCheckpointRecord *newest =
            virCheckpointSegmentsNewest(segments, segment->target);
        const gchar *active = virCheckpointSegmentActive(segment);
        const gchar *previous = NULL;
        g_autoptr(GArray) sources = NULL;

        if (!top)
            return NULL;
        if (!virCheckpointNodeBitmap(top, backup->own)) {
            g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                        "the disk '%s' changed while its backup began",
                        segment->target);
            return NULL;
        }
        if (g_strcmp0(segment->born, top->file) != 0) {
            /* Somebody's snapshot came between. */
            g_free(segment->born);
            segment->born = g_strdup(top->file);
            virCheckpointHeirsFind(segments, segment->target, top, segment->heirs);
        }
        sources = virCheckpointBackupOwnBitmaps(backup, top);
        virCheckpointTxnAdd(txn, top->name, active, segment->granularity,
                            VIR_CHECKPOINT_BITMAP_PERSISTENT);
        virCheckpointTxnMerge(txn, top->name, active, sources);
        if (newest)
            previous = virCheckpointSegmentActive(
                virCheckpointRecordSegment(newest, segment->target));
        if (previous)
            virCheckpointTxnDisable(txn, top->name, previous);
    }
    return g_steal_pointer(&txn);
}

/* Libvirt made the checkpoint: it becomes ours. */
static gboolean
virCheckpointBackupAdopt(virCheckpointBackup *backup, GError **error)
{
    virCheckpointSegments *segments = backup->segments;
    g_autoptr(virCheckpointTxn) txn = NULL;

    if (!virCheckpointSegmentsRefresh(segments, error) ||
        !(txn = virCheckpointBackupAdoptTxn(backup, error)) ||
        !virCheckpointStoreSave(segments->store, backup->plan, error))
        return FALSE;
    backup->adopting = TRUE;
    if (!virCheckpointTxnRun(txn, segments->view->monitor, error) ||
        !virCheckpointFaultPoint("backup/adopted", error) ||
        !virCheckpointSegmentsRefresh(segments, error))
        return FALSE;
    if (virCheckpointSegmentsCountCreated(segments, backup->plan) !=
        backup->plan->segments->len) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "a new bitmap does not record: the disks changed "
                            "meanwhile");
        return FALSE;
    }
    backup->plan->state = VIR_CHECKPOINT_RECORD_READY;
    if (!virCheckpointStoreSave(segments->store, backup->plan, error))
        return FALSE;
    virCheckpointHeirsBegin(segments, backup->plan);
    return virCheckpointFaultPoint("backup/ready", error);
}

/* The job runs, and the call can be answered. */
static gboolean
virCheckpointBackupBegun(virCheckpointBackup *backup, GError **error)
{
    virCheckpointOperation *operation = backup->operation;

    if (!virCheckpointFaultPoint("backup/begun", error) ||
        (backup->plan && !virCheckpointBackupAdopt(backup, error)))
        return FALSE;
    backup->record->description = virCheckpointBackupDescribe(operation->view, NULL);
    backup->record->state = VIR_CHECKPOINT_BACKUP_RUNNING;
    if (!virCheckpointBackupSave(operation->store, backup->record, error) ||
        !virCheckpointFaultPoint("backup/running", error))
        return FALSE;
    if (!virCheckpointBackupDrop(operation->store, operation->view, backup->record,
                                 error) ||
        !virCheckpointFaultPoint("backup/dropped", error))
        return FALSE;
    if (!backup->plan)
        return TRUE;
    g_info("domain %s: checkpoint '%s' created by a backup", operation->view->name,
           backup->plan->def->name);
    virCheckpointEnginePark(operation);
    return TRUE;
}

/* Nothing is to be left of a call that libvirt refused, or that we gave up. */
static void
virCheckpointBackupUndo(virCheckpointBackup *backup)
{
    virCheckpointOperation *operation = backup->operation;
    g_autoptr(GError) error = NULL;

    virCheckpointEngineSettleLater(operation->engine, operation->view->uuid);
    backup->record->state = VIR_CHECKPOINT_BACKUP_BEGINNING;
    /* Settling is made for it: it takes back what the record says may be there. */
    if ((backup->plan && !backup->adopting &&
         !virCheckpointStoreRemove(operation->store, backup->plan->id, &error)) ||
        !virCheckpointBackupSave(operation->store, backup->record, &error) ||
        !virCheckpointRecoverySettle(operation->engine, operation->store,
                                     operation->view, &error))
        g_info(
            "domain %s: what a failed backup left stays until the next operation: %s",
            operation->view->name, error->message);
}

/* The call itself; on failure the caller undoes. */
static virCheckpointBackupResult
virCheckpointBackupRun(virCheckpointBackup *backup,
                       const gchar *checkpointXml,
                       virCheckpointEngineBackupFunc func,
                       gpointer data,
                       GError **error)
{
    virCheckpointOperation *operation = backup->operation;
    g_autofree gchar *own = NULL;
    g_autofree gchar *xml = NULL;

    if (!virCheckpointBackupNameSets(backup, error) ||
        (checkpointXml && !virCheckpointBackupPlan(backup, checkpointXml, &own, error)))
        return VIR_CHECKPOINT_BACKUP_FAILED;
    if (backup->plan)
        virCheckpointLeavingFirst(operation->engine, operation->store, operation->view);
    if (!virCheckpointBackupSave(operation->store, backup->record, error) ||
        !virCheckpointFaultPoint("backup/recorded", error) ||
        !virCheckpointBackupMaterialiseAll(backup, error) ||
        (backup->plan &&
         !virCheckpointStoreSave(operation->store, backup->plan, error)) ||
        !virCheckpointFaultPoint("backup/planned", error))
        return VIR_CHECKPOINT_BACKUP_FAILED;
    xml = virCheckpointBackupRequestFormat(backup->request);
    virCheckpointBackupWatch(operation->engine, operation->view->uuid, backup->record,
                             g_get_monotonic_time());
    switch (func(xml, own, data)) {
    case VIR_CHECKPOINT_BACKUP_ACCEPTED:
        break;
    case VIR_CHECKPOINT_BACKUP_REFUSED:
        return VIR_CHECKPOINT_BACKUP_ANSWERED;
    case VIR_CHECKPOINT_BACKUP_UNANSWERED:
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED,
                            "the connection ended while the backup began");
        return VIR_CHECKPOINT_BACKUP_FAILED;
    }
    if (virCheckpointBackupBegun(backup, error))
        return VIR_CHECKPOINT_BACKUP_ANSWERED;
    /* It runs, but not as it was asked for. */
    virDomainAbortJob(operation->view->domain);
    return VIR_CHECKPOINT_BACKUP_FAILED;
}

/* TRUE if one of our checkpoints is used. */
static gboolean
virCheckpointBackupUsesOurs(virCheckpointBackup *backup)
{
    const GPtrArray *uses = virCheckpointBackupRequestUses(backup->request);
    guint i;

    for (i = 0; i < uses->len; i++) {
        const virCheckpointBackupUse *use = g_ptr_array_index(uses, i);

        if (virCheckpointBackupFind(backup, use->name))
            return TRUE;
    }
    return FALSE;
}

/* The record of the job before is concluded; one that runs stands in the way. */
static gboolean
virCheckpointBackupIsFree(virCheckpointBackup *backup, GError **error)
{
    virCheckpointOperation *operation = backup->operation;
    g_autoptr(GError) failed = NULL;
    g_autofree gchar *running = NULL;

    if (!virCheckpointBackupRecover(operation->engine, operation->store,
                                    operation->view, error))
        return FALSE;
    running = virCheckpointBackupDescribe(operation->view, &failed);
    if (failed) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    if (running)
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_INVALID,
                            "another backup job is already running");
    return !running;
}

virCheckpointBackupResult
virCheckpointEngineBackupBegin(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *xml,
                               const gchar *checkpointXml,
                               virCheckpointEngineBackupFunc func,
                               gpointer data,
                               virCheckpointBackupRecord **names,
                               GError **error)
{
    g_auto(virCheckpointBackup) backup = {0};
    g_autoptr(GError) failed = NULL;
    virCheckpointBackupResult result;

    backup.operation = virCheckpointOperationBegin(engine, uuid, 0, error);
    if (!backup.operation)
        return VIR_CHECKPOINT_BACKUP_FAILED;
    if (!backup.operation->view->running)
        return VIR_CHECKPOINT_BACKUP_NOT_OURS;
    if (!(backup.request = virCheckpointBackupRequestParse(
              xml, backup.operation->view->disks, error)) ||
        !(backup.segments = virCheckpointSegmentsNew(backup.operation->store,
                                                     backup.operation->view, error)))
        return VIR_CHECKPOINT_BACKUP_FAILED;
    if (!checkpointXml && !virCheckpointBackupUsesOurs(&backup))
        return VIR_CHECKPOINT_BACKUP_NOT_OURS;
    if (!virCheckpointBackupIsFree(&backup, &failed) ||
        !virCheckpointSegmentsRefresh(backup.segments, &failed) ||
        !virCheckpointSegmentsEnsure(backup.segments, &failed)) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return VIR_CHECKPOINT_BACKUP_FAILED;
    }
    backup.record = virCheckpointBackupRecordNew();
    backup.record->id = virCheckpointRecordNewId();
    backup.record->push = virCheckpointBackupRequestIsPush(backup.request);
    result = virCheckpointBackupRun(&backup, checkpointXml, func, data, error);
    if (backup.record->state == VIR_CHECKPOINT_BACKUP_BEGINNING ||
        result == VIR_CHECKPOINT_BACKUP_FAILED)
        virCheckpointBackupUndo(&backup);
    *names = g_steal_pointer(&backup.record);
    return result;
}
