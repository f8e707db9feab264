/*
 * checkpoint_backup_record.h: what the store keeps of a domain's running backup
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_BACKUP_RECORD_H
#define VIR_CHECKPOINT_BACKUP_RECORD_H

#include <glib.h>

/**
 * virCheckpointBackupState:
 * docs/internals/backup.md has the table of what recovery does for each.
 */
typedef enum {
    VIR_CHECKPOINT_BACKUP_BEGINNING, /* the call was not answered; anything of it may
                                        have happened */
    VIR_CHECKPOINT_BACKUP_RUNNING,   /* libvirt has the job, or had it */
    VIR_CHECKPOINT_BACKUP_LAST
} virCheckpointBackupState;

/** A name that libvirt was given for one that the client gave. */
typedef struct virCheckpointBackupName {
    gchar *ours;  /* "virtcheckpoint." + 32 hex digits: of bitmaps and of a checkpoint
                     of libvirt's */
    gchar *given; /* of the client's checkpoint */
} virCheckpointBackupName;

typedef struct virCheckpointBackupRecord {
    gchar *id; /* 32 hex digits */
    virCheckpointBackupState state;
    gboolean push;
    gchar *checkpointId; /* of the record of the checkpoint made in the same call, or
                            NULL */
    gchar *description;  /* the job as libvirt shows it; NULL while beginning */
    GPtrArray *names;    /* virCheckpointBackupName* */
} virCheckpointBackupRecord;

const gchar *
virCheckpointBackupStateToString(virCheckpointBackupState state);
virCheckpointBackupRecord *
virCheckpointBackupRecordNew(void);
void
virCheckpointBackupRecordFree(virCheckpointBackupRecord *record);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointBackupRecord, virCheckpointBackupRecordFree)
void
virCheckpointBackupRecordAddName(virCheckpointBackupRecord *record,
                                 const gchar *ours,
                                 const gchar *given);

gchar *
virCheckpointBackupRecordFormat(const virCheckpointBackupRecord *record);
virCheckpointBackupRecord *
virCheckpointBackupRecordParse(const gchar *xml, GError **error);

/** TRUE for "virtcheckpoint." and 32 hex digits. */
gboolean
virCheckpointBackupIsOurName(const gchar *name);

/**
 * virCheckpointBackupTranslate:
 * Returns: (transfer full): @text with each name of ours replaced by the client's
 */
gchar *
virCheckpointBackupTranslate(const virCheckpointBackupRecord *record,
                             const gchar *text);

#endif
