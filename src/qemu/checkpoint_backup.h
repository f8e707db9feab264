/*
 * checkpoint_backup.h: what the backup module gives to the engine
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The calls that clients reach (virCheckpointEngineBackup...) are declared in
 * checkpoint_engine.h and live in the same module.
 */

#ifndef VIR_CHECKPOINT_BACKUP_H
#define VIR_CHECKPOINT_BACKUP_H

#include "checkpoint_backup_record.h"
#include "checkpoint_domain.h"
#include "checkpoint_engine.h"
#include "checkpoint_store.h"

/**
 * virCheckpointBackupRecover:
 * @store: the domain's slot, held by the caller; @view: fresh; the domain may be off
 *
 * Called by settling, after records that are CREATING or DELETING were decided.  What
 * an unanswered call left is taken back; a job that is over is concluded: the
 * checkpoint of a push that did not complete is taken back.  A job that runs goes on.
 */
gboolean
virCheckpointBackupRecover(virCheckpointEngine *engine,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           GError **error);

/** A job of libvirt's has ended, as @params say.  Main context: does not block. */
void
virCheckpointBackupJobEvent(virCheckpointEngine *engine,
                            const gchar *uuid,
                            virTypedParameterPtr params,
                            int count);

/** What is known of the end of a push that is recorded: engine->backups, by uuid. */
typedef enum {
    VIR_CHECKPOINT_BACKUP_END_EXPECTED, /* its event will come */
    VIR_CHECKPOINT_BACKUP_END_MISSED,   /* the connection for events went away */
    VIR_CHECKPOINT_BACKUP_END_COMPLETED,
    VIR_CHECKPOINT_BACKUP_END_FAILED,
    VIR_CHECKPOINT_BACKUP_END_LAST
} virCheckpointBackupEndState;

typedef struct virCheckpointBackupEnd {
    gchar *id;        /* of the backup's record */
    gint64 beganUsec; /* monotonic: not before; 0: it runs since before we did */
    virCheckpointBackupEndState state;
} virCheckpointBackupEnd;

void
virCheckpointBackupEndFree(gpointer data);

/** Events may not have reached us.  Thread: any. */
void
virCheckpointBackupEventsMissed(virCheckpointEngine *engine);

/** TRUE if what a look at the checkpoints would show is not decided: a call was not
 * answered, or a push may have ended. */
gboolean
virCheckpointBackupIsPending(virCheckpointEngine *engine, const gchar *uuid);

/* Inside the module. */

/** The domain's record; NULL without @error if there is none. */
virCheckpointBackupRecord *
virCheckpointBackupLoad(virCheckpointStoreDomain *store, GError **error);
gboolean
virCheckpointBackupSave(virCheckpointStoreDomain *store,
                        const virCheckpointBackupRecord *record,
                        GError **error);
gboolean
virCheckpointBackupRemove(virCheckpointStoreDomain *store, GError **error);

/** What libvirt shows of the domain's backup job; NULL without @error if it has none.
 */
gchar *
virCheckpointBackupDescribe(const virCheckpointDomainView *view, GError **error);

/**
 * virCheckpointBackupWatch:
 * @beganUsec: monotonic time before the call that begins the job; 0: it runs
 *
 * From now on the end of the job of @record will be seen by us.
 */
void
virCheckpointBackupWatch(virCheckpointEngine *engine,
                         const gchar *uuid,
                         const virCheckpointBackupRecord *record,
                         gint64 beganUsec);
/** Nothing began. */
void
virCheckpointBackupForget(virCheckpointEngine *engine, const gchar *uuid);

/** Removes what libvirt and QEMU have under the names of @record: checkpoints of
 * libvirt's and bitmaps.  What cannot go yet goes later. */
gboolean
virCheckpointBackupDrop(virCheckpointStoreDomain *store,
                        virCheckpointDomainView *view,
                        const virCheckpointBackupRecord *record,
                        GError **error);

#endif
