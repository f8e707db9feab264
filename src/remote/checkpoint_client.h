/*
 * checkpoint_client.h: one client and its backend connection
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_CLIENT_H
#define VIR_CHECKPOINT_CLIENT_H

#include "checkpoint_frame.h"

/**
 * A client session: two sockets, two pumps, on the main context.  Everything here is
 * called on the main context unless said otherwise.  Reference counted: workers may
 * hold a reference after the peer is gone; sends are then dropped.
 */
typedef struct virCheckpointClient virCheckpointClient;

typedef enum {
    VIR_CHECKPOINT_VERDICT_FORWARD, /* pass it on as it is */
    VIR_CHECKPOINT_VERDICT_TAKEN,   /* the hook answers (calls) or swallows (messages,
                                       replies) */
} virCheckpointVerdict;

/**
 * What the extension sees of the traffic.  Each may be NULL.  Frames are borrowed.
 * A call that was TAKEN must end in a REPLY under its serial by
 * virCheckpointClientSend(), or in virCheckpointClientForward(): a session with too
 * many that did not is not read from.
 */
typedef struct virCheckpointClientHooks {
    /** A CALL or CALL_WITH_FDS from the client, after a good OPEN, on a QEMU
     * connection.
     */
    virCheckpointVerdict (*call)(virCheckpointClient *client,
                                 const virCheckpointFrame *frame,
                                 gpointer data);
    /** A REPLY to a call of the client that @call marked with
     * virCheckpointClientWatch(). @tag as given there. */
    virCheckpointVerdict (*reply)(virCheckpointClient *client,
                                  const virCheckpointFrame *frame,
                                  gpointer tag,
                                  gpointer data);
    /** An event MESSAGE from the server (not keepalive). */
    virCheckpointVerdict (*message)(virCheckpointClient *client,
                                    const virCheckpointFrame *frame,
                                    gpointer data);
    /** The session ends; workers' later sends are dropped. */
    void (*closed)(virCheckpointClient *client, gpointer data);
} virCheckpointClientHooks;

typedef enum {
    VIR_CHECKPOINT_CLIENT_READ_ONLY = 1 << 0, /* came through the read-only socket */
    VIR_CHECKPOINT_CLIENT_FORCE_READ_ONLY = 1 << 1, /* its backend socket is not: have
                                                       OPEN say so */
} virCheckpointClientFlags;

/** Called once, on the main context, when the session has ended. */
typedef void (*virCheckpointClientEndedFunc)(virCheckpointClient *client,
                                             gpointer data);

/**
 * virCheckpointClientNew:
 * @peerFd, @backendFd: connected AF_UNIX stream sockets, taken over
 * @hooks: or NULL to forward only; must live as long as the session
 * @ended: or NULL; runs with @endedData
 *
 * Starts to pump.  Returns: (transfer full): the session.
 */
virCheckpointClient *
virCheckpointClientNew(int peerFd,
                       int backendFd,
                       virCheckpointClientFlags flags,
                       const virCheckpointClientHooks *hooks,
                       gpointer hooksData,
                       virCheckpointClientEndedFunc ended,
                       gpointer endedData);

/** Ends the session now; what is queued is lost. */
void
virCheckpointClientClose(virCheckpointClient *client);
/** Takes no more packets from the client; answers still go out. */
void
virCheckpointClientDrain(virCheckpointClient *client);
/** TRUE while calls that were TAKEN have no answer yet or answers are queued. */
gboolean
virCheckpointClientIsBusy(virCheckpointClient *client);
/** Memory of queues and packets being read, both directions, in bytes. */
gsize
virCheckpointClientQueuedBytes(virCheckpointClient *client);

virCheckpointClient *
virCheckpointClientRef(virCheckpointClient *client); /* any thread */
void
virCheckpointClientUnref(virCheckpointClient *client); /* any thread */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointClient, virCheckpointClientUnref)

/** Listener was the read-only one, or OPEN had the read-only flag.  Any thread. */
gboolean
virCheckpointClientIsReadOnly(virCheckpointClient *client);
/** Room for the extension: freed with the client (on whatever thread drops the last
 * reference). */
void
virCheckpointClientSetData(virCheckpointClient *client,
                           gpointer data,
                           GDestroyNotify free);
gpointer
virCheckpointClientGetData(virCheckpointClient *client);

/** Have the reply to @frame (a call being forwarded) shown to the reply hook. @tag
 * freed by @free once used or when the client goes. */
void
virCheckpointClientWatch(virCheckpointClient *client,
                         const virCheckpointFrame *frame,
                         gpointer tag,
                         GDestroyNotify free);

/** Sends a packet to the client, behind what is queued. (transfer full).  Any thread.
 */
void
virCheckpointClientSend(virCheckpointClient *client, virCheckpointFrame *frame);
/** Forwards a call that was TAKEN after all, to the backend. (transfer full): a copy.
 * Any thread. */
void
virCheckpointClientForward(virCheckpointClient *client, virCheckpointFrame *frame);

/**
 * virCheckpointClientAsk:
 * A call of our own over the client's backend connection, with the client's identity.
 * Serials from 0x80000000 on; the reply is swallowed.  Blocks a worker thread (never
 * the main context's) for the reply.
 *
 * Returns: (transfer full): the REPLY frame (status OK or ERROR), or NULL when the
 * session ended.
 */
virCheckpointFrame *
virCheckpointClientAsk(virCheckpointClient *client,
                       guint32 program,
                       gint32 procedure,
                       const guint8 *payload,
                       gsize length);

#endif
