/*
 * checkpoint_enginepriv.h: inside the engine, for its own modules
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_ENGINEPRIV_H
#define VIR_CHECKPOINT_ENGINEPRIV_H

#include "checkpoint_backup.h"
#include "checkpoint_domain.h"
#include "checkpoint_engine.h"
#include "checkpoint_mirror.h"
#include "checkpoint_segments.h"
#include "checkpoint_store.h"

/*
 * Names that we give things inside a guest's QEMU.  Settling removes what an operation
 * that died left of the first kind; the second kind belongs to the mirror module.
 */
#define VIR_CHECKPOINT_HELPER_PREFIX "virtcheckpoint-sc-" /* nodes of sidecars */
#define VIR_CHECKPOINT_HELPER_BITMAP                                                   \
    "virtcheckpoint-set." /* transient bitmaps, + hex */
#define VIR_CHECKPOINT_MIRROR_PREFIX                                                   \
    "virtcheckpoint-mirror-" /* nodes, jobs, + 8 digits of the job id: QEMU takes 31   \
                                bytes */
#define VIR_CHECKPOINT_MIRROR_BITMAP "virtcheckpoint-work." /* transient, + job id */

/** Where events for clients go; outlives the engine while one is under way. */
typedef struct virCheckpointEngineSink {
    virCheckpointEngineBlockJobFunc blockJob; /* main context only; NULL: to nobody */
    gpointer data;
} virCheckpointEngineSink;

/*
 * Locks, outermost first: a domain's slot (virCheckpointStoreDomain), connectLock,
 * mirrorLock, lock.  The main context takes only the last two, which nobody holds while
 * waiting for anything.
 */
struct virCheckpointEngine {
    /* set once */
    gchar *uri;
    gchar *overlayDir; /* or NULL */
    virCheckpointEngineSink *sink;
    virCheckpointStore *store;
    GThreadPool *pool; /* virCheckpointEngineTask; as many threads as are needed */

    GMutex connectLock; /* held while (re)connecting; guards what follows */
    gint lifecycleId;   /* event callbacks on conn, or -1 */
    gint blockJobId;
    gint jobId;
    gint deviceId;
    gint qemuJobId;  /* of the monitor's events */
    gint hostLocked; /* atomic: virCheckpointStoreLockHost succeeded */
    gchar *host;     /* libvirt's uuid of this host; set before hostLocked */

    gint interrupted; /* atomic: nobody waits for a block job's end any more */
    GMutex mirrorLock;
    GHashTable *mirrors;       /* "uuid/target" -> what the mirror module wants */
    GHashTable *failedMirrors; /* the same of each disk's last one, if it failed */
    GHashTable *dialects;      /* uuid or identity -> virCheckpointNativeDialect */

    GMutex lock;           /* guards what follows */
    GCond changed;         /* broadcast when stopping is set, or a backup ended */
    virConnectPtr conn;    /* owned, or NULL: not connected; changed under both locks */
    GQueue idle;           /* virConnectPtr that no operation uses */
    gboolean reconnecting; /* a worker tries */
    gboolean stopping;
    guint busy;           /* operations and mirrors under way */
    GHashTable *settled;  /* uuid: nothing is left over from earlier operations */
    GHashTable *retries;  /* uuid -> what checkpoint_retry.c wants */
    GHashTable *starting; /* uuid -> what checkpoint_starting.c knows */
    GHashTable
        *backups; /* uuid -> virCheckpointBackupEnd* of the job that is recorded */
};

/**
 * virCheckpointEngineWatch:
 * Sees to it that the connection over which events come is up, and takes the host's
 * lock with the first one.  Blocks.  Thread: any but main's (at start: main's).
 */
gboolean
virCheckpointEngineWatch(virCheckpointEngine *engine, GError **error);

/** Takes the host's lock if that failed at the start: the store is well again.  An
 * operation on a store is one of the daemon that holds this. */
gboolean
virCheckpointEngineTakeStore(virCheckpointEngine *engine,
                             virConnectPtr conn,
                             GError **error);

/**
 * virCheckpointEngineConnect:
 * Returns: a live connection to the backend that is the caller's alone until
 * virCheckpointEngineDisconnect().  Blocks.  Thread: any but main's.
 */
virConnectPtr
virCheckpointEngineConnect(virCheckpointEngine *engine, GError **error);
/** Gives @conn (or NULL) back; its domains have been freed. */
void
virCheckpointEngineDisconnect(virCheckpointEngine *engine, virConnectPtr conn);
/** Closes what is idle, at the end of the engine. */
void
virCheckpointEngineCloseIdle(virCheckpointEngine *engine);

/** Tells clients of a block job, on the main context.  Looks the domain's name and id
 * up (blocks) first.  Thread: any but main's. */
void
virCheckpointEngineEmitBlockJob(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const gchar *target,
                                const gchar *source,
                                gint type,
                                gint status);

typedef void (*virCheckpointEngineTaskFunc)(virCheckpointEngine *engine, gpointer data);

/** Runs @func(@engine, @data) on a thread of the pool; @free (or NULL) frees @data
 * afterwards. */
void
virCheckpointEngineSpawn(virCheckpointEngine *engine,
                         virCheckpointEngineTaskFunc func,
                         gpointer data,
                         GDestroyNotify free);

/** TRUE once virCheckpointEngineFree() has begun: long work ends at its next recorded
 * step. */
gboolean
virCheckpointEngineStopping(virCheckpointEngine *engine);

/** Waits @timeoutMs or until stopping; returns virCheckpointEngineStopping(). For
 * polling loops. */
gboolean
virCheckpointEngineSleep(virCheckpointEngine *engine, guint timeoutMs);

/** virCheckpointEngineIsBusy() counts these. */
void
virCheckpointEngineHold(virCheckpointEngine *engine);
void
virCheckpointEngineRelease(virCheckpointEngine *engine);

/** The next operation on @uuid settles first.  Thread: any. */
void
virCheckpointEngineUnsettle(virCheckpointEngine *engine, const gchar *uuid);

/** The same when something failed and may have left something: if no operation comes
 * it is settled all the same, soon and until nothing fails.  Thread: any. */
void
virCheckpointEngineSettleLater(virCheckpointEngine *engine, const gchar *uuid);
/** Settles @uuid soon, once more, whatever is known of it by then; operations do not
 * wait for that.  Thread: any. */
void
virCheckpointEngineAskAgain(virCheckpointEngine *engine, const gchar *uuid);
void
virCheckpointRetryInit(virCheckpointEngine *engine);
/** On the main context, when no thread of the engine is left. */
void
virCheckpointRetryFini(virCheckpointEngine *engine);

/** TRUE if a start was let through that libvirt may not show yet.  Thread: any. */
gboolean
virCheckpointEngineIsStarting(virCheckpointEngine *engine, const gchar *uuid);
void
virCheckpointStartingInit(virCheckpointEngine *engine);
void
virCheckpointStartingFini(virCheckpointEngine *engine);

/** TRUE if nothing is left over from earlier operations, as far as is known. */
gboolean
virCheckpointEngineIsSettled(virCheckpointEngine *engine, const gchar *uuid);

/** One operation on one domain: the slot, the connection and the view. */
typedef struct virCheckpointOperation {
    virCheckpointEngine *engine;
    virConnectPtr conn;
    virCheckpointStoreDomain *store; /* the slot */
    virCheckpointDomainView *view;
} virCheckpointOperation;

typedef enum {
    VIR_CHECKPOINT_OPERATION_NO_SETTLE = 1 << 0, /* take the domain as it is */
    VIR_CHECKPOINT_OPERATION_AWAY = 1 << 2,      /* also when it is on another host */
    VIR_CHECKPOINT_OPERATION_RUNNING =
        1 << 1, /* else VIR_ERR_OPERATION_INVALID "domain is not running" */
    VIR_CHECKPOINT_OPERATION_OF_JOB = 1 << 3,   /* a copy's: does not wait for copies */
    VIR_CHECKPOINT_OPERATION_OF_START = 1 << 4, /* does not wait for a start */
} virCheckpointOperationFlags;

/** Takes the slot (waits), looks the domain up, settles it. Thread: any but main's. */
virCheckpointOperation *
virCheckpointOperationBegin(virCheckpointEngine *engine,
                            const gchar *uuid,
                            guint flags,
                            GError **error);
/** Gives the slot back. */
void
virCheckpointOperationEnd(virCheckpointOperation *operation);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointOperation, virCheckpointOperationEnd)

/** What the alignment of a checkpoint's XML must know of the domain's disks
 * (virCheckpointDomainDisk*, borrowing from @view). */
GPtrArray *
virCheckpointEngineDisks(const virCheckpointDomainView *view);

/** Parks what is frozen of @target (NULL: of all disks).  What fails is logged and
 * leaves the domain unsettled; what somebody's job keeps waits for its end, which
 * settles. */
void
virCheckpointEngineParkRest(virCheckpointEngine *engine,
                            virCheckpointSegments *segments,
                            const gchar *target);

/** Parks what a change froze, as far as that is possible now; before the answer. */
void
virCheckpointEnginePark(virCheckpointOperation *operation);

/**
 * virCheckpointRecoverySettle: finishes whatever earlier operations left
 * (docs/internals/recovery.md) The caller holds the slot.  FALSE: the domain is not
 * settled; the next operation tries again.
 */
gboolean
virCheckpointRecoverySettle(virCheckpointEngine *engine,
                            virCheckpointStoreDomain *store,
                            virCheckpointDomainView *view,
                            GError **error);

/** An error if a QEMU of a domain that libvirt shows shut off lives: its images are
 * not to be touched. */
gboolean
virCheckpointRecoveryNoQemu(const gchar *uuid, const gchar *name, GError **error);

/** TRUE if this daemon began the copy, or goes on with one of a guest that is off whose
 * start was answered: its checkpoint is no matter of a crash. */
gboolean
virCheckpointEngineHasBegun(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const virCheckpointJobRecord *job);

#endif
