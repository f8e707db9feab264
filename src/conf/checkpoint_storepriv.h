/*
 * checkpoint_storepriv.h: the contents of one domain's folder, read and remembered
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STOREPRIV_H
#define VIR_CHECKPOINT_STOREPRIV_H

#include "checkpoint_store.h"

#define VIR_CHECKPOINT_STORE_RECORD_SUFFIX ".checkpoint.xml"
#define VIR_CHECKPOINT_STORE_LOCK "lock"
#define VIR_CHECKPOINT_STORE_JOURNAL "journal"
#define VIR_CHECKPOINT_STORE_RESERVE "reserve"

/** Makes the reserve of the store @root.  FALSE: there is no room for it. */
gboolean
virCheckpointReserveMake(const gchar *root);
/** A write failed, maybe for want of room.  Returns: TRUE if there was a reserve: it is
 * worth trying again. */
gboolean
virCheckpointReserveGive(const gchar *root, const GError *why);

/** One folder as it was read last.  All functions may be called from any thread. */
typedef struct virCheckpointStoreFolder virCheckpointStoreFolder;

virCheckpointStoreFolder *
virCheckpointStoreFolderNew(const gchar *path);
void
virCheckpointStoreFolderFree(virCheckpointStoreFolder *folder);

/** What a look at the folder gives.  Copies, owned by the caller. */
typedef struct virCheckpointStoreLook {
    GPtrArray *records; /* virCheckpointRecord*, or NULL if not asked for */
    GPtrArray *jobs;    /* virCheckpointJobRecord*, or NULL if not asked for */
    GPtrArray *bad;     /* gchar*: files that could not be read, or NULL */
    gchar *unread;      /* why one of them is not known, or NULL */
} virCheckpointStoreLook;

typedef enum {
    VIR_CHECKPOINT_STORE_LOOK_RECORDS = 1 << 0,
    VIR_CHECKPOINT_STORE_LOOK_JOBS = 1 << 1,
    VIR_CHECKPOINT_STORE_LOOK_BAD = 1 << 2,
    VIR_CHECKPOINT_STORE_LOOK_SHARED = 1 << 3, /* with records: not copies, not to be
                                                  changed */
    VIR_CHECKPOINT_STORE_LOOK_UNREAD = 1 << 4,
} virCheckpointStoreLookFlags;

/**
 * virCheckpointStoreFolderLook:
 * @flags: virCheckpointStoreLookFlags; @look: what was asked for is set on success
 *
 * Reads what changed since the last look.  A folder that is not there is empty.
 */
gboolean
virCheckpointStoreFolderLook(virCheckpointStoreFolder *folder,
                             guint flags,
                             virCheckpointStoreLook *look,
                             GError **error);

/**
 * virCheckpointStoreFolderFind:
 * @record: (out) (transfer full): the one that clients know as @name, or NULL
 * @unready: (out): a record of the folder is in another state than READY
 */
gboolean
virCheckpointStoreFolderFind(virCheckpointStoreFolder *folder,
                             const gchar *name,
                             virCheckpointRecord **record,
                             gboolean *unready,
                             GError **error);

/**
 * virCheckpointStoreFolderTake: the domain's lock was taken, by its file @lockFd, which
 * stays the caller's.  While it is held only its holder writes: so the folder's time,
 * however young, tells what the functions below did not say.
 */
void
virCheckpointStoreFolderTake(virCheckpointStoreFolder *folder, int lockFd);
/** The lock is about to be given back. */
void
virCheckpointStoreFolderGive(virCheckpointStoreFolder *folder);

/** The holder is about to change a record or a job: whoever remembers the folder, in
 * whatever process, has to look again. */
void
virCheckpointStoreFolderBegin(virCheckpointStoreFolder *folder);
/** The holder changed files that are neither, as far as @folder was up to date. */
void
virCheckpointStoreFolderTouched(virCheckpointStoreFolder *folder);
/** The holder changes the file @name, or (NULL) any: the folder is read again. */
void
virCheckpointStoreFolderForget(virCheckpointStoreFolder *folder, const gchar *name);
/** The holder has written, or removed (@record NULL), or failed to (@sure FALSE), the
 * record in file @name. */
void
virCheckpointStoreFolderChanged(virCheckpointStoreFolder *folder,
                                const gchar *name,
                                const virCheckpointRecord *record,
                                gboolean sure);

/** TRUE if the journal @path has the line @line. */
gboolean
virCheckpointStoreFolderJournalHas(virCheckpointStoreFolder *folder,
                                   const gchar *path,
                                   const gchar *line);

/** Returns: how many files were parsed so far, for tests. */
guint
virCheckpointStoreFolderParsed(virCheckpointStoreFolder *folder);

/** Returns: the folder behind @domain, borrowed, for tests. */
virCheckpointStoreFolder *
virCheckpointStoreDomainFolder(virCheckpointStoreDomain *domain);

#endif
