/*
 * checkpoint_job_record.h: what the store keeps of one incremental mirror
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_JOB_RECORD_H
#define VIR_CHECKPOINT_JOB_RECORD_H

#include <glib.h>

/**
 * virCheckpointJobState:
 * Each state is recorded before the side effects that lead out of it are begun;
 * docs/internals/mirror.md has the table of what recovery does for each.
 */
typedef enum {
    VIR_CHECKPOINT_JOB_PREPARING,  /* overlay file and checkpoint are being made; guest
                                      on S */
    VIR_CHECKPOINT_JOB_OVERLAYING, /* the snapshot may or may not have run: S or O */
    VIR_CHECKPOINT_JOB_BULK,       /* guest on O, frozen S is copied to the target */
    VIR_CHECKPOINT_JOB_NATIVE,     /* guest on S, QEMU's own bitmap mirror copies it */
    VIR_CHECKPOINT_JOB_MIRRORING,  /* libvirt's own copy of O to the target runs or is
                                      about to */
    VIR_CHECKPOINT_JOB_PIVOTING,   /* the pivot may or may not have run: O or T */
    VIR_CHECKPOINT_JOB_COMMITTING, /* O is committed into S, or is about to be */
    VIR_CHECKPOINT_JOB_CLEANING, /* guest on S or T; nodes, overlay file, descriptors go
                                  */
    VIR_CHECKPOINT_JOB_LAST
} virCheckpointJobState;

typedef enum {
    VIR_CHECKPOINT_JOB_UNDECIDED,
    VIR_CHECKPOINT_JOB_COMPLETED,
    VIR_CHECKPOINT_JOB_FAILED,
    VIR_CHECKPOINT_JOB_CANCELED,
    VIR_CHECKPOINT_JOB_OUTCOME_LAST
} virCheckpointJobOutcome;

typedef struct virCheckpointJobRecord {
    gchar *id;     /* 32 hex digits: file name, part of node, job and fdset names */
    gchar *target; /* disk target of the domain, "vda" */
    virCheckpointJobState state;
    virCheckpointJobOutcome
        outcome;  /* decided on the way into COMMITTING or CLEANING */
    gchar *error; /* sentence for the client when outcome is FAILED */
    gint errorCode;
    gboolean finish;         /* no mirror phase */
    gboolean verify;         /* compare source and target before it ends well */
    gboolean endCheckpoints; /* a pivot may end the disk's checkpoints */
    gboolean full;           /* no bitmap given: everything is copied */
    gboolean native;     /* by QEMU's own bitmap mirror: no overlay unless it pivots */
    gchar *sinceId;      /* id of the base checkpoint's record; NULL: libvirt's own */
    gchar *since;        /* its name as given, or NULL */
    gchar *checkpointId; /* id of the checkpoint made by this job, or NULL */
    gchar *checkpoint;
    gchar *sourcePath;  /* S */
    gchar *overlayPath; /* O */
    gchar *defined;     /* which of the three the domain's definition names, by us: O as
                           soon as it does; S and T before it does.  NULL: S as ever */
    gchar *destPath;    /* T */
    gchar *destFormat;  /* "qcow2" or "raw" */
    gboolean destCreated; /* T was made by this job: removed when it fails */
    gchar *destXml;       /* as given */
    gboolean aside;       /* the bulk pass runs in a storage daemon of the job's ... */
    gboolean asideBegun;  /* ... and was begun there once: it can begin again */
    /* The guest was off when the bulk pass was begun; it can begin again as long as */
    gboolean offline;
    gchar *
        offlineSource; /* ... the source's image looks so (virCheckpointOfflineStamp) */
    gchar *offlineDest; /* ... and the target is this file, or NULL: is elsewhere */
    gchar *offlineLeft; /* with what was left (ID.left), if the target looks so */
    /* The definition names S, and QEMU was not seen to have left O. */
    gboolean leaving;
    guint flags;            /* virDomainBlockCopyFlags as given */
    guint64 bandwidthBytes; /* per second, 0 = unlimited */
    guint granularity;
    guint64 bufSize;
    guint64 sizeBytes;  /* virtual size of the disk */
    guint64 workBytes;  /* to copy in the bulk pass */
    gint64 startedUsec; /* wall clock */
    /* For the call that goes on after this one failed (checkpoint_resume_record.h). */
    gchar *destId;      /* the target's file, or NULL: it cannot be told apart */
    gchar *resumeId;    /* what was left by an earlier job and is taken up, or NULL */
    GPtrArray *covered; /* gchar*: see virCheckpointResumeRecord; NULL: not known */
} virCheckpointJobRecord;

virCheckpointJobRecord *
virCheckpointJobRecordNew(void);
virCheckpointJobRecord *
virCheckpointJobRecordCopy(const virCheckpointJobRecord *job);
void
virCheckpointJobRecordFree(virCheckpointJobRecord *job);
gchar *
virCheckpointJobRecordFormat(const virCheckpointJobRecord *job);
virCheckpointJobRecord *
virCheckpointJobRecordParse(const gchar *xml, GError **error);
const gchar *
virCheckpointJobStateToString(virCheckpointJobState state);
const gchar *
virCheckpointJobOutcomeToString(virCheckpointJobOutcome outcome);
/** TRUE if the table of allowed moves has @from -> @to. */
gboolean
virCheckpointJobStateMayMove(virCheckpointJobState from, virCheckpointJobState to);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointJobRecord, virCheckpointJobRecordFree)

#endif
