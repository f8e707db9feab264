/*
 * checkpoint_recoverytable.h: what settling does with what a record says
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_RECOVERYTABLE_H
#define VIR_CHECKPOINT_RECOVERYTABLE_H

#include "checkpoint_backup_record.h"
#include "checkpoint_job_record.h"
#include "checkpoint_record.h"

/** What is done with a record found in a state, as a sentence for the log. */
const gchar *
virCheckpointRecoveryOfCheckpoint(virCheckpointRecordState state);
const gchar *
virCheckpointRecoveryOfJob(virCheckpointJobState state);
const gchar *
virCheckpointRecoveryOfBackup(virCheckpointBackupState state);

/**
 * virCheckpointRecoveryTable:
 *
 * Returns: (transfer full): all of it, one line "| kind | `state` | sentence |" a
 * state, as docs/internals/recovery.md has it.
 */
gchar *
virCheckpointRecoveryTable(void);

#endif
