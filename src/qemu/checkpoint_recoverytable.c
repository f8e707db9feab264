/*
 * checkpoint_recoverytable.c: what settling does with what a record says
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a record's state announces side effects that may have happened.  For each
 * state of each kind of record there is one answer, and whoever settles says it in the
 * log before it is done.  No state can be added without an answer, and recoverytest.c
 * compares all of them with the table that people read, docs/internals/recovery.md.
 */

#include "config.h"

#include "checkpoint_recoverytable.h"

static const gchar *const virCheckpointRecoveryCheckpoints[] = {
    [VIR_CHECKPOINT_RECORD_CREATING] =
        "its transaction is sent again, which decides whether it ran; then deleting",
    [VIR_CHECKPOINT_RECORD_READY] =
        "the invariant is checked, frozen bitmaps are parked",
    [VIR_CHECKPOINT_RECORD_DELETING] =
        "finished: its bits go to the previous checkpoint, the record goes",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointRecoveryCheckpoints) ==
                VIR_CHECKPOINT_RECORD_LAST);

static const gchar *const virCheckpointRecoveryJobs[] = {
    [VIR_CHECKPOINT_JOB_PREPARING] =
        "nobody was answered: failed; what was made is removed",
    [VIR_CHECKPOINT_JOB_OVERLAYING] =
        "nobody was answered: failed; if the disk is on the overlay, that is committed",
    [VIR_CHECKPOINT_JOB_BULK] =
        ("a bulk job that runs goes on, that of a guest that is "
         "off begins again; else it failed, and is committed"),
    [VIR_CHECKPOINT_JOB_NATIVE] =
        "a mirror of QEMU's own goes on, or has ended; without one it failed",
    [VIR_CHECKPOINT_JOB_MIRRORING] =
        "a copy that runs goes on; without one it is started again",
    [VIR_CHECKPOINT_JOB_PIVOTING] =
        "the disk's file decides: the target, completed; the overlay, mirroring again",
    [VIR_CHECKPOINT_JOB_COMMITTING] =
        "the overlay is committed into its source, by qemu-img when the guest is off",
    [VIR_CHECKPOINT_JOB_CLEANING] =
        "each part is looked for and removed, then the record",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointRecoveryJobs) == VIR_CHECKPOINT_JOB_LAST);

static const gchar *const virCheckpointRecoveryBackups[] = {
    [VIR_CHECKPOINT_BACKUP_BEGINNING] =
        "nobody was answered: its checkpoint is taken back; a job that runs goes on",
    [VIR_CHECKPOINT_BACKUP_RUNNING] =
        "watched while it runs; else a push takes its checkpoint back",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointRecoveryBackups) ==
                VIR_CHECKPOINT_BACKUP_LAST);

const gchar *
virCheckpointRecoveryOfCheckpoint(virCheckpointRecordState state)
{
    g_assert(state < VIR_CHECKPOINT_RECORD_LAST);
    return virCheckpointRecoveryCheckpoints[state];
}

const gchar *
virCheckpointRecoveryOfJob(virCheckpointJobState state)
{
    g_assert(state < VIR_CHECKPOINT_JOB_LAST);
    return virCheckpointRecoveryJobs[state];
}

const gchar *
virCheckpointRecoveryOfBackup(virCheckpointBackupState state)
{
    g_assert(state < VIR_CHECKPOINT_BACKUP_LAST);
    return virCheckpointRecoveryBackups[state];
}

gchar *
virCheckpointRecoveryTable(void)
{
    GString *text = g_string_new(NULL);
    guint i;

    for (i = 0; i < VIR_CHECKPOINT_RECORD_LAST; i++)
        g_string_append_printf(text, "| checkpoint | `%s` | %s |\n",
                               virCheckpointRecordStateToString(i),
                               virCheckpointRecoveryCheckpoints[i]);
    for (i = 0; i < VIR_CHECKPOINT_JOB_LAST; i++)
        g_string_append_printf(text, "| copy | `%s` | %s |\n",
                               virCheckpointJobStateToString(i),
                               virCheckpointRecoveryJobs[i]);
    for (i = 0; i < VIR_CHECKPOINT_BACKUP_LAST; i++)
        g_string_append_printf(text, "| backup | `%s` | %s |\n",
                               virCheckpointBackupStateToString(i),
                               virCheckpointRecoveryBackups[i]);
    return g_string_free(text, FALSE);
}
