/*
 * checkpoint_resume_record.h: what the store keeps of a mirror that did not get through
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_RESUME_RECORD_H
#define VIR_CHECKPOINT_RESUME_RECORD_H

#include "checkpoint_store.h"

/**
 * virCheckpointResumeRecord:
 * The target holds the disk of a certain moment, except for the bits of @rest, as long
 * as it still looks like @stamp.  The changes up to that moment are all in @covered.
 */
typedef struct virCheckpointResumeRecord {
    gchar *id;       /* that of the job: file name */
    gchar *target;   /* disk target of the domain, "vda" */
    gchar *sinceId;  /* id of the base checkpoint's record */
    gchar *destPath; /* T */
    gchar *stamp;    /* how T's file looked when it was complete up to here */
    gchar *rest;     /* file name of a sidecar: what T lacks */
    guint64 restBytes;
    GPtrArray *covered; /* gchar*: sidecars as they were then, each by a text that tells
                           it from any other file that gets its name */
} virCheckpointResumeRecord;

virCheckpointResumeRecord *
virCheckpointResumeRecordNew(void);
void
virCheckpointResumeRecordFree(virCheckpointResumeRecord *record);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointResumeRecord, virCheckpointResumeRecordFree)
gchar *
virCheckpointResumeRecordFormat(const virCheckpointResumeRecord *record);
virCheckpointResumeRecord *
virCheckpointResumeRecordParse(const gchar *xml, GError **error);

/** Returns: (transfer full): GPtrArray of virCheckpointResumeRecord*.  What cannot be
 * read is left out: a copy then starts over. */
GPtrArray *
virCheckpointStoreListResumes(virCheckpointStoreDomain *domain);
/** Replaces those of the same disk and target. */
gboolean
virCheckpointStoreSaveResume(virCheckpointStoreDomain *domain,
                             const virCheckpointResumeRecord *record,
                             GError **error);
/** The record, then its sidecar. */
gboolean
virCheckpointStoreRemoveResume(virCheckpointStoreDomain *domain,
                               const virCheckpointResumeRecord *record,
                               GError **error);
/** Removes those whose base checkpoint is not among @records; the sidecars of the
 * others are added to @used. */
gboolean
virCheckpointStoreSiftResumes(virCheckpointStoreDomain *domain,
                              GPtrArray *records,
                              GHashTable *used,
                              GError **error);

#endif
