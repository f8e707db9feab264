/*
 * checkpoint_store.h: crash-safe records, one folder per domain
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_STORE_H
#define VIR_CHECKPOINT_STORE_H

#include "checkpoint_job_record.h"
#include "checkpoint_record.h"

/** A job's record is its id and this. */
#define VIR_CHECKPOINT_STORE_JOB_SUFFIX ".job.xml"
/** The host on which the domain ran last. */
#define VIR_CHECKPOINT_STORE_HOST "host"
/** The domain's definition, since it was asked to go with all that is here. */
#define VIR_CHECKPOINT_STORE_LEAVING "leaving"

/*
 * Layout below the root (made 0700):
 *   virtcheckpoint-store      marker: this is a store root (format version inside)
 *   host-<key>.lock           held by the one daemon of a host
 *   reserve                   some room for when there is none (checkpoint_reserve.c)
 *   <domain uuid>/            one folder per domain
 *     lock                    held for the duration of an operation
 *     <id>.checkpoint.xml     virCheckpointRecord
 *     <id>.job.xml            virCheckpointJobRecord
 *     <id>.resume.xml         virCheckpointResumeRecord
 *     <segment id>.<n>.qcow2  sidecars; *.tmp are half made and removed at recovery
 *     journal                 bitmap names that we made, one a line, appended and
 * synced before QEMU hears of them
 *
 * All writes are durable when they return.  A file that cannot be read concerns
 * that checkpoint alone: it is skipped with a warning and named by
 * virCheckpointStoreBadFiles.
 */
typedef struct virCheckpointStore virCheckpointStore;

/** A store root that nobody looked at yet: each function below makes it ready, or
 * fails. */
virCheckpointStore *
virCheckpointStoreNew(const gchar *root);
/** Makes the root if need be and looks at its version, once; a failure is not
 * remembered: the cause may pass.  Errors name the path; VIR_ERR_CONFIG_UNSUPPORTED: of
 * another version. */
gboolean
virCheckpointStoreReady(virCheckpointStore *store, GError **error);
/** Both in one. */
virCheckpointStore *
virCheckpointStoreOpen(const gchar *root, GError **error);
void
virCheckpointStoreFree(virCheckpointStore *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointStore, virCheckpointStoreFree)
const gchar *
virCheckpointStoreRoot(virCheckpointStore *store);

/** Becomes the only daemon of host @key on this root, until the store is freed.
 * If another is: VIR_ERR_RESOURCE_BUSY naming the root and saying that an instance
 * runs. */
gboolean
virCheckpointStoreLockHost(virCheckpointStore *store, const gchar *key, GError **error);

/** One domain's folder, locked for one operation. */
typedef struct virCheckpointStoreDomain virCheckpointStoreDomain;

/**
 * virCheckpointStoreDomainOpen:
 * @uuid: textual domain UUID, checked
 *
 * Takes the domain's lock (waits; two threads of one process exclude each other, too).
 * The folder is made at the first write.  Thread: any; the handle belongs to one thread
 * at a time.
 */
virCheckpointStoreDomain *
virCheckpointStoreDomainOpen(virCheckpointStore *store,
                             const gchar *uuid,
                             GError **error);
/** Unlocks; removes the folder if it holds nothing but lock and journal. */
void
virCheckpointStoreDomainClose(virCheckpointStoreDomain *domain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointStoreDomain, virCheckpointStoreDomainClose)
const gchar *
virCheckpointStoreDomainUuid(virCheckpointStoreDomain *domain);
/** The descriptor that holds the lock: a process that inherits it holds it, too. */
int
virCheckpointStoreDomainLockFd(virCheckpointStoreDomain *domain);
/** Absolute path of @name in the folder; the folder exists afterwards. */
gchar *
virCheckpointStoreDomainPath(virCheckpointStoreDomain *domain,
                             const gchar *name,
                             GError **error);

/** Paths of the locks of all domains that have a folder. */
GPtrArray *
virCheckpointStoreListLocks(virCheckpointStore *store);

/** UUIDs that have a folder. */
GPtrArray *
virCheckpointStoreListDomains(virCheckpointStore *store, GError **error);

/** Returns: (transfer full): GPtrArray of virCheckpointRecord* copies, all states.
 * Cached by the folder's state; flat for unchanged folders. */
GPtrArray *
virCheckpointStoreList(virCheckpointStoreDomain *domain, GError **error);
/** The same, but the records themselves (references): not to be changed by anybody. */
GPtrArray *
virCheckpointStoreShare(virCheckpointStoreDomain *domain, GError **error);
gboolean
virCheckpointStoreSave(virCheckpointStoreDomain *domain,
                       const virCheckpointRecord *record,
                       GError **error);
gboolean
virCheckpointStoreRemove(virCheckpointStoreDomain *domain,
                         const gchar *id,
                         GError **error);
/** Like virCheckpointStoreList without taking the domain's lock: a snapshot for
 * readers. */
GPtrArray *
virCheckpointStorePeek(virCheckpointStore *store, const gchar *uuid, GError **error);
/** The same of its jobs. */
GPtrArray *
virCheckpointStorePeekJobs(virCheckpointStore *store,
                           const gchar *uuid,
                           GError **error);

/** As Peek, but the records themselves (references): not to be changed by anybody. */
GPtrArray *
virCheckpointStorePeekShared(virCheckpointStore *store,
                             const gchar *uuid,
                             GError **error);
/**
 * virCheckpointStorePeekOne: as Peek, for one record
 * @record: (out) (transfer full): the one that clients know as @name, or NULL
 * @unready: (out): the domain has a record in another state than READY
 */
gboolean
virCheckpointStorePeekOne(virCheckpointStore *store,
                          const gchar *uuid,
                          const gchar *name,
                          virCheckpointRecord **record,
                          gboolean *unready,
                          GError **error);

GPtrArray *
virCheckpointStoreListJobs(virCheckpointStoreDomain *domain, GError **error);
gboolean
virCheckpointStoreSaveJob(virCheckpointStoreDomain *domain,
                          const virCheckpointJobRecord *job,
                          GError **error);
gboolean
virCheckpointStoreRemoveJob(virCheckpointStoreDomain *domain,
                            const gchar *id,
                            GError **error);

/** Appends bitmap names to the journal, synced. */
gboolean
virCheckpointStoreJournalAdd(virCheckpointStoreDomain *domain,
                             const gchar *const *bitmaps,
                             GError **error);
gboolean
virCheckpointStoreJournalHas(virCheckpointStoreDomain *domain, const gchar *bitmap);

/**
 * virCheckpointStoreCollectOf:
 * @names: gchar*: sidecars that no record names anymore, by all that could be read
 *
 * As virCheckpointStoreCollect() after a checkpoint was removed, but with as little
 * work as that takes: removes @names, unless a file of the folder cannot be read, which
 * may name one.
 */
gboolean
virCheckpointStoreCollectOf(virCheckpointStoreDomain *domain,
                            GPtrArray *names,
                            GError **error);
/** The next list looks at each file: what somebody wrote in place leaves the folder as
 * it was. */
void
virCheckpointStoreLookAgain(virCheckpointStoreDomain *domain);
/** The caller made or removed files in the folder that are neither records nor jobs.
 * Not said, the next list looks at each file. */
void
virCheckpointStoreTouched(virCheckpointStoreDomain *domain);
/** Sidecars that no record names, and *.tmp: removed.  Call when nothing is under way.
 */
gboolean
virCheckpointStoreCollect(virCheckpointStoreDomain *domain, GError **error);
/** Removes the whole folder of a domain: records, jobs, sidecars; last the mark that it
 * is to go. */
gboolean
virCheckpointStoreDrop(virCheckpointStoreDomain *domain, GError **error);
/** Why a record or job that is there was not known to the last list (of records)
 * through
 * @domain, or NULL: an error that may pass.  Good until the next one. */
const gchar *
virCheckpointStoreUnread(virCheckpointStoreDomain *domain);
/** Names of files in the folder that could not be read, or an empty array. */
GPtrArray *
virCheckpointStoreBadFiles(virCheckpointStoreDomain *domain);

#endif
