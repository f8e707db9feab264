/*
 * checkpoint_dispatchpriv.h: inside the dispatch
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DISPATCHPRIV_H
#define VIR_CHECKPOINT_DISPATCHPRIV_H

#include "checkpoint_dispatch.h"
#include "checkpoint_wire.h"

/** Who works: what waits long must not keep others waiting. */
typedef enum {
    VIR_CHECKPOINT_POOL_QUERY, /* look-ups, lists, refusals: no domain slot is taken */
    VIR_CHECKPOINT_POOL_JOB,   /* abort and speed of jobs */
    VIR_CHECKPOINT_POOL_WORK,  /* checkpoints and copies: takes a domain's slot */
    VIR_CHECKPOINT_POOL_START, /* starts and undefines: takes it as well */
    VIR_CHECKPOINT_POOL_LAST
} virCheckpointPool;

#define VIR_CHECKPOINT_POOL_THREADS 64   /* of each pool */
#define VIR_CHECKPOINT_POOL_PER_CLIENT 5 /* threads of a pool, as libvirt's default */

/**
 * One connection.  Created by its first call, freed with the client.
 */
typedef struct virCheckpointSession {
    virCheckpointClient *client; /* borrowed */

    /* main context only */
    GPtrArray *registrations; /* virCheckpointRegistration* */
    GHashTable *visible;      /* uuid -> virCheckpointVisible */
    GQueue held;              /* virCheckpointEventCopy*: visibility is being asked */

    /* the dispatch's lock */
    guint running[VIR_CHECKPOINT_POOL_LAST];
    GQueue waiting[VIR_CHECKPOINT_POOL_LAST]; /* virCheckpointCall*, owned */
} virCheckpointSession;

/**
 * Locks: lock only, and nothing is called with it held but the pools' push.
 */
struct virCheckpointDispatch {
    virCheckpointEngine *engine;
    GPtrArray *sessions; /* virCheckpointSession*, borrowed; main context only */
    gboolean stopping;   /* main context only */
    gint active;         /* calls that exist; atomic */
    GMutex lock;
    GThreadPool *pools[VIR_CHECKPOINT_POOL_LAST];
};

/* A call in a worker's hands. */

typedef struct virCheckpointCall virCheckpointCall;
typedef void (*virCheckpointCallFunc)(virCheckpointCall *call);

struct virCheckpointCall {
    virCheckpointDispatch *dispatch;
    virCheckpointEngine *engine;
    virCheckpointClient *client; /* referenced */
    virCheckpointSession *session;
    virCheckpointFrame *frame; /* a copy; NULL for work of our own */
    virCheckpointPool pool;
    virCheckpointCallFunc run;
    gboolean answered;    /* or passed on */
    gboolean afterEvents; /* the answer follows events that are on their way */
    gpointer data;        /* of run; freed by free */
    GDestroyNotify free;
};

/**
 * virCheckpointDispatchSubmit:
 * @frame: copied, or NULL; @data: taken over in any case
 *
 * Has a worker run @run.  Thread: main.
 */
void
virCheckpointDispatchSubmit(virCheckpointDispatch *dispatch,
                            virCheckpointSession *session,
                            const virCheckpointFrame *frame,
                            virCheckpointPool pool,
                            virCheckpointCallFunc run,
                            gpointer data,
                            GDestroyNotify free);

/**
 * virCheckpointDispatchForwardWatched:
 * @data: taken over; the data of the call that @run gets
 *
 * Passes the call on; a good reply to it is given to @run (a WORK call whose frame is
 * the reply), which passes it to the client in the end.  Thread: any.
 */
void
virCheckpointDispatchForwardWatched(virCheckpointCall *call,
                                    virCheckpointCallFunc run,
                                    gchar *data);

/** Runs @func(@data) once on the main context, always from a source of its own and
 * behind those that were posted before.  Thread: any. */
void
virCheckpointDispatchPost(GSourceFunc func, gpointer data);

/** The session of @client, made if it is not there.  Thread: main. */
virCheckpointSession *
virCheckpointDispatchSession(virCheckpointDispatch *dispatch,
                             virCheckpointClient *client);

/** The arguments of a call, behind the descriptor count if it has one. */
const guint8 *
virCheckpointCallPayload(const virCheckpointFrame *frame, gsize *length);
#define virCheckpointCallDecode(type, frame, out)                                      \
    (virCheckpointCallDecodeRaw((xdrproc_t)xdr_##type, frame,                          \
                                (1 ? (out) : (type *)NULL)))
gboolean
virCheckpointCallDecodeRaw(xdrproc_t proc,
                           const virCheckpointFrame *frame,
                           gpointer out);

/* Answers (checkpoint_reply.c).  Each call gets exactly one of these.  Thread: any. */

#define virCheckpointCallReply(type, call, value)                                      \
    (virCheckpointCallReplyRaw(call, (xdrproc_t)xdr_##type,                            \
                               (1 ? (value) : (type *)NULL)))
void
virCheckpointCallReplyRaw(virCheckpointCall *call, xdrproc_t proc, gconstpointer value);
void
virCheckpointCallReplyVoid(virCheckpointCall *call);
/** @from: VIR_CHECKPOINT_FROM_..., @code: virErrorNumber, @detail: as in GError. */
void
virCheckpointCallFail(
    virCheckpointCall *call, gint from, gint code, const gchar *format, ...)
    G_GNUC_PRINTF(4, 5);
void
virCheckpointCallFailError(virCheckpointCall *call, gint from, const GError *error);
/** Gives the client @answer (a REPLY to a question of ours) under its own serial. */
void
virCheckpointCallPass(virCheckpointCall *call, const virCheckpointFrame *answer);
/** Not ours after all: the backend gets the original packet. */
void
virCheckpointCallForward(virCheckpointCall *call);
/** The payload of an error reply; never NULL. */
GBytes *
virCheckpointReplyErrorPayload(gint from, const GError *error);

/* Questions over the client's own connection (checkpoint_rights.c).  Workers only. */

#define virCheckpointCallAsk(type, call, procedure, args)                              \
    (virCheckpointCallAskRaw(call, procedure, (xdrproc_t)xdr_##type,                   \
                             (1 ? (args) : (type *)NULL)))
/** Returns: (transfer full): the REPLY, or NULL when the session ended. */
virCheckpointFrame *
virCheckpointCallAskRaw(virCheckpointCall *call,
                        gint procedure,
                        xdrproc_t proc,
                        gconstpointer args);

/** TRUE if libvirt's refusal shows that it had authorised the call. */
typedef gboolean (*virCheckpointRightsAccept)(const virCheckpointProtoError *error);

/**
 * virCheckpointRightsAsk:
 * @args: of a call that libvirt authorises and then refuses
 *
 * Returns: TRUE if the client may make such a call; else FALSE, and it was answered.
 */
#define virCheckpointRightsAsk(type, call, procedure, args, accept)                    \
    (virCheckpointRightsAskRaw(call, procedure, (xdrproc_t)xdr_##type,                 \
                               (1 ? (args) : (type *)NULL), accept))
gboolean
virCheckpointRightsAskRaw(virCheckpointCall *call,
                          gint procedure,
                          xdrproc_t proc,
                          gconstpointer args,
                          virCheckpointRightsAccept accept);
/** The same of a question that was asked otherwise; @answer NULL: the session ended. */
gboolean
virCheckpointRightsJudge(virCheckpointCall *call,
                         virCheckpointFrame *answer,
                         virCheckpointRightsAccept accept);

gboolean
virCheckpointRightsXml(const virCheckpointProtoError *error);
gboolean
virCheckpointRightsCheckpointXml(const virCheckpointProtoError *error);
gboolean
virCheckpointRightsCheckpointName(const virCheckpointProtoError *error);
gboolean
virCheckpointRightsSnapshotName(const virCheckpointProtoError *error);
gboolean
virCheckpointRightsDisk(const virCheckpointProtoError *error);
/** Anything but a sign that the client may not: for calls that are refused anyway. */
gboolean
virCheckpointRightsNotDenied(const virCheckpointProtoError *error);

/** No checkpoint of libvirt's has it: a name with a slash is refused. */
#define VIR_CHECKPOINT_RIGHTS_NO_NAME "/"
/** No disk of a domain has it. */
#define VIR_CHECKPOINT_RIGHTS_NO_DISK ""
/** No document that libvirt takes. */
#define VIR_CHECKPOINT_RIGHTS_NO_XML "<x/>"

/**
 * virCheckpointCallDomain:
 * @out: zeroed; the domain's current name and id
 *
 * Returns: FALSE if the client cannot see the domain; @out stays empty.
 */
gboolean
virCheckpointCallDomain(virCheckpointCall *call,
                        const virCheckpointProtoUuid uuid,
                        virCheckpointProtoDomainArgs *out);

/* Handlers, by topic: `Wanted` looks on the main context, `Run` works. */

gboolean
virCheckpointDispatchCopyWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchJobWanted(virCheckpointDispatch *dispatch,
                               const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchAbortWanted(virCheckpointDispatch *dispatch,
                                 const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchListWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame);
/** Calls that move a disk to other files: whether the domain is one of ours. */
gboolean
virCheckpointDispatchMoveWanted(virCheckpointDispatch *dispatch,
                                const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchRevertWanted(virCheckpointDispatch *dispatch,
                                  const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchBackupWanted(virCheckpointDispatch *dispatch,
                                  const virCheckpointFrame *frame);
gboolean
virCheckpointDispatchGuardWanted(virCheckpointDispatch *dispatch,
                                 const virCheckpointFrame *frame);

void
virCheckpointDispatchCheckpointCreate(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointGetXml(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointList(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointChildren(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointLookup(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointParent(virCheckpointCall *call);
void
virCheckpointDispatchCheckpointDelete(virCheckpointCall *call);
void
virCheckpointDispatchBlockCopy(virCheckpointCall *call);
void
virCheckpointDispatchJobInfo(virCheckpointCall *call);
void
virCheckpointDispatchJobAbort(virCheckpointCall *call);
void
virCheckpointDispatchJobSetSpeed(virCheckpointCall *call);
void
virCheckpointDispatchBackupBegin(virCheckpointCall *call);
void
virCheckpointDispatchBackupGetXml(virCheckpointCall *call);
/** TRUE if a mirror stands in the way of the backup: the call was answered. */
gboolean
virCheckpointDispatchBackupGuard(virCheckpointCall *call);
/** Takes libvirt's checkpoints that stand for ours out of a list with results. */
void
virCheckpointDispatchHideTheirs(virCheckpointProtoList *list);
/** Monitor commands: whether one of ours may be meant. */
gboolean
virCheckpointDispatchCommandWanted(virCheckpointDispatch *dispatch,
                                   const virCheckpointFrame *frame);
void
virCheckpointDispatchCommand(virCheckpointCall *call);
void
virCheckpointDispatchGuard(virCheckpointCall *call);
void
virCheckpointDispatchRevert(virCheckpointCall *call);
/** Has what libvirt would not carry parked, then the same. */
void
virCheckpointDispatchMove(virCheckpointCall *call);
void
virCheckpointDispatchListDomains(virCheckpointCall *call);
void
virCheckpointDispatchStart(virCheckpointCall *call);
void
virCheckpointDispatchUndefine(virCheckpointCall *call);
/** The good reply to an undefine; data: the domain's uuid. */
void
virCheckpointDispatchUndefined(virCheckpointCall *call);

/* Events (checkpoint_events.c).  Thread: main. */

/** TRUE if the reply to this call tells of a registration: it is to be watched. */
gboolean
virCheckpointEventsWatches(const virCheckpointFrame *frame);
/** The reply to @call. */
void
virCheckpointEventsReply(virCheckpointSession *session,
                         const virCheckpointFrame *call,
                         const virCheckpointFrame *reply);
/** TRUE if the message tells of a job that we started inside. */
gboolean
virCheckpointEventsHidden(virCheckpointDispatch *dispatch,
                          const virCheckpointFrame *frame);
/** Learns, in a worker, whether the client may see the domain; later events need not
 * ask. */
void
virCheckpointEventsLearn(virCheckpointCall *call,
                         const virCheckpointProtoUuid uuid,
                         gboolean visible);
void
virCheckpointEventsInit(virCheckpointSession *session);
void
virCheckpointEventsClear(virCheckpointSession *session);

#endif
