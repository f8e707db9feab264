/*
 * checkpoint_client.c: one client and its backend connection
 *
 * A session forwards whole packets between a client and the stock daemon, and knows
 * just enough of them to let an extension take part: whether OPEN succeeded, read-only
 * or not, whether the driver is QEMU, and which calls the extension has taken.
 *
 *     NEW -> OPENING -> TYPE -> QEMU | OTHER        (a failed OPEN: back to NEW)
 *
 * While OPEN or our question for the type is under way the client is not read from, so
 * no call of its can be meant for an extension that does not know the answer yet.
 *
 * Invariants: what one side is owed is bounded (1 MiB and one packet), because the
 * other side is not read from while more is queued; when one side ends, what it left is
 * written to the other, then both are closed; a malformed packet ends its session and
 * no other.  Nothing is kept: after a crash clients connect anew.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "checkpoint_client.h"

#include "checkpoint_clientpriv.h"
#include "checkpoint_open.h"

typedef struct virCheckpointWatch {
    guint32 program;
    gint32 procedure;
    guint32 serial;
    gpointer tag;
    GDestroyNotify free;
} virCheckpointWatch;

static void
virCheckpointWatchFree(virCheckpointWatch *watch)
{
    if (watch->free && watch->tag)
        watch->free(watch->tag);
    g_free(watch);
}

/* Counters by serial. */

static void
virCheckpointCountUp(GHashTable *counts, guint32 serial)
{
    gpointer key = GUINT_TO_POINTER(serial);
    guint count = GPOINTER_TO_UINT(g_hash_table_lookup(counts, key));

    g_hash_table_insert(counts, key, GUINT_TO_POINTER(count + 1));
}

static gboolean
virCheckpointCountDown(GHashTable *counts, guint32 serial)
{
    gpointer key = GUINT_TO_POINTER(serial);
    guint count = GPOINTER_TO_UINT(g_hash_table_lookup(counts, key));

    if (count == 0)
        return FALSE;

    if (count == 1)
        g_hash_table_remove(counts, key);
    else
        g_hash_table_insert(counts, key, GUINT_TO_POINTER(count - 1));
    return TRUE;
}

/* Ends. */

static void
virCheckpointClientFinish(virCheckpointClient *client)
{
    if (client->closed)
        return;

    virCheckpointClientRef(client);
    virCheckpointClientClosePosts(client);
    if (client->linger) {
        g_source_destroy(client->linger);
        g_clear_pointer(&client->linger, g_source_unref);
    }
    virCheckpointSideClose(client->peer);
    virCheckpointSideClose(client->backend);
    if (client->hooks && client->hooks->closed)
        client->hooks->closed(client, client->hooksData);
    if (client->ended)
        client->ended(client, client->endedData);
    virCheckpointClientUnref(client);
}

static gboolean
virCheckpointClientLingered(gpointer data)
{
    g_info("a client is gone and its backend does not take its last packets: closed");
    virCheckpointClientFinish(data);
    return G_SOURCE_REMOVE;
}

static void
virCheckpointClientLinger(virCheckpointClient *client)
{
    if (client->linger || client->closed)
        return;

    client->linger = g_timeout_source_new(VIR_CHECKPOINT_CLIENT_LINGER_MS);
    g_source_set_callback(client->linger, virCheckpointClientLingered,
                          virCheckpointClientRef(client),
                          (GDestroyNotify)virCheckpointClientUnref);
    g_source_attach(client->linger, NULL);
}

static gboolean
virCheckpointClientIsOver(virCheckpointClient *client)
{
    if (client->backendEnded)
        return client->peerEnded || virCheckpointSideQueued(client->peer) == 0;
    return (client->peerEnded || client->peerGone) &&
           virCheckpointSideQueued(client->backend) == 0;
}

static gboolean
virCheckpointClientMayReadPeer(virCheckpointClient *client)
{
    return !client->draining && !client->held && !client->backendEnded &&
           client->phase != VIR_CHECKPOINT_PHASE_OPENING &&
           client->phase != VIR_CHECKPOINT_PHASE_TYPE &&
           client->takenCount < VIR_CHECKPOINT_CLIENT_TAKEN &&
           virCheckpointSideQueued(client->backend) < VIR_CHECKPOINT_CLIENT_QUEUE &&
           virCheckpointSideQueuedOurs(client->peer) < VIR_CHECKPOINT_CLIENT_QUEUE;
}

void
virCheckpointClientUpdate(virCheckpointClient *client)
{
    if (client->closed)
        return;

    if (virCheckpointClientIsOver(client)) {
        virCheckpointClientFinish(client);
        return;
    }
    if (virCheckpointSideQueuedOurs(client->peer) > VIR_CHECKPOINT_CLIENT_QUEUE_MAX) {
        g_warning("a client does not read its answers: closed");
        virCheckpointClientFinish(client);
        return;
    }
    virCheckpointSideSetReading(client->peer, virCheckpointClientMayReadPeer(client));
    virCheckpointSideSetReading(client->backend, virCheckpointSideQueued(client->peer) <
                                                     VIR_CHECKPOINT_CLIENT_QUEUE);
}

/* From the client. */

void
virCheckpointClientForwardCall(virCheckpointClient *client, virCheckpointFrame *frame)
{
    if (frame->serial >= VIR_CHECKPOINT_CLIENT_SERIALS &&
        virCheckpointFrameIsCall(frame))
        virCheckpointCountUp(client->highSerials, frame->serial);
    virCheckpointSideSend(client->backend, frame);
}

void
virCheckpointClientUntake(virCheckpointClient *client, guint32 serial)
{
    if (virCheckpointCountDown(client->taken, serial))
        client->takenCount--;
}

static void
virCheckpointClientOpenCall(virCheckpointClient *client, virCheckpointFrame *frame)
{
    g_autoptr(virCheckpointFrame) owned = frame;
    gboolean decoded = virCheckpointOpenGetFlags(frame, &client->openFlags);

    /* What we cannot decode the backend cannot either and answers with an error; only
     * where read-only hangs on our bit nothing may pass without it. */
    if (client->flags & VIR_CHECKPOINT_CLIENT_FORCE_READ_ONLY) {
        decoded =
            decoded && virCheckpointOpenAddFlags(frame, VIR_CHECKPOINT_OPEN_READ_ONLY);
        if (!decoded) {
            virCheckpointClientFinish(client);
            return;
        }
    }
    if (client->phase == VIR_CHECKPOINT_PHASE_NEW) {
        client->phase = VIR_CHECKPOINT_PHASE_OPENING;
        client->openSerial = frame->serial;
    }
    virCheckpointClientForwardCall(client, g_steal_pointer(&owned));
}

static void
virCheckpointClientHandleCall(virCheckpointClient *client, virCheckpointFrame *frame)
{
    g_autoptr(virCheckpointFrame) owned = frame;

    if (virCheckpointOpenIsCall(frame)) {
        virCheckpointClientOpenCall(client, g_steal_pointer(&owned));
        return;
    }
    if (client->phase == VIR_CHECKPOINT_PHASE_QEMU && client->hooks->call) {
        /* Booked before the hook runs: it may answer on the spot. */
        virCheckpointCountUp(client->taken, frame->serial);
        client->takenCount++;
        if (client->hooks->call(client, frame, client->hooksData) ==
            VIR_CHECKPOINT_VERDICT_TAKEN)
            return;
        virCheckpointClientUntake(client, frame->serial);
    }
    if (!client->closed)
        virCheckpointClientForwardCall(client, g_steal_pointer(&owned));
}

static void
virCheckpointClientPeerFrame(virCheckpointSide *side,
                             virCheckpointFrame *frame,
                             gpointer data)
{
    virCheckpointClient *client = data;

    if (!virCheckpointFrameIsCall(frame))
        virCheckpointSideSend(client->backend, frame);
    else if (virCheckpointClientOwnsSerial(client, frame->serial))
        client->held = frame;
    else
        virCheckpointClientHandleCall(client, frame);
    virCheckpointClientUpdate(client);
}

/* From the backend. */

static void
virCheckpointClientAskType(virCheckpointClient *client)
{
    client->phase = VIR_CHECKPOINT_PHASE_TYPE;
    client->openSerial = virCheckpointClientNewSerial(client);
    virCheckpointSideSend(client->backend,
                          virCheckpointFrameNew(VIR_CHECKPOINT_PROGRAM_REMOTE,
                                                VIR_CHECKPOINT_PROC_CONNECT_GET_TYPE,
                                                VIR_CHECKPOINT_FRAME_CALL,
                                                client->openSerial,
                                                VIR_CHECKPOINT_FRAME_OK, NULL, 0));
}

/* Returns TRUE if the reply was to our own question. */
static gboolean
virCheckpointClientTrackOpen(virCheckpointClient *client,
                             const virCheckpointFrame *frame)
{
    if (frame->serial != client->openSerial ||
        frame->program != VIR_CHECKPOINT_PROGRAM_REMOTE)
        return FALSE;

    if (client->phase == VIR_CHECKPOINT_PHASE_TYPE &&
        frame->procedure == VIR_CHECKPOINT_PROC_CONNECT_GET_TYPE) {
        client->phase = virCheckpointOpenTypeIs(frame, "QEMU")
                            ? VIR_CHECKPOINT_PHASE_QEMU
                            : VIR_CHECKPOINT_PHASE_OTHER;
        return TRUE;
    }
    if (client->phase != VIR_CHECKPOINT_PHASE_OPENING ||
        frame->procedure != VIR_CHECKPOINT_PROC_CONNECT_OPEN)
        return FALSE;

    if (frame->status != VIR_CHECKPOINT_FRAME_OK) {
        client->phase = VIR_CHECKPOINT_PHASE_NEW;
        return FALSE;
    }
    if (client->openFlags & VIR_CHECKPOINT_OPEN_READ_ONLY)
        g_atomic_int_set(&client->readOnly, TRUE);
    if (client->hooks)
        virCheckpointClientAskType(client);
    else
        client->phase = VIR_CHECKPOINT_PHASE_OTHER;
    return FALSE;
}

static virCheckpointWatch *
virCheckpointClientFindWatch(virCheckpointClient *client,
                             const virCheckpointFrame *frame)
{
    GList *at = NULL;

    for (at = client->watches.head; at; at = at->next) {
        virCheckpointWatch *watch = at->data;

        if (watch->serial == frame->serial && watch->program == frame->program &&
            watch->procedure == frame->procedure) {
            g_queue_delete_link(&client->watches, at);
            return watch;
        }
    }
    return NULL;
}

static virCheckpointVerdict
virCheckpointClientJudgeReply(virCheckpointClient *client,
                              const virCheckpointFrame *frame)
{
    virCheckpointVerdict verdict = VIR_CHECKPOINT_VERDICT_FORWARD;
    virCheckpointWatch *watch = NULL;

    if (frame->serial >= VIR_CHECKPOINT_CLIENT_SERIALS)
        virCheckpointCountDown(client->highSerials, frame->serial);
    if (virCheckpointClientTrackOpen(client, frame))
        return VIR_CHECKPOINT_VERDICT_TAKEN;
    if (!(watch = virCheckpointClientFindWatch(client, frame)))
        return verdict;

    if (client->hooks->reply)
        verdict = client->hooks->reply(client, frame, watch->tag, client->hooksData);
    virCheckpointWatchFree(watch);
    return verdict;
}

static void
virCheckpointClientReleaseHeld(virCheckpointClient *client)
{
    if (!client->held || virCheckpointClientOwnsSerial(client, client->held->serial))
        return;

    virCheckpointClientHandleCall(client, g_steal_pointer(&client->held));
}

static void
virCheckpointClientBackendFrame(virCheckpointSide *side,
                                virCheckpointFrame *frame,
                                gpointer data)
{
    virCheckpointClient *client = data;
    g_autoptr(virCheckpointFrame) owned = frame;
    virCheckpointVerdict verdict = VIR_CHECKPOINT_VERDICT_FORWARD;

    if (virCheckpointFrameIsReply(frame)) {
        if (virCheckpointClientTakeReply(client, frame)) {
            g_steal_pointer(&owned);
            verdict = VIR_CHECKPOINT_VERDICT_TAKEN;
            virCheckpointClientReleaseHeld(client);
        } else {
            verdict = virCheckpointClientJudgeReply(client, frame);
        }
    } else if (frame->type == VIR_CHECKPOINT_FRAME_MESSAGE &&
               frame->program != VIR_CHECKPOINT_PROGRAM_KEEPALIVE &&
               client->phase == VIR_CHECKPOINT_PHASE_QEMU && client->hooks->message) {
        verdict = client->hooks->message(client, frame, client->hooksData);
    }
    if (verdict == VIR_CHECKPOINT_VERDICT_FORWARD && !client->closed)
        virCheckpointSideSend(client->peer, g_steal_pointer(&owned));
    virCheckpointClientUpdate(client);
}

/* Both sides. */

static void
virCheckpointClientWritten(virCheckpointSide *side, gpointer data)
{
    virCheckpointClientUpdate(data);
}

static void
virCheckpointClientPeerEnded(virCheckpointSide *side,
                             virCheckpointSideReason why,
                             gpointer data)
{
    virCheckpointClient *client = data;

    if (why == VIR_CHECKPOINT_SIDE_MALFORMED)
        g_info("a client sent what is no packet: closed");
    client->peerEnded = TRUE;
    virCheckpointClientLinger(client);
    virCheckpointClientUpdate(client);
}

static void
virCheckpointClientBackendEnded(virCheckpointSide *side,
                                virCheckpointSideReason why,
                                gpointer data)
{
    virCheckpointClient *client = data;

    if (why == VIR_CHECKPOINT_SIDE_MALFORMED)
        g_warning("the backend sent what is no packet: closed");
    client->backendEnded = TRUE;
    virCheckpointClientUpdate(client);
}

/* As at libvirt's daemon: a client that goes while it is not read from loses what was
 * not read, but nothing that was. */
static void
virCheckpointClientPeerGone(virCheckpointSide *side, gpointer data)
{
    virCheckpointClient *client = data;

    client->peerGone = TRUE;
    virCheckpointClientLinger(client);
    virCheckpointClientUpdate(client);
}

static void
virCheckpointClientBackendGone(virCheckpointSide *side, gpointer data)
{
    /* What it has sent before is still read and forwarded; its end comes behind that.
     */
}

static const virCheckpointSideFuncs virCheckpointClientPeerFuncs = {
    .frame = virCheckpointClientPeerFrame,
    .written = virCheckpointClientWritten,
    .ended = virCheckpointClientPeerEnded,
    .gone = virCheckpointClientPeerGone,
};

static const virCheckpointSideFuncs virCheckpointClientBackendFuncs = {
    .frame = virCheckpointClientBackendFrame,
    .written = virCheckpointClientWritten,
    .ended = virCheckpointClientBackendEnded,
    .gone = virCheckpointClientBackendGone,
};

virCheckpointClient *
virCheckpointClientNew(int peerFd,
                       int backendFd,
                       virCheckpointClientFlags flags,
                       const virCheckpointClientHooks *hooks,
                       gpointer hooksData,
                       virCheckpointClientEndedFunc ended,
                       gpointer endedData)
{
    virCheckpointClient *client = g_new0(virCheckpointClient, 1);
    gpointer (*ref)(gpointer) = (gpointer(*)(gpointer))virCheckpointClientRef;
    GDestroyNotify unref = (GDestroyNotify)virCheckpointClientUnref;

    g_mutex_init(&client->lock);
    g_cond_init(&client->answered);
    client->refs = 1;
    client->flags = flags;
    client->readOnly = (flags & VIR_CHECKPOINT_CLIENT_READ_ONLY) != 0;
    client->hooks = hooks;
    client->hooksData = hooksData;
    client->ended = ended;
    client->endedData = endedData;
    client->nextSerial = VIR_CHECKPOINT_CLIENT_SERIALS;
    client->taken = g_hash_table_new(NULL, NULL);
    client->highSerials = g_hash_table_new(NULL, NULL);
    client->peer =
        virCheckpointSideNew(peerFd, &virCheckpointClientPeerFuncs, client, ref, unref);
    client->backend = virCheckpointSideNew(backendFd, &virCheckpointClientBackendFuncs,
                                           client, ref, unref);
    virCheckpointClientUpdate(client);
    return client;
}

void
virCheckpointClientClose(virCheckpointClient *client)
{
    virCheckpointClientFinish(client);
}

void
virCheckpointClientDrain(virCheckpointClient *client)
{
    client->draining = TRUE;
    virCheckpointClientUpdate(client);
}

gboolean
virCheckpointClientIsBusy(virCheckpointClient *client)
{
    return !client->closed &&
           (client->takenCount > 0 || virCheckpointSideQueuedOurs(client->peer) > 0);
}

gsize
virCheckpointClientQueuedBytes(virCheckpointClient *client)
{
    return virCheckpointSideQueued(client->peer) +
           virCheckpointSideQueued(client->backend) +
           virCheckpointSidePending(client->peer) +
           virCheckpointSidePending(client->backend);
}

virCheckpointClient *
virCheckpointClientRef(virCheckpointClient *client)
{
    g_atomic_int_inc(&client->refs);
    return client;
}

void
virCheckpointClientUnref(virCheckpointClient *client)
{
    virCheckpointWatch *watch = NULL;

    if (!client || !g_atomic_int_dec_and_test(&client->refs))
        return;

    while ((watch = g_queue_pop_head(&client->watches)))
        virCheckpointWatchFree(watch);
    if (client->dataFree && client->data)
        client->dataFree(client->data);
    virCheckpointSideFree(client->peer);
    virCheckpointSideFree(client->backend);
    virCheckpointFrameFree(client->held);
    g_hash_table_unref(client->taken);
    g_hash_table_unref(client->highSerials);
    g_mutex_clear(&client->lock);
    g_cond_clear(&client->answered);
    g_free(client);
}

gboolean
virCheckpointClientIsReadOnly(virCheckpointClient *client)
{
    return g_atomic_int_get(&client->readOnly);
}

void
virCheckpointClientSetData(virCheckpointClient *client,
                           gpointer data,
                           GDestroyNotify free)
{
    client->data = data;
    client->dataFree = free;
}

gpointer
virCheckpointClientGetData(virCheckpointClient *client)
{
    return client->data;
}

void
virCheckpointClientWatch(virCheckpointClient *client,
                         const virCheckpointFrame *frame,
                         gpointer tag,
                         GDestroyNotify free)
{
    virCheckpointWatch *watch = g_new0(virCheckpointWatch, 1);

    watch->program = frame->program;
    watch->procedure = frame->procedure;
    watch->serial = frame->serial;
    watch->tag = tag;
    watch->free = free;
    g_queue_push_tail(&client->watches, watch);
}
