/*
 * checkpoint_backup_recover.c: what is left of backups, and how they ended
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a call that was not answered is taken back, its checkpoint as well; a job
 * that libvirt began all the same goes on, as it does when its client dies.
 *
 * Of a job that runs we must know how it ends when it is a push with a checkpoint: a
 * failed one takes its checkpoint back, so that the next backup does not skip a window.
 * Libvirt keeps the result of a domain's last job; it is believed only when we saw the
 * job run, in this process and under this libvirtd, and looked at its end: otherwise it
 * may be another's.  In doubt the job has failed, and the next backup copies more.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "checkpoint_backup.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_segmentspriv.h"
#include "checkpoint_xml.h"

/** The record's file in the domain's folder. */
#define BACKUP_FILE "backup.xml"

/* After its event a job may be there for a moment still. */
#define OVER_TRIES 50
#define OVER_STEP_MS 50

static virCheckpointBackupRecord *
virCheckpointBackupRead(const gchar *path, GError **error)
{
    g_autofree gchar *text = NULL;

    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        return NULL;
    text = virCheckpointFileRead(path, VIR_CHECKPOINT_XML_MAX_BYTES, error);
    return text ? virCheckpointBackupRecordParse(text, error) : NULL;
}

static virCheckpointBackupRecord *
virCheckpointBackupPeek(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autofree gchar *path = g_build_filename(virCheckpointStoreRoot(engine->store),
                                              uuid, BACKUP_FILE, NULL);

    return virCheckpointBackupRead(path, NULL);
}

virCheckpointBackupRecord *
virCheckpointBackupLoad(virCheckpointStoreDomain *store, GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, BACKUP_FILE, error);

    return path ? virCheckpointBackupRead(path, error) : NULL;
}

gboolean
virCheckpointBackupSave(virCheckpointStoreDomain *store,
                        const virCheckpointBackupRecord *record,
                        GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, BACKUP_FILE, error);
    g_autofree gchar *text = virCheckpointBackupRecordFormat(record);

    return path && virCheckpointFileWrite(path, text, error);
}

gboolean
virCheckpointBackupRemove(virCheckpointStoreDomain *store, GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, BACKUP_FILE, error);

    return path && virCheckpointFileRemove(path, error);
}

gchar *
virCheckpointBackupDescribe(const virCheckpointDomainView *view, GError **error)
{
    gchar *xml;

    if (!view->running)
        return NULL;
    xml = virDomainBackupGetXMLDesc(view->domain, 0);
    if (!xml && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN_BACKUP)
        virCheckpointDomainSetError(error);
    return xml;
}

void
virCheckpointBackupWatch(virCheckpointEngine *engine,
                         const virCheckpointBackupRecord *record)
{
    g_mutex_lock(&engine->lock);
    if (g_hash_table_add(engine->backups, g_strdup(record->id)))
        engine->busy++;
    g_mutex_unlock(&engine->lock);
}

/* Returns: TRUE if it was watched from its begin to its end. */
static gboolean
virCheckpointBackupUnwatch(virCheckpointEngine *engine,
                           const virCheckpointBackupRecord *record)
{
    gboolean known;

    g_mutex_lock(&engine->lock);
    known = g_hash_table_remove(engine->backups, record->id);
    if (known)
        engine->busy--;
    g_mutex_unlock(&engine->lock);
    return known;
}

virCheckpointBackupRecord *
virCheckpointEngineBackupNames(virCheckpointEngine *engine, const gchar *uuid)
{
    return virCheckpointBackupPeek(engine, uuid);
}

gboolean
virCheckpointBackupIsPending(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(virCheckpointBackupRecord) record = virCheckpointBackupPeek(engine, uuid);

    if (!record || !record->checkpointId)
        return FALSE;
    if (record->state == VIR_CHECKPOINT_BACKUP_BEGINNING)
        return !virCheckpointEngineIsSettled(engine, uuid); /* else: under way */
    return record->push;
}

/* Checkpoints of libvirt's with names of ours: their metadata only. */
static gboolean
virCheckpointBackupDropTheirs(virCheckpointDomainView *view, GError **error)
{
    virDomainCheckpointPtr *theirs = NULL;
    gint count = virDomainListAllCheckpoints(view->domain, &theirs, 0);
    gboolean ok = TRUE;
    gint i;

    if (count < 0)
        return virCheckpointDomainSetError(error);
    for (i = 0; i < count; i++) {
        if (ok && virCheckpointBackupIsOurName(virDomainCheckpointGetName(theirs[i])) &&
            virDomainCheckpointDelete(theirs[i],
                                      VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) < 0)
            ok = virCheckpointDomainSetError(error);
        virDomainCheckpointFree(theirs[i]);
    }
    free(theirs);
    return ok;
}

gboolean
virCheckpointBackupDrop(virCheckpointStoreDomain *store,
                        virCheckpointDomainView *view,
                        const virCheckpointBackupRecord *record,
                        GError **error)
{
    g_autoptr(virCheckpointSegments) segments = NULL;

    if (record->names->len == 0)
        return TRUE;
    if (!virCheckpointBackupDropTheirs(view, error) ||
        !(segments = virCheckpointSegmentsNew(store, view, error)))
        return FALSE;
    virCheckpointSegmentsSweep(segments);
    return TRUE;
}

/* The checkpoint made in the same call goes: its bits are the previous one's. */
static gboolean
virCheckpointBackupTakeBack(virCheckpointStoreDomain *store,
                            virCheckpointDomainView *view,
                            const virCheckpointBackupRecord *record,
                            GError **error)
{
    g_autoptr(virCheckpointSegments) segments = NULL;
    const virCheckpointRecord *made;
    g_autofree gchar *name = NULL;

    if (!record->checkpointId)
        return TRUE;
    if (!(segments = virCheckpointSegmentsNew(store, view, error)))
        return FALSE;
    if (!(made = virCheckpointTreeById(segments->records, record->checkpointId)))
        return TRUE;
    name = g_strdup(made->def->name);
    if (!virCheckpointSegmentsDelete(segments, record->checkpointId, error))
        return FALSE;
    g_info("domain %s: checkpoint '%s' of a backup that did not complete is taken back",
           view->name, name);
    return TRUE;
}

/* A call that was not answered. */
static gboolean
virCheckpointBackupRecoverCall(virCheckpointStoreDomain *store,
                               virCheckpointDomainView *view,
                               virCheckpointBackupRecord *record,
                               const gchar *running,
                               GError **error)
{
    g_autoptr(GPtrArray) records = virCheckpointStoreList(store, error);
    const virCheckpointRecord *made = NULL;

    if (!records)
        return FALSE;
    if (record->checkpointId)
        made = virCheckpointTreeById(records, record->checkpointId);
    /* While the domain is off nobody can tell what QEMU did: its start decides. */
    if (made && made->state == VIR_CHECKPOINT_RECORD_CREATING)
        return TRUE;
    if (!virCheckpointBackupTakeBack(store, view, record, error) ||
        !virCheckpointFaultPoint("backup/taken-back", error) ||
        !virCheckpointBackupDrop(store, view, record, error))
        return FALSE;
    if (!running)
        return virCheckpointBackupRemove(store, error);
    g_clear_pointer(&record->checkpointId, g_free);
    record->state = VIR_CHECKPOINT_BACKUP_RUNNING;
    record->description = g_strdup(running);
    return virCheckpointBackupSave(store, record, error);
}

/* TRUE if libvirt's last job of the domain was a backup that completed. */
static gboolean
virCheckpointBackupCompleted(const virCheckpointDomainView *view)
{
    virTypedParameterPtr params = NULL;
    int count = 0;
    int type = VIR_DOMAIN_JOB_NONE;
    int operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;

    if (!view->running ||
        virDomainGetJobStats(view->domain, &type, &params, &count,
                             VIR_DOMAIN_JOB_STATS_COMPLETED |
                                 VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED) < 0)
        return FALSE;
    virTypedParamsGetInt(params, count, VIR_DOMAIN_JOB_OPERATION, &operation);
    virTypedParamsFree(params, count);
    return type == VIR_DOMAIN_JOB_COMPLETED &&
           operation == VIR_DOMAIN_JOB_OPERATION_BACKUP;
}

gboolean
virCheckpointBackupRecover(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           GError **error)
{
    g_autoptr(GError) failed = NULL;
    g_autoptr(virCheckpointBackupRecord) record =
        virCheckpointBackupLoad(store, &failed);
    g_autofree gchar *running = NULL;
    gboolean watched;

    if (record)
        running = virCheckpointBackupDescribe(view, &failed);
    if (failed) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    if (!record)
        return TRUE;
    if (record->state == VIR_CHECKPOINT_BACKUP_BEGINNING)
        return virCheckpointBackupRecoverCall(store, view, record, running, error);
    if (running && g_strcmp0(running, record->description) == 0) {
        virCheckpointBackupWatch(engine, record);
        return TRUE;
    }
    watched = virCheckpointBackupUnwatch(engine, record);
    if (record->push && !(watched && !running && virCheckpointBackupCompleted(view)) &&
        !virCheckpointBackupTakeBack(store, view, record, error))
        return FALSE;
    return virCheckpointFaultPoint("backup/concluded", error) &&
           virCheckpointBackupDrop(store, view, record, error) &&
           virCheckpointBackupRemove(store, error);
}

static void
virCheckpointBackupOverTask(virCheckpointEngine *engine, gpointer data)
{
    g_autoptr(virCheckpointBackupRecord) record = NULL;
    guint tries;

    for (tries = 0; tries < OVER_TRIES; tries++) {
        g_autoptr(virCheckpointBackupRecord) now =
            virCheckpointBackupPeek(engine, data);

        if (!now || (record && !g_str_equal(now->id, record->id)))
            return;
        if (!record)
            record = g_steal_pointer(&now);
        virCheckpointEngineUnsettle(engine, data);
        virCheckpointEngineSettle(engine, data, NULL);
        if (tries > 0 && virCheckpointEngineSleep(engine, OVER_STEP_MS))
            return;
    }
}

void
virCheckpointBackupJobEvent(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointEngineUnsettle(engine, uuid);
    virCheckpointEngineSpawn(engine, virCheckpointBackupOverTask, g_strdup(uuid),
                             g_free);
}
