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
 * A domain has one backup at a time, so the first event of one that began no earlier
 * than our call is our job's.  What libvirt says of the domain's last job is not asked:
 * by then that may be another's.  If the event was missed, with a connection or with
 * us, the job has failed, and the next backup copies more.
 */

#include "config.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "checkpoint_backup.h"
#include "checkpoint_definition.h"
#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_recoverytable.h"
#include "checkpoint_segmentspriv.h"
#include "checkpoint_xml.h"

/** The record's file in the domain's folder. */
#define BACKUP_FILE "backup.xml"

/* After its event a job may be there for a moment still. */
#define OVER_TRIES 50
#define OVER_STEP_MS 50

/* An event that has not come by then is not going to. */
#define EVENT_WAIT_MS 5000
/* Of the two times of which a job's length is the difference. */
#define EVENT_ROUNDING_USEC 2000

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

    return path && virCheckpointFaultPoint("backup/before-save", error) &&
           virCheckpointFileWrite(path, text, error) &&
           virCheckpointFaultPoint("backup/after-save", error);
}

gboolean
virCheckpointBackupRemove(virCheckpointStoreDomain *store, GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, BACKUP_FILE, error);

    return path && virCheckpointFaultPoint("backup/before-remove", error) &&
           virCheckpointFileRemove(path, error) &&
           virCheckpointFaultPoint("backup/after-remove", error);
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
                         const gchar *uuid,
                         const virCheckpointBackupRecord *record,
                         gint64 beganUsec)
{
    virCheckpointBackupEnd *end;

    g_mutex_lock(&engine->lock);
    end = g_hash_table_lookup(engine->backups, uuid);
    if (!end || !g_str_equal(end->id, record->id)) {
        if (!end)
            engine->busy++;
        end = g_new0(virCheckpointBackupEnd, 1);
        end->id = g_strdup(record->id);
        end->beganUsec = beganUsec;
        g_hash_table_replace(engine->backups, g_strdup(uuid), end);
    } else if (end->state == VIR_CHECKPOINT_BACKUP_END_MISSED && beganUsec == 0) {
        end->state = VIR_CHECKPOINT_BACKUP_END_EXPECTED;
    }
    g_mutex_unlock(&engine->lock);
}

/*
 * How the job of @record, which is over, has ended: its event comes in the moment in
 * which the job goes.
 */
static gboolean
virCheckpointBackupAwaitEnd(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const virCheckpointBackupRecord *record)
{
    gint64 until = g_get_monotonic_time() + EVENT_WAIT_MS * 1000;
    const virCheckpointBackupEnd *end;
    gboolean completed;

    g_mutex_lock(&engine->lock);
    while ((end = g_hash_table_lookup(engine->backups, uuid)) &&
           g_str_equal(end->id, record->id) &&
           end->state == VIR_CHECKPOINT_BACKUP_END_EXPECTED && !engine->stopping &&
           g_cond_wait_until(&engine->changed, &engine->lock, until))
        ;
    end = g_hash_table_lookup(engine->backups, uuid);
    completed = end && g_str_equal(end->id, record->id) &&
                end->state == VIR_CHECKPOINT_BACKUP_END_COMPLETED;
    g_mutex_unlock(&engine->lock);
    return completed;
}

void
virCheckpointBackupForget(virCheckpointEngine *engine, const gchar *uuid)
{
    g_mutex_lock(&engine->lock);
    if (g_hash_table_remove(engine->backups, uuid))
        engine->busy--;
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointBackupEndFree(gpointer data)
{
    virCheckpointBackupEnd *end = data;

    g_free(end->id);
    g_free(end);
}

void
virCheckpointBackupEventsMissed(virCheckpointEngine *engine)
{
    GHashTableIter iter;
    gpointer value;

    g_mutex_lock(&engine->lock);
    g_hash_table_iter_init(&iter, engine->backups);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        virCheckpointBackupEnd *end = value;

        if (end->state == VIR_CHECKPOINT_BACKUP_END_EXPECTED)
            end->state = VIR_CHECKPOINT_BACKUP_END_MISSED;
    }
    g_cond_broadcast(&engine->changed);
    g_mutex_unlock(&engine->lock);
}

virCheckpointBackupRecord *
virCheckpointEngineBackupNames(virCheckpointEngine *engine, const gchar *uuid)
{
    return virCheckpointBackupPeek(engine, uuid);
}

/* TRUE if libvirt has the job of @record still: asked of libvirt alone, which needs
 * neither the domain's slot nor QEMU. */
static gboolean
virCheckpointBackupGoesOn(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const virCheckpointBackupRecord *record)
{
    virConnectPtr conn = virCheckpointEngineConnect(engine, NULL);
    virDomainPtr domain = conn ? virDomainLookupByUUIDString(conn, uuid) : NULL;
    g_autofree char *running = domain ? virDomainBackupGetXMLDesc(domain, 0) : NULL;

    if (domain)
        virDomainFree(domain);
    virCheckpointEngineDisconnect(engine, conn);
    return running && g_strcmp0(running, record->description) == 0;
}

gboolean
virCheckpointBackupIsPending(virCheckpointEngine *engine, const gchar *uuid)
{
    g_autoptr(virCheckpointBackupRecord) record = virCheckpointBackupPeek(engine, uuid);

    if (!record || !record->checkpointId)
        return FALSE;
    if (record->state == VIR_CHECKPOINT_BACKUP_BEGINNING)
        return !virCheckpointEngineIsSettled(engine, uuid); /* else: under way */
    return record->push && !(virCheckpointEngineIsSettled(engine, uuid) &&
                             virCheckpointBackupGoesOn(engine, uuid, record));
}

static gboolean
virCheckpointBackupDropOne(virDomainCheckpointPtr checkpoint, GError **error)
{
    if (!virCheckpointFaultPoint("backup/before-drop", error))
        return FALSE;
    if (virDomainCheckpointDelete(checkpoint,
                                  VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) < 0)
        return virCheckpointDomainSetError(error);
    return virCheckpointFaultPoint("backup/after-drop", error);
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
        if (ok && virCheckpointBackupIsOurName(virDomainCheckpointGetName(theirs[i])))
            ok = virCheckpointBackupDropOne(theirs[i], error);
        virDomainCheckpointFree(theirs[i]);
    }
    free(theirs);
    return ok;
}

/* Nor does a power cut bring them back when no record names them. */
static gboolean
virCheckpointBackupForgetTheirs(const virCheckpointDomainView *view,
                                const virCheckpointBackupRecord *record,
                                GError **error)
{
    guint i;

    for (i = 0; i < record->names->len; i++) {
        const virCheckpointBackupName *name = g_ptr_array_index(record->names, i);

        if (!virCheckpointDefinitionForget(view->name, name->ours, error))
            return FALSE;
    }
    return TRUE;
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
        !virCheckpointBackupForgetTheirs(view, record, error) ||
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
virCheckpointBackupRecoverCall(virCheckpointEngine *engine,
                               virCheckpointStoreDomain *store,
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
    virCheckpointBackupForget(engine, view->uuid);
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
    gboolean completed = TRUE;

    if (record)
        running = virCheckpointBackupDescribe(view, &failed);
    if (failed) {
        g_propagate_error(error, g_steal_pointer(&failed));
        return FALSE;
    }
    if (!record)
        return TRUE;
    g_debug("domain=%s backup=%s state=%s: %s", view->uuid, record->id,
            virCheckpointBackupStateToString(record->state),
            virCheckpointRecoveryOfBackup(record->state));
    if (record->state == VIR_CHECKPOINT_BACKUP_BEGINNING)
        return virCheckpointBackupRecoverCall(engine, store, view, record, running,
                                              error);
    if (running && g_strcmp0(running, record->description) == 0) {
        virCheckpointBackupWatch(engine, view->uuid, record, 0);
        return TRUE;
    }
    if (record->push)
        completed = virCheckpointBackupAwaitEnd(engine, view->uuid, record);
    virCheckpointBackupForget(engine, view->uuid);
    if (!completed && !virCheckpointBackupTakeBack(store, view, record, error))
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

/*
 * Notes the end of a job that began no earlier than the one that is expected; how long
 * it ran is in whole milliseconds.
 */
static void
virCheckpointBackupNoteEnd(virCheckpointEngine *engine,
                           const gchar *uuid,
                           gboolean success,
                           guint64 elapsedMs)
{
    gint64 beganUsec = g_get_monotonic_time() - (gint64)(elapsedMs * 1000);
    virCheckpointBackupEnd *end;

    g_mutex_lock(&engine->lock);
    end = g_hash_table_lookup(engine->backups, uuid);
    if (end && end->state == VIR_CHECKPOINT_BACKUP_END_EXPECTED &&
        beganUsec + EVENT_ROUNDING_USEC >= end->beganUsec) {
        end->state = success ? VIR_CHECKPOINT_BACKUP_END_COMPLETED
                             : VIR_CHECKPOINT_BACKUP_END_FAILED;
        g_cond_broadcast(&engine->changed);
    }
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointBackupJobEvent(virCheckpointEngine *engine,
                            const gchar *uuid,
                            virTypedParameterPtr params,
                            int count)
{
    int operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
    int success = 0;
    unsigned long long elapsedMs = 0;

    virTypedParamsGetInt(params, count, VIR_DOMAIN_JOB_OPERATION, &operation);
    virTypedParamsGetBoolean(params, count, VIR_DOMAIN_JOB_SUCCESS, &success);
    virTypedParamsGetULLong(params, count, VIR_DOMAIN_JOB_TIME_ELAPSED, &elapsedMs);
    if (operation == VIR_DOMAIN_JOB_OPERATION_BACKUP)
        virCheckpointBackupNoteEnd(engine, uuid, success, elapsedMs);
    virCheckpointEngineUnsettle(engine, uuid);
    virCheckpointEngineSpawn(engine, virCheckpointBackupOverTask, g_strdup(uuid),
                             g_free);
}
