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

/** The domain's job of libvirt's has ended.  Main context: does not block. */
void
virCheckpointBackupJobEvent(virCheckpointEngine *engine, const gchar *uuid);

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

/** From now on the end of the job of @record will be seen by us. */
void
virCheckpointBackupWatch(virCheckpointEngine *engine,
                         const virCheckpointBackupRecord *record);

/** Removes what libvirt and QEMU have under the names of @record: checkpoints of
 * libvirt's and bitmaps.  What cannot go yet goes later. */
gboolean
virCheckpointBackupDrop(virCheckpointStoreDomain *store,
                        virCheckpointDomainView *view,
                        const virCheckpointBackupRecord *record,
                        GError **error);

#endif
