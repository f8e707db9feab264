/*
 * checkpoint_backup_request.h: what a <domainbackup> asks for
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_BACKUP_REQUEST_H
#define VIR_CHECKPOINT_BACKUP_REQUEST_H

#include <glib.h>

/** A checkpoint since which disks are backed up. */
typedef struct virCheckpointBackupUse {
    gchar *name;
    GPtrArray *targets; /* gchar*: disks of the domain */
} virCheckpointBackupUse;

typedef struct virCheckpointBackupRequest virCheckpointBackupRequest;

/**
 * virCheckpointBackupRequestParse:
 * @disks: virCheckpointDisk*, of the domain
 *
 * Only what concerns us is read, and as libvirt reads it; all else is libvirt's to
 * judge.  Errors are those of a document that is none.
 */
virCheckpointBackupRequest *
virCheckpointBackupRequestParse(const gchar *xml, GPtrArray *disks, GError **error);
void
virCheckpointBackupRequestFree(virCheckpointBackupRequest *request);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointBackupRequest,
                              virCheckpointBackupRequestFree)
gboolean
virCheckpointBackupRequestIsPush(const virCheckpointBackupRequest *request);
/** virCheckpointBackupUse*, borrowed: every checkpoint that a disk is backed up since.
 */
const GPtrArray *
virCheckpointBackupRequestUses(const virCheckpointBackupRequest *request);
/** Has the document name checkpoint @to wherever it names @from. */
void
virCheckpointBackupRequestRename(virCheckpointBackupRequest *request,
                                 const gchar *from,
                                 const gchar *to);
/** Returns: (transfer full): the document as it is now */
gchar *
virCheckpointBackupRequestFormat(const virCheckpointBackupRequest *request);

#endif
