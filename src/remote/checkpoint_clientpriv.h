/*
 * checkpoint_clientpriv.h: the insides of a session
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_CLIENTPRIV_H
#define VIR_CHECKPOINT_CLIENTPRIV_H

#include "checkpoint_client.h"
#include "checkpoint_side.h"

/** Serials of our own calls on a client's backend connection. */
#define VIR_CHECKPOINT_CLIENT_SERIALS 0x80000000U

/** More than this queued for one side: the other side is not read from. */
#define VIR_CHECKPOINT_CLIENT_QUEUE (1024 * 1024)
/** More than this of our own packets not taken by a client: it is dropped. */
#define VIR_CHECKPOINT_CLIENT_QUEUE_MAX (128 * 1024 * 1024)
/** Calls in work with the extension at a time. */
#define VIR_CHECKPOINT_CLIENT_TAKEN 32
/** How long a backend may hold the last packets of a client that is gone. */
#define VIR_CHECKPOINT_CLIENT_LINGER_MS 30000

typedef enum {
    VIR_CHECKPOINT_PHASE_NEW,     /* no good OPEN yet */
    VIR_CHECKPOINT_PHASE_OPENING, /* OPEN forwarded; the client is held */
    VIR_CHECKPOINT_PHASE_TYPE,    /* OPEN was good, we ask for the type; held */
    VIR_CHECKPOINT_PHASE_QEMU,    /* hooks run */
    VIR_CHECKPOINT_PHASE_OTHER,   /* another driver, or no hooks: never */
    VIR_CHECKPOINT_PHASE_LAST
} virCheckpointPhase;

/** A call of our own, waiting for its reply. */
typedef struct virCheckpointAsk {
    virCheckpointFrame *call; /* until it is sent */
    guint32 program;
    gint32 procedure;
    guint32 serial; /* 0 until it is sent */
    virCheckpointFrame *reply;
    gboolean done;
} virCheckpointAsk;

/** Which way a packet of a worker goes. */
typedef struct virCheckpointPost {
    virCheckpointFrame *frame; /* owned; NULL: @ask */
    gboolean toBackend;
    virCheckpointAsk *ask; /* owned by the worker that waits for it */
} virCheckpointPost;

struct virCheckpointClient {
    gint refs;     /* atomic */
    gint readOnly; /* atomic; set before the first hook runs */
    virCheckpointClientFlags flags;
    const virCheckpointClientHooks *hooks;
    gpointer hooksData;
    virCheckpointClientEndedFunc ended;
    gpointer endedData;
    gpointer data;
    GDestroyNotify dataFree;

    /* The main context's only. */
    virCheckpointSide *peer;
    virCheckpointSide *backend;
    virCheckpointPhase phase;
    guint32 openSerial; /* in OPENING: of OPEN; in TYPE: of our GET_TYPE */
    guint32 openFlags;
    GQueue watches;    /* virCheckpointWatch, in the order of the calls */
    GHashTable *taken; /* serial -> number of TAKEN calls without an answer */
    guint takenCount;
    GHashTable *highSerials;  /* serial >= ours -> number of client calls in flight */
    virCheckpointFrame *held; /* a client call whose serial one of ours uses */
    gboolean peerEnded;
    gboolean peerGone; /* closed while it was not read from */
    gboolean backendEnded;
    gboolean draining;
    GSource *linger;

    /* Any thread, under @lock; a leaf lock: nothing else is taken under it. */
    GMutex lock;
    GCond answered;
    gboolean closed;
    GQueue posts; /* virCheckpointPost, from workers to the main context */
    GQueue asks;  /* virCheckpointAsk, posted or sent, not done */
    guint32 nextSerial;
};

/* checkpoint_client.c, for checkpoint_client_post.c */

/** Back-pressure and ends, judged again after anything changed. */
void
virCheckpointClientUpdate(virCheckpointClient *client);
/** Forwards a call of the client and keeps the books on its serial. */
void
virCheckpointClientForwardCall(virCheckpointClient *client, virCheckpointFrame *frame);
/** A TAKEN call has its answer. */
void
virCheckpointClientUntake(virCheckpointClient *client, guint32 serial);

/* checkpoint_client_post.c, for checkpoint_client.c */

/** A serial that neither the client nor we use now.  Main context. */
guint32
virCheckpointClientNewSerial(virCheckpointClient *client);
/** TRUE if a call of ours with that serial waits for its reply. */
gboolean
virCheckpointClientOwnsSerial(virCheckpointClient *client, guint32 serial);
/** Hands a reply to the call of ours that waits for it; (transfer full) if TRUE. */
gboolean
virCheckpointClientTakeReply(virCheckpointClient *client, virCheckpointFrame *reply);
/** No more posts: waiting workers get NULL. */
void
virCheckpointClientClosePosts(virCheckpointClient *client);
void
virCheckpointPostFree(virCheckpointPost *post);

#endif
