/*
 * checkpoint_engine.h: checkpoints and incremental mirrors of one host's domains
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_ENGINE_H
#define VIR_CHECKPOINT_ENGINE_H

#include <glib.h>

#include "checkpoint_json.h"
#include <libvirt/libvirt.h>

#include "checkpoint_backup_record.h"

/**
 * The engine acts over connections of its own, always to the explicit backend
 * socket.  It does not judge rights: callers have established them.
 *
 * Unless said otherwise functions may be called from any thread but the main
 * context's, block until done, and hold the domain's one job slot for their duration;
 * @uuid is the domain's textual UUID.  Errors carry libvirt's codes.
 */
typedef struct virCheckpointEngine virCheckpointEngine;

/** A block job event as clients see it.  All borrowed. */
typedef struct virCheckpointEngineEvent {
    const gchar *uuid;   /* textual */
    const gchar *name;   /* of the domain, now */
    gint id;             /* of the domain; -1 when it is off */
    const gchar *target; /* "vda" */
    const gchar *source; /* path of the disk's source */
    gint type;           /* virDomainBlockJobType */
    gint status;         /* virConnectDomainEventBlockJobStatus */
} virCheckpointEngineEvent;

/**
 * virCheckpointEngineBlockJobFunc: a block job event that clients are to see
 * Called on the main context, from a source of priority G_PRIORITY_DEFAULT that was
 * attached before the call that caused the event returns: so the gateway can send the
 * event before the answer, as libvirt does.
 */
typedef void (*virCheckpointEngineBlockJobFunc)(const virCheckpointEngineEvent *event,
                                                gpointer data);

typedef struct virCheckpointEngineConfig {
    const gchar *uri;        /* "qemu:///system?socket=/path" */
    const gchar *stateDir;   /* store root */
    const gchar *overlayDir; /* NULL: beside the source image */
    virCheckpointEngineBlockJobFunc blockJob;
    gpointer data;
} virCheckpointEngineConfig;

/**
 * virCheckpointEngineNew:
 * Opens the store, connects to the backend (and again whenever it went away), takes the
 * host's lock, registers for domain events, and starts recovery of all domains with a
 * folder in the store, in the background. A backend that does not answer yet is no
 * error; a second instance for the same host on the same root is. Thread: main;
 * libvirt's default event loop is registered.
 */
virCheckpointEngine *
virCheckpointEngineNew(const virCheckpointEngineConfig *config, GError **error);
/** Calls that wait for the end of a block job return an error; the jobs go on.  To be
 * called before clients' last calls are waited for.  Thread: main. */
void
virCheckpointEngineInterrupt(virCheckpointEngine *engine);
/** Lets running steps finish (jobs stay recorded and are taken up by the next start)
 * and frees.  Thread: main. */
void
virCheckpointEngineFree(virCheckpointEngine *engine);
/** TRUE while an operation or a mirror runs.  Thread: any, does not block. */
gboolean
virCheckpointEngineIsBusy(virCheckpointEngine *engine);

/* Checkpoints; flags are libvirt's. */

/** @name: (out) (transfer full): the name of the new checkpoint.  REDEFINE of a name
 * that is not ours: VIR_ERR_NO_DOMAIN_CHECKPOINT, the caller forwards. */
gboolean
virCheckpointEngineCreate(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *xml,
                          guint flags,
                          gchar **name,
                          GError **error);
gboolean
virCheckpointEngineDelete(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          GError **error);
gboolean
virCheckpointEngineGetXml(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          gchar **xml,
                          GError **error);

/** One line of a list. */
typedef struct virCheckpointEngineEntry {
    gchar *name;
    gchar *parent; /* or NULL */
} virCheckpointEngineEntry;
void
virCheckpointEngineEntryFree(virCheckpointEngineEntry *entry);

/**
 * Our checkpoints of the domain in topological order, READY and DELETING-not CREATING
 * ones only; (transfer full) GPtrArray of virCheckpointEngineEntry*, maybe empty. Waits
 * for the job slot only while what a crash left is undecided; so does Has.
 */
GPtrArray *
virCheckpointEngineList(virCheckpointEngine *engine, const gchar *uuid, GError **error);
/** TRUE if @name is a checkpoint of ours. */
gboolean
virCheckpointEngineHas(virCheckpointEngine *engine,
                       const gchar *uuid,
                       const gchar *name);
/** A client undefines the domain together with its checkpoints' metadata: writes down
 * what has to be known to leave their bits in the images.  To be called before libvirt
 * is asked. */
void
virCheckpointEngineLeave(virCheckpointEngine *engine, const gchar *uuid);
/** TRUE if the domain last ran on another host that shares the store: what becomes of
 * its definition here does not concern its checkpoints.  Does not wait. */
gboolean
virCheckpointEngineIsElsewhere(virCheckpointEngine *engine, const gchar *uuid);
/** The domain was undefined: leaves the bits of its checkpoints in the images, drops
 * all metadata and sidecars.  Nothing is done to a domain that libvirt knows. */
gboolean
virCheckpointEngineDrop(virCheckpointEngine *engine, const gchar *uuid, GError **error);
/** Settles whatever an earlier operation left.  Success if nothing is known of the
 * domain, or if it went to another host: then nothing is done. */
gboolean
virCheckpointEngineSettle(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error);

/** The same before the domain starts here, wherever it was: of that start. */
gboolean
virCheckpointEngineSettleHere(virCheckpointEngine *engine,
                              const gchar *uuid,
                              GError **error);

/** A client wants the domain started: from now on what finds it off waits, until
 * libvirt shows it active.  Followed by one of the next two.  Thread: any. */
void
virCheckpointEngineStartComes(virCheckpointEngine *engine, const gchar *uuid);
/** Libvirt has the call, or gets it now. */
void
virCheckpointEngineStartGoes(virCheckpointEngine *engine, const gchar *uuid);
/** Libvirt does not get it. */
void
virCheckpointEngineStartRefused(virCheckpointEngine *engine, const gchar *uuid);

/** TRUE if a job is recorded of the domain, which is off, or if that cannot be told:
 * which image it starts from is not known before it is settled; and if a QEMU that
 * libvirt lost still has its images.  Does not block. */
gboolean
virCheckpointEngineMustSettle(virCheckpointEngine *engine, const gchar *uuid);

/** FALSE with VIR_ERR_OPERATION_INVALID while a copy of the domain, which is off, needs
 * its disks as they are.  Does not block. */
gboolean
virCheckpointEngineMayStart(virCheckpointEngine *engine,
                            const gchar *uuid,
                            GError **error);

/** TRUE if anything is recorded of the domain.  Does not block. */
gboolean
virCheckpointEngineTracks(virCheckpointEngine *engine, const gchar *uuid);
/** A block job of somebody else's is about to begin: libvirt carries the recording
 * bitmap of a disk's top only, so all else is parked first, as far as it can be. */
void
virCheckpointEngineBeforeJob(virCheckpointEngine *engine, const gchar *uuid);

/**
 * virCheckpointEngineAlone:
 * @func: called once, on this thread, while no operation of ours is under way on the
 * domain
 *
 * Returns: FALSE if that cannot be had; then @func was not called.
 */
gboolean
virCheckpointEngineAlone(virCheckpointEngine *engine,
                         const gchar *uuid,
                         void (*func)(gpointer data),
                         gpointer data);

/** The disks go back to an earlier state by other ways than writes: what was tracked is
 * worth nothing.  Says so in all records, and removes the bitmaps of a running domain,
 * whose presence would forbid that. */
gboolean
virCheckpointEngineGiveUp(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error);

/* Backups: libvirt runs them. */

/** What libvirt said to a backup that it was asked for. */
typedef enum {
    VIR_CHECKPOINT_BACKUP_ACCEPTED,
    VIR_CHECKPOINT_BACKUP_REFUSED,
    VIR_CHECKPOINT_BACKUP_UNANSWERED, /* nobody knows */
} virCheckpointBackupAnswer;

/** Asks libvirt for it, as the client; @checkpointXml: or NULL. */
typedef virCheckpointBackupAnswer (*virCheckpointEngineBackupFunc)(
    const gchar *xml, const gchar *checkpointXml, gpointer data);

typedef enum {
    VIR_CHECKPOINT_BACKUP_NOT_OURS, /* nothing in it concerns us: forward the call */
    VIR_CHECKPOINT_BACKUP_ANSWERED, /* the client gets libvirt's answer to the call of
                                       @func */
    VIR_CHECKPOINT_BACKUP_FAILED,   /* error is set */
} virCheckpointBackupResult;

/**
 * virCheckpointEngineBackupBegin:
 * @xml, @checkpointXml (or NULL): as the client gave them
 * @names: (out) (transfer full) (nullable): to translate libvirt's answer with
 *
 * Has libvirt begin a backup, by one call of @func, with checkpoints of ours in a form
 * that it understands; a checkpoint in the call becomes ours.
 */
virCheckpointBackupResult
virCheckpointEngineBackupBegin(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *xml,
                               const gchar *checkpointXml,
                               virCheckpointEngineBackupFunc func,
                               gpointer data,
                               virCheckpointBackupRecord **names,
                               GError **error);
/** Returns: (transfer full): the names that libvirt knows in the domain's backup, or
 * NULL.  Does not wait. */
virCheckpointBackupRecord *
virCheckpointEngineBackupNames(virCheckpointEngine *engine, const gchar *uuid);

/* Incremental mirror. */

typedef struct virCheckpointMirrorRequest {
    const gchar *disk; /* target or source path, as given */
    const gchar *destXml;
    const gchar *bitmap;     /* or NULL */
    const gchar *checkpoint; /* or NULL; one of the two is given */
    gboolean finish;
    gboolean verify; /* with finish: compare before it ends well */
    gboolean pivot;  /* the caller will pivot: refuse now what would be refused then */
    gboolean endCheckpoints; /* a pivot may end the disk's checkpoints */
    guint64 bandwidthBytes;  /* per second; 0 unlimited */
    guint granularity;       /* 0 default */
    guint64 bufSize;         /* 0 default */
    guint flags;             /* virDomainBlockCopyFlags */
} virCheckpointMirrorRequest;

/** Returns: (transfer full): "code" and "message" of the last copy of @disk if it
 * failed since this daemon runs, else an empty object. */
virCheckpointJson *
virCheckpointEngineMirrorError(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               GError **error);

/** Returns when the job runs (the bulk pass has begun) or nothing was begun. */
gboolean
virCheckpointEngineMirrorStart(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointMirrorRequest *request,
                               GError **error);

typedef enum {
    VIR_CHECKPOINT_MIRROR_NONE, /* no job of ours on that disk: forward the call */
    VIR_CHECKPOINT_MIRROR_OURS,
    VIR_CHECKPOINT_MIRROR_ERROR,
} virCheckpointMirrorAnswer;

/** @disk: target or path.  Does not wait for the job slot. */
virCheckpointMirrorAnswer
virCheckpointEngineMirrorInfo(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              virDomainBlockJobInfo *info,
                              GError **error);
/** @flags: virDomainBlockJobAbortFlags.  Without ASYNC returns when the job is over. */
virCheckpointMirrorAnswer
virCheckpointEngineMirrorAbort(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               guint flags,
                               GError **error);
/** @bandwidthBytes: bytes per second, 0 unlimited. */
virCheckpointMirrorAnswer
virCheckpointEngineMirrorSetSpeed(virCheckpointEngine *engine,
                                  const gchar *uuid,
                                  const gchar *disk,
                                  guint64 bandwidthBytes,
                                  GError **error);

/**
 * virCheckpointEngineHidesJob:
 * @disk: target ("vda") or path of the disk's source in an event of libvirt's
 *
 * Thread: any (the main context's, too); does not block.
 * Returns: TRUE if a block job event of libvirt for that disk belongs to a job that we
 * started inside: clients must not see it.
 */
gboolean
virCheckpointEngineHidesJob(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const gchar *disk);
/** TRUE if a mirror of ours runs on @disk (NULL: on any disk of the domain).  Thread:
 * any, does not block. */
gboolean
virCheckpointEngineHasMirror(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk);

#endif
