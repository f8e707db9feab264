/*
 * checkpoint_mirrorpriv.h: inside the mirror, for its own files
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_MIRRORPRIV_H
#define VIR_CHECKPOINT_MIRRORPRIV_H

#include "checkpoint_enginepriv.h"
#include "checkpoint_fault.h"
#include "checkpoint_mirror_verify.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(virConnect, virConnectClose)

/** What a client asked of a running job. */
typedef enum {
    VIR_CHECKPOINT_MIRROR_WISH_NONE,
    VIR_CHECKPOINT_MIRROR_WISH_CANCEL, /* abort without PIVOT */
    VIR_CHECKPOINT_MIRROR_WISH_PIVOT,
} virCheckpointMirrorWish;

/**
 * One mirror job.  Counted references: the engine's hash holds one, each thread that
 * works on the job another.
 *
 * Lock order: a domain's slot, engine->mirrorLock, lock.
 */
typedef struct virCheckpointMirror {
    gatomicrefcount refs;

    /* set once, before the job is in the engine's hash */
    virCheckpointEngine *engine;
    gchar *uuid;
    gchar *target;
    gchar *sourcePath;
    gchar *overlayPath;
    gchar *destPath;
    gboolean finish;
    gboolean offline;   /* the guest is off: no overlay, the job is in @daemon */
    gboolean recovered; /* taken up from a record: the start was answered long ago */

    /* only under the domain's slot */
    virCheckpointJobRecord *job;
    gboolean recorded;   /* this daemon wrote the record */
    int targetFd;        /* the target as it was judged; -1: opened by path if needed */
    gboolean takenUp;    /* the first look at a recovered job was made */
    gboolean begun;      /* the bulk job is known to exist or to have existed */
    gboolean copyBegun;  /* libvirt's copy was started or seen by this process */
    gboolean cancelSent; /* the bulk job was told to end */
    gboolean swept;      /* nothing of the bulk pass was left in QEMU, nor made since */
    gboolean stopSent;   /* QEMU's own mirror was told to end in order */
    gboolean pivoted;
    gboolean onOverlay;     /* the guest is, when only cleaning was left */
    gboolean needsSettling; /* a record's fate must be settled before the next step */
    gboolean innerRan; /* libvirt ran a job of ours: its last event is waited for */

    virCheckpointMirrorVerify *verify; /* or NULL; under lock */

    /* Changed inside the slot by who holds daemonLock, too; the innermost lock.  Who is
     * not in the slot borrows the monitor in it: a step may be using it. */
    GMutex daemonLock;
    virCheckpointMonitor *daemon; /* the job's storage daemon, or NULL */

    GMutex lock; /* guards what follows; changed is broadcast for all of it */
    GCond changed;
    virCheckpointJobState state; /* copy of the record's */
    virCheckpointJobOutcome outcome;
    gboolean started; /* the bulk pass has begun: the caller of start has its answer */
    gboolean ready;   /* READY was told */
    gboolean concluded; /* the record is gone: clients are about to be told */
    gboolean over;      /* nothing is left to do, clients were told */
    GError *failure;    /* why the job failed */
    virCheckpointMirrorWish wish;
    GError *wishError; /* why the pivot did not happen; the job goes on */
    guint pivotsFailed;
    gboolean kicked;     /* look now, not at the end of the poll's pause */
    gboolean deviceWent; /* a device of the domain is gone: maybe this disk */
    gint innerReady;     /* type of libvirt's job that said READY, or 0 */
    gint innerEnded;     /* type of libvirt's job that ended, or 0 ... */
    gint innerStatus;    /* ... and how */
    gchar *copyError;    /* what QEMU says that libvirt's copy failed of, or NULL */
    guint64 bandwidthBytes;
    guint64 curBytes;
    guint64 endBytes;
    guint64 bulkBytes; /* share of the bulk pass in them */

    virCheckpointMirrorWish wishSeen; /* only the job's thread */
} virCheckpointMirror;

virCheckpointMirror *
virCheckpointMirrorNew(virCheckpointEngine *engine,
                       const gchar *uuid,
                       virCheckpointJobRecord *job);
virCheckpointMirror *
virCheckpointMirrorRef(virCheckpointMirror *mirror);
void
virCheckpointMirrorUnref(virCheckpointMirror *mirror);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointMirror, virCheckpointMirrorUnref)

/** Puts it into, and takes it out of, the engine's hash. */
void
virCheckpointMirrorRegister(virCheckpointMirror *mirror);
void
virCheckpointMirrorUnregister(virCheckpointMirror *mirror);
/** Returns: (transfer full) (nullable): the job on @disk (target or path of one of its
 * files); @disk NULL: any of the domain. */
virCheckpointMirror *
virCheckpointMirrorFind(virCheckpointEngine *engine,
                        const gchar *uuid,
                        const gchar *disk);

/** TRUE when calls of clients are not to wait any more. */
gboolean
virCheckpointMirrorInterrupted(const virCheckpointMirror *mirror);
/** Lets the thread of the job look at once. */
void
virCheckpointMirrorKick(virCheckpointMirror *mirror);
/** Forgets ends of libvirt's jobs seen so far: one is about to be ended. */
void
virCheckpointMirrorExpectEnd(virCheckpointMirror *mirror);
/** Waits for libvirt's word on how that job ended (-1: none came in @timeoutMs). */
gint
virCheckpointMirrorAwaitEnd(virCheckpointMirror *mirror, guint timeoutMs);
gboolean
virCheckpointMirrorIsConcluded(virCheckpointMirror *mirror);
/** Waits until clients were told and the job has left the hash. */
void
virCheckpointMirrorAwaitGone(virCheckpointMirror *mirror);
virCheckpointMirrorWish
virCheckpointMirrorGetWish(virCheckpointMirror *mirror);
/** The pivot was refused or failed: whoever asked for it gets @error (taken over). */
void
virCheckpointMirrorPivotFailed(virCheckpointMirror *mirror, GError *error);
/** The first time: remembers that the job is READY and tells clients. */
void
virCheckpointMirrorSetReady(virCheckpointMirror *mirror);
guint64
virCheckpointMirrorBulkBytes(virCheckpointMirror *mirror);
void
virCheckpointMirrorSetBulkBytes(virCheckpointMirror *mirror, guint64 bulkBytes);
void
virCheckpointMirrorSetProgress(virCheckpointMirror *mirror,
                               guint64 curBytes,
                               guint64 endBytes);

/** TRUE if @disk (target or path of one of its files; NULL: any) is the job's. */
gboolean
virCheckpointMirrorIsOn(const virCheckpointMirror *mirror, const gchar *disk);

/* checkpoint_mirror_delta.c */

/** VIR_ERR_INVALID_ARG if @fd is an empty qcow2 and the job would write parts of its
 * clusters; sets the job's granularity where QEMU's would be too small, and its way
 * where the disk's bitmaps, of @bitmapBytes granularity, are. */
gboolean
virCheckpointMirrorCheckDelta(virCheckpointJobRecord *job,
                              int fd,
                              guint64 bitmapBytes,
                              GError **error);

/* checkpoint_mirror_failed.c */

/** Clients may ask why it failed, until another one begins. */
void
virCheckpointMirrorRememberFailed(virCheckpointMirror *mirror);
void
virCheckpointMirrorForgetFailed(virCheckpointMirror *mirror);

/* checkpoint_mirror_recover.c */

/** Puts the jobs that the last daemon left into the hash: clients see them at once. */
void
virCheckpointMirrorLoad(virCheckpointEngine *engine);

/* checkpoint_mirror_validate.c */

/**
 * virCheckpointMirrorValidate:
 * @targetFd: (out): the target, opened and judged; -1: it is yet to be made
 *
 * Everything that can be refused before anything is begun.  Changes nothing.
 * Returns: (transfer full): a record in state PREPARING, not saved yet, or NULL.
 */
virCheckpointJobRecord *
virCheckpointMirrorValidate(virCheckpointOperation *operation,
                            const virCheckpointMirrorRequest *request,
                            int *targetFd,
                            GError **error);

/* checkpoint_mirror_steps.c */

typedef enum {
    VIR_CHECKPOINT_MIRROR_MOVED, /* call again */
    VIR_CHECKPOINT_MIRROR_WAIT,  /* nothing to do now: poll */
    VIR_CHECKPOINT_MIRROR_OVER,  /* the record is gone */
    VIR_CHECKPOINT_MIRROR_LEAVE, /* the job is none of ours */
    VIR_CHECKPOINT_MIRROR_RETRY, /* could not be done: later; the reason was logged */
} virCheckpointMirrorResult;

/**
 * virCheckpointMirrorAdvance:
 * @store: the slot; @view: fresh; NULL: the domain is gone
 *
 * Does the next step of the job's state.  A step looks where QEMU, libvirt and the
 * files are before it does anything: it may be the second time.
 */
virCheckpointMirrorResult
virCheckpointMirrorAdvance(virCheckpointMirror *mirror,
                           virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view);

/** Takes the slot and a view, then advances until there is something to wait for. */
virCheckpointMirrorResult
virCheckpointMirrorAdvanceAll(virCheckpointMirror *mirror,
                              virCheckpointStoreDomain *store,
                              virCheckpointDomainView *view);

/** What a step needs in hand. */
typedef struct virCheckpointMirrorStep {
    virCheckpointMirror *mirror;
    virCheckpointStoreDomain *store;
    virCheckpointDomainView *view; /* or NULL */
} virCheckpointMirrorStep;

gboolean
virCheckpointMirrorMove(const virCheckpointMirrorStep *step,
                        virCheckpointJobState state,
                        GError **error);
gboolean
virCheckpointMirrorSave(const virCheckpointMirrorStep *step, GError **error);
/** Decides the outcome unless it is decided; @why (nullable, borrowed) goes to clients.
 */
void
virCheckpointMirrorDecide(virCheckpointMirror *mirror,
                          virCheckpointJobOutcome outcome,
                          const GError *why);
/** TRUE if the domain runs and has the disk. */
gboolean
virCheckpointMirrorRunning(const virCheckpointMirrorStep *step);
/** The caller of start has its answer. */
void
virCheckpointMirrorSetStarted(virCheckpointMirror *mirror);
/** Tells job @name to end in failure, once. */
virCheckpointMirrorResult
virCheckpointMirrorBulkCancel(const virCheckpointMirrorStep *step,
                              const gchar *name,
                              GError **error);

/* checkpoint_mirror_detached.c: the domain runs, but the disk was taken out */
gboolean
virCheckpointMirrorIsDetached(const virCheckpointMirrorStep *step);
/** Then: ends our job and removes all nodes of the disk's images.  *busy: the job has
 * been told to end and has not yet. */
gboolean
virCheckpointMirrorSweepDetached(const virCheckpointMirrorStep *step,
                                 gboolean *busy,
                                 GError **error);

/* checkpoint_mirror_begin.c: from nothing to the bulk pass */
gboolean
virCheckpointMirrorPrepare(const virCheckpointMirrorStep *step, GError **error);
/** The overlay's file. */
gboolean
virCheckpointMirrorMakeOverlay(const virCheckpointMirrorStep *step, GError **error);
/** The same, what belongs to this moment, then OVERLAYING. */
gboolean
virCheckpointMirrorPrepareOverlay(const virCheckpointMirrorStep *step, GError **error);
gboolean
virCheckpointMirrorOverlay(const virCheckpointMirrorStep *step, GError **error);
/** Makes the work bitmap @name on @node, by a look that was just made and is taken
 * over, or NULL. */
gboolean
virCheckpointMirrorMakeWork(const virCheckpointMirrorStep *step,
                            virCheckpointGraph **seen,
                            const gchar *node,
                            const gchar *name,
                            GError **error);
gboolean
virCheckpointMirrorBulkBegin(const virCheckpointMirrorStep *step, GError **error);
/** The same for a guest that is off, in a storage daemon of the job's. */
gboolean
virCheckpointMirrorBulkBeginOff(const virCheckpointMirrorStep *step, GError **error);
/** Its last part: @node has the work bitmap.  Takes the view's storage daemon over. */
gboolean
virCheckpointMirrorBulkRunOff(const virCheckpointMirrorStep *step,
                              const gchar *node,
                              GError **error);
/** Until the bulk pass is over nobody else writes to the domain's other images: a start
 * past us would leave their bitmaps marked as in use. */
void
virCheckpointMirrorHoldOthers(const virCheckpointMirrorStep *step);
/** Creates the checkpoint that the job was asked for and records its id. */
gboolean
virCheckpointMirrorMakeCheckpoint(const virCheckpointMirrorStep *step, GError **error);

/* checkpoint_mirror_end.c: back to one image */
virCheckpointMirrorResult
virCheckpointMirrorCommit(const virCheckpointMirrorStep *step, GError **error);
virCheckpointMirrorResult
virCheckpointMirrorClean(const virCheckpointMirrorStep *step, GError **error);
/** Removes the checkpoint that the job made, if there is one. */
gboolean
virCheckpointMirrorTakeCheckpointBack(const virCheckpointMirrorStep *step,
                                      GError **error);
/** Redefines a persistent domain, durably, so that no disk names @from but @to. */
gboolean
virCheckpointMirrorFixConfig(const virCheckpointMirrorStep *step,
                             const gchar *from,
                             const gchar *to,
                             const gchar *format,
                             GError **error);

/** TRUE if file @path was written to later than @than, by more than @bySec. */
gboolean
virCheckpointMirrorWrittenLater(const gchar *path, const gchar *than, gint64 bySec);

/** The definition names S from now on, which QEMU is about to move to. */
gboolean
virCheckpointMirrorLeave(const virCheckpointMirrorStep *step, GError **error);

/* checkpoint_mirror_live.c: libvirt's own copy of the overlay, and the pivot */

/** The error of a pivot that would end the disk's checkpoints. */
void
virCheckpointMirrorSetEndsCheckpoints(const virCheckpointJobRecord *job,
                                      GError **error);
virCheckpointMirrorResult
virCheckpointMirrorLive(const virCheckpointMirrorStep *step, GError **error);
virCheckpointMirrorResult
virCheckpointMirrorPivot(const virCheckpointMirrorStep *step, GError **error);
/** A target that cannot hold a bitmap would end tracking for all checkpoints. */
gboolean
virCheckpointMirrorMayPivot(const virCheckpointMirrorStep *step, GError **error);

/* checkpoint_mirror_jobs.c: the jobs inside, and what they leave */

/** The bulk job as QEMU shows it. */
typedef struct virCheckpointMirrorBulk {
    gboolean present;
    gboolean concluded;
    gboolean ready;
    gchar *error; /* QEMU's, when it failed */
    guint64 curBytes;
    guint64 endBytes;
} virCheckpointMirrorBulk;

gchar *
virCheckpointMirrorJobName(const virCheckpointMirror *mirror);
gchar *
virCheckpointMirrorBitmapName(const virCheckpointMirror *mirror);
/** @part: "t" the target's format node, "f" its file node. */
gchar *
virCheckpointMirrorNodeName(const virCheckpointMirror *mirror, const gchar *part);
void
virCheckpointMirrorBulkClear(virCheckpointMirrorBulk *bulk);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointMirrorBulk, virCheckpointMirrorBulkClear)
gboolean
virCheckpointMirrorBulkQuery(virCheckpointMonitor *monitor,
                             const gchar *name,
                             virCheckpointMirrorBulk *bulk,
                             GError **error);
/** Starts the bulk job from node @source to node @target of @monitor: everything, or
 * what the mirror's bitmap on @source has, which stays as it is. */
gboolean
virCheckpointMirrorBulkStart(const virCheckpointMirror *mirror,
                             virCheckpointMonitor *monitor,
                             const gchar *source,
                             const gchar *target,
                             GError **error);
gboolean
virCheckpointMirrorBulkSetSpeed(const virCheckpointMirror *mirror,
                                virCheckpointMonitor *monitor,
                                guint64 bandwidthBytes,
                                GError **error);
/**
 * virCheckpointMirrorAttach:
 * Hands the target over and makes its nodes.
 * @refused: (out): QEMU may not have the descriptor: nothing was done
 */
gboolean
virCheckpointMirrorAttach(const virCheckpointMirrorStep *step,
                          gboolean *refused,
                          GError **error);
/** Deletes the target's nodes and descriptor set, then puts the target on stable
 * storage. */
gboolean
virCheckpointMirrorDetach(const virCheckpointMirrorStep *step, GError **error);
/** Removes the work bitmap. */
gboolean
virCheckpointMirrorDeleteWork(const virCheckpointMirrorStep *step, GError **error);
/**
 * Removes what the bulk pass leaves: job, nodes, descriptor set, work bitmap.
 * @busy: (out): the job is still ending: call again.
 */
gboolean
virCheckpointMirrorSweep(const virCheckpointMirrorStep *step,
                         gboolean *busy,
                         GError **error);

/** The block job that libvirt has on the disk. */
typedef struct virCheckpointMirrorInner {
    gint type; /* virDomainBlockJobType, 0: none */
    gboolean ready;
    guint64 curBytes;
    guint64 endBytes;
} virCheckpointMirrorInner;
gboolean
virCheckpointMirrorInnerQuery(virCheckpointMirror *mirror,
                              virDomainPtr domain,
                              virCheckpointMirrorInner *inner,
                              GError **error);

/** Where the guest's writes go. */
typedef struct virCheckpointMirrorWhere {
    virCheckpointGraph *graph;
    const virCheckpointNode *top;     /* borrowed from graph, as those below */
    const virCheckpointNode *overlay; /* O, or NULL: not in the chain */
    const virCheckpointNode *source;  /* S, or NULL */
    const virCheckpointNode *dest;    /* T if it is the top */
    gchar *known;                     /* the top's path as libvirt's live XML says */
} virCheckpointMirrorWhere;
void
virCheckpointMirrorWhereClear(virCheckpointMirrorWhere *where);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(virCheckpointMirrorWhere,
                                 virCheckpointMirrorWhereClear)
/** TRUE if @view's definition has the disk on @path. */
gboolean
virCheckpointMirrorIsDefinedOn(const virCheckpointMirror *mirror,
                               const virCheckpointDomainView *view,
                               const gchar *path);
/** Asks QEMU and libvirt; the domain runs.  The disks' own nodes may be all that
 * where->graph has. */
gboolean
virCheckpointMirrorLook(const virCheckpointMirrorStep *step,
                        virCheckpointMirrorWhere *where,
                        GError **error);
/** The same; where->graph has every node. */
gboolean
virCheckpointMirrorLookAtAll(const virCheckpointMirrorStep *step,
                             virCheckpointMirrorWhere *where,
                             GError **error);
/* checkpoint_mirror_aside.c: the bulk pass in a storage daemon of the job's */

/** The peer that has the bulk job: the guest, or the job's storage daemon, or NULL if
 * that has ended. */
virCheckpointMonitor *
virCheckpointMirrorBulkMonitor(const virCheckpointMirrorStep *step);
/** Writes the work bitmap on @node, of the view's monitor, beside the records. */
gboolean
virCheckpointMirrorAsideKeep(const virCheckpointMirrorStep *step,
                             const gchar *node,
                             GError **error);
/** The bits of what is to be copied, onto the node of S that @monitor has. */
gboolean
virCheckpointMirrorAsideLoad(const virCheckpointMirrorStep *step,
                             virCheckpointMonitor *monitor,
                             const gchar *node,
                             GError **error);
/** Begins the bulk pass by what AsideKeep wrote; again, after a daemon that died. */
gboolean
virCheckpointMirrorAsideBegin(const virCheckpointMirrorStep *step, GError **error);
/** TRUE for a recorded job whose pass was begun by another daemon, and ended with it.
 */
gboolean
virCheckpointMirrorAsideMayBegin(const virCheckpointMirror *mirror);
/** After the bulk job has ended: MOVED when what it wrote is on stable storage, WAIT:
 * call again, RETRY: @error. */
virCheckpointMirrorResult
virCheckpointMirrorAsideFlush(const virCheckpointMirrorStep *step, GError **error);
/** Removes what AsideKeep wrote. */
gboolean
virCheckpointMirrorAsideForget(const virCheckpointMirrorStep *step, GError **error);
/** Opens the target of a job that is planned, and looks at it; changes nothing. */
gboolean
virCheckpointMirrorAsideJudge(virConnectPtr conn,
                              const virCheckpointJobRecord *job,
                              GError **error);

/* checkpoint_mirror_native.c: copies by QEMU's own bitmap mirror */

/** Decides whether @job is to be tried by it. */
gboolean
virCheckpointMirrorPlanNative(virCheckpointOperation *operation,
                              virCheckpointJobRecord *job,
                              GError **error);
/** @of: a domain's uuid, or which QEMU (virCheckpointNativeIdentity);
 * @dialect: virCheckpointNativeDialect; -1: another QEMU runs. */
void
virCheckpointMirrorSetDialect(virCheckpointEngine *engine,
                              const gchar *of,
                              gint dialect);
virCheckpointMirrorResult
virCheckpointMirrorNative(const virCheckpointMirrorStep *step, GError **error);
/** Ends the job that is ready and makes the overlay: MOVED when that is done. */
virCheckpointMirrorResult
virCheckpointMirrorNativeLeave(const virCheckpointMirrorStep *step, GError **error);
/** The job has left the work bitmap, which recorded on. */
gboolean
virCheckpointMirrorNativeWork(const virCheckpointMirrorStep *step,
                              const virCheckpointMirrorWhere *where,
                              GError **error);

/* checkpoint_mirror_offline.c */
virCheckpointMirrorResult
virCheckpointMirrorCommitOffline(const virCheckpointMirrorStep *step, GError **error);
/** The definition of a domain that is off names the image that by the record it named
 * last: a host that took it over may have one from before the copy. */
gboolean
virCheckpointMirrorRenewConfig(const virCheckpointMirrorStep *step, GError **error);
/**
 * The domain is off, it was to be pivoted, and its definition names the target: FALSE
 * if the overlay was open to the end, as its bitmap tells that was not stored. Then the
 * target may lack what QEMU had in its caches.
 */
gboolean
virCheckpointMirrorOverlayLeft(const virCheckpointMirrorStep *step);

/* checkpoint_mirror_repair.c: what a libvirtd that died left */

/** Ends the record of a commit of our own in QEMU; @busy as for Sweep. */
gboolean
virCheckpointMirrorSweepByHand(const virCheckpointMirrorStep *step,
                               gboolean *busy,
                               GError **error);

/** QEMU is on O and libvirt's definition says S: commits O by a job of our own, a bit
 * more at each call. */
virCheckpointMirrorResult
virCheckpointMirrorCommitByHand(const virCheckpointMirrorStep *step,
                                const virCheckpointMirrorWhere *where,
                                GError **error);
/** QEMU is on T and libvirt's live definition does not say so: carries the bits. */
gboolean
virCheckpointMirrorPivotRepair(const virCheckpointMirrorStep *step, GError **error);
/** Deletes the nodes of file @path, which is in no chain: format nodes, then files. */
void
virCheckpointMirrorDeleteOrphans(const virCheckpointMirrorStep *step,
                                 const virCheckpointMirrorWhere *where,
                                 const gchar *path);
/** Deletes nodes of O and T that are in no chain, when libvirt did not. */
gboolean
virCheckpointMirrorDropOrphans(const virCheckpointMirrorStep *step, GError **error);

/** Targets (gchar*) of all disks of the domain. */
GPtrArray *
virCheckpointMirrorDisks(const virCheckpointDomainView *view);

/* checkpoint_mirror_resume.c: a copy goes on where an earlier one ended */

/** The changes up to now go into sidecars, so that those that follow can be told from
 * them; not when the job makes a checkpoint now. */
gboolean
virCheckpointMirrorTurnOver(const virCheckpointMirrorStep *step, GError **error);
/** FALSE with an error, and the domain is settled before the next step, when @record is
 * being created: whether its bitmap exists is settled by a QEMU that runs. */
gboolean
virCheckpointMirrorIsDecided(virCheckpointMirror *mirror,
                             const virCheckpointRecord *record,
                             GError **error);
/** Removes what a turn that was cut short left. */
gboolean
virCheckpointMirrorTurnBack(const virCheckpointMirrorStep *step, GError **error);
/** The bulk job ended and copied not everything: closes the target and keeps what is
 * left, if that can be trusted later. */
void
virCheckpointMirrorResumeKeep(const virCheckpointMirrorStep *step);

/** Writes what the bulk job left in the work bitmap into @file, beside the records. */
gboolean
virCheckpointMirrorRestWrite(const virCheckpointMirrorStep *step,
                             const gchar *file,
                             guint64 *restBytes,
                             GError **error);

/* checkpoint_mirror_again.c: copies of guests that are off survive the daemon */

/** Beside the records, the job's id in front: what was left by a daemon that ended. */
#define VIR_CHECKPOINT_MIRROR_LEFT ".left"
/** Keeps what another daemon needs to begin the pass again: @node, of the view's
 * storage daemon, has the work bitmap and the disk locked. */
gboolean
virCheckpointMirrorOffKeep(const virCheckpointMirrorStep *step,
                           const gchar *node,
                           GError **error);
/** TRUE for a record whose pass was begun, and its call answered or about to be. */
gboolean
virCheckpointMirrorOffWasBegun(const virCheckpointJobRecord *job);
/** TRUE for such a job of another daemon's that this one has not taken up yet. */
gboolean
virCheckpointMirrorOffMayBegin(const virCheckpointMirror *mirror);
gboolean
virCheckpointMirrorOffBegin(const virCheckpointMirrorStep *step, GError **error);
/** The daemon ends: stops the pass and keeps what is left for the next one.  Thread:
 * the job's, without the slot. */
void
virCheckpointMirrorOffSuspend(virCheckpointMirror *mirror);

/** TRUE while source and target are being compared.  Thread: any. */
gboolean
virCheckpointMirrorComparing(virCheckpointMirror *mirror);

/* checkpoint_mirror_watch.c: the thread of a job */

/** Lets a thread of the pool work on the job until it is over. */
void
virCheckpointMirrorSpawn(virCheckpointMirror *mirror);
/** The pool's function: works on a job until it is over or the daemon ends. */
void
virCheckpointMirrorThread(virCheckpointEngine *engine, gpointer data);
/** As virCheckpointMirrorThread, but also ends when the bulk pass has begun. */
void
virCheckpointMirrorWork(virCheckpointMirror *mirror, gboolean untilStarted);
/** The job is over: clients are told, the job leaves the hash. */
void
virCheckpointMirrorConclude(virCheckpointMirror *mirror);

#endif
