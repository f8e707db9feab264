/*
 * checkpoint_client_post.c: how workers reach a session
 *
 * Workers never touch a socket.  They post a packet, or a call of our own, to the
 * session's list and wake the main context, which takes the posts in their order.  A
 * worker that asked sleeps until the reply, or the end of the session.
 *
 * Calls of our own share the client's backend connection, so their serials must not be
 * in use by the client: ours start at 0x80000000, pass over serials of client calls in
 * flight, and a client call that comes with a serial of ours is held until that is
 * free. The reply to a call of ours never reaches the client, who would close the
 * connection.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_client.h"
#include "checkpoint_clientpriv.h"

void
virCheckpointPostFree(virCheckpointPost *post)
{
    virCheckpointFrameFree(post->frame);
    g_free(post);
}

static gboolean
virCheckpointClientAsksFor(virCheckpointClient *client, guint32 serial)
{
    GList *at = NULL;

    for (at = client->asks.head; at; at = at->next) {
        const virCheckpointAsk *ask = at->data;

        if (ask->serial == serial)
            return TRUE;
    }
    return FALSE;
}

gboolean
virCheckpointClientOwnsSerial(virCheckpointClient *client, guint32 serial)
{
    g_autoptr(GMutexLocker) locker = NULL;

    if (serial < VIR_CHECKPOINT_CLIENT_SERIALS)
        return FALSE;

    locker = g_mutex_locker_new(&client->lock);
    return virCheckpointClientAsksFor(client, serial);
}

static guint32
virCheckpointClientNewSerialLocked(virCheckpointClient *client)
{
    guint32 serial = 0;

    do {
        serial = client->nextSerial++;
        if (client->nextSerial < VIR_CHECKPOINT_CLIENT_SERIALS)
            client->nextSerial = VIR_CHECKPOINT_CLIENT_SERIALS;
    } while (virCheckpointClientAsksFor(client, serial) ||
             g_hash_table_contains(client->taken, GUINT_TO_POINTER(serial)) ||
             g_hash_table_contains(client->highSerials, GUINT_TO_POINTER(serial)));
    return serial;
}

guint32
virCheckpointClientNewSerial(virCheckpointClient *client)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&client->lock);

    return virCheckpointClientNewSerialLocked(client);
}

gboolean
virCheckpointClientTakeReply(virCheckpointClient *client, virCheckpointFrame *reply)
{
    g_autoptr(GMutexLocker) locker = NULL;
    GList *at = NULL;

    if (reply->serial < VIR_CHECKPOINT_CLIENT_SERIALS)
        return FALSE;

    locker = g_mutex_locker_new(&client->lock);
    for (at = client->asks.head; at; at = at->next) {
        virCheckpointAsk *ask = at->data;

        if (ask->serial != reply->serial || ask->program != reply->program ||
            ask->procedure != reply->procedure)
            continue;
        g_queue_delete_link(&client->asks, at);
        ask->reply = reply;
        ask->done = TRUE;
        g_cond_broadcast(&client->answered);
        return TRUE;
    }
    return FALSE;
}

void
virCheckpointClientClosePosts(virCheckpointClient *client)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&client->lock);
    virCheckpointAsk *ask = NULL;
    virCheckpointPost *post = NULL;

    client->closed = TRUE;
    while ((post = g_queue_pop_head(&client->posts)))
        virCheckpointPostFree(post);
    while ((ask = g_queue_pop_head(&client->asks)))
        ask->done = TRUE;
    g_cond_broadcast(&client->answered);
}

/* The main context's part. */

static virCheckpointPost *
virCheckpointClientNextPost(virCheckpointClient *client, virCheckpointFrame **call)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&client->lock);
    virCheckpointPost *post = g_queue_pop_head(&client->posts);

    /* Under the lock, and the call only: once it is sent the worker may wake up and the
     * ask be gone at any time. */
    if (post && post->ask) {
        post->ask->serial = virCheckpointClientNewSerialLocked(client);
        virCheckpointFrameSetSerial(post->ask->call, post->ask->serial);
        *call = g_steal_pointer(&post->ask->call);
    }
    return post;
}

static void
virCheckpointClientPostSend(virCheckpointClient *client, virCheckpointFrame *frame)
{
    if (virCheckpointFrameIsReply(frame))
        virCheckpointClientUntake(client, frame->serial);
    frame->ours = TRUE;
    virCheckpointSideSend(client->peer, frame);
}

static void
virCheckpointClientPostForward(virCheckpointClient *client, virCheckpointFrame *frame)
{
    virCheckpointClientUntake(client, frame->serial);
    virCheckpointClientForwardCall(client, frame);
}

static gboolean
virCheckpointClientTakePosts(gpointer data)
{
    virCheckpointClient *client = data;
    virCheckpointPost *post = NULL;
    virCheckpointFrame *call = NULL;

    while ((post = virCheckpointClientNextPost(client, &call))) {
        if (post->ask)
            virCheckpointSideSend(client->backend, g_steal_pointer(&call));
        else if (post->toBackend)
            virCheckpointClientPostForward(client, g_steal_pointer(&post->frame));
        else
            virCheckpointClientPostSend(client, g_steal_pointer(&post->frame));
        virCheckpointPostFree(post);
    }
    virCheckpointClientUpdate(client);
    return G_SOURCE_REMOVE;
}

/* The workers' part. */

/* Returns FALSE when the session has ended; @post is freed then. */
static gboolean
virCheckpointClientPost(virCheckpointClient *client, virCheckpointPost *post)
{
    g_autoptr(GSource) source = NULL;

    g_mutex_lock(&client->lock);
    if (client->closed) {
        g_mutex_unlock(&client->lock);
        virCheckpointPostFree(post);
        return FALSE;
    }
    g_queue_push_tail(&client->posts, post);
    if (post->ask)
        g_queue_push_tail(&client->asks, post->ask);
    g_mutex_unlock(&client->lock);

    /* Not g_main_context_invoke(): while nobody runs the main context that would run
     * the session on a worker. */
    if (g_main_context_is_owner(NULL)) {
        virCheckpointClientRef(client);
        virCheckpointClientTakePosts(client);
        virCheckpointClientUnref(client);
        return TRUE;
    }
    source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, virCheckpointClientTakePosts,
                          virCheckpointClientRef(client),
                          (GDestroyNotify)virCheckpointClientUnref);
    g_source_attach(source, NULL);
    return TRUE;
}

void
virCheckpointClientSend(virCheckpointClient *client, virCheckpointFrame *frame)
{
    virCheckpointPost *post = g_new0(virCheckpointPost, 1);

    post->frame = frame;
    virCheckpointClientPost(client, post);
}

void
virCheckpointClientForward(virCheckpointClient *client, virCheckpointFrame *frame)
{
    virCheckpointPost *post = g_new0(virCheckpointPost, 1);

    post->frame = frame;
    post->toBackend = TRUE;
    virCheckpointClientPost(client, post);
}

virCheckpointFrame *
virCheckpointClientAsk(virCheckpointClient *client,
                       guint32 program,
                       gint32 procedure,
                       const guint8 *payload,
                       gsize length)
{
    virCheckpointAsk ask = {.program = program, .procedure = procedure};
    virCheckpointPost *post = g_new0(virCheckpointPost, 1);

    g_assert(!g_main_context_is_owner(NULL));

    ask.call = virCheckpointFrameNew(program, procedure, VIR_CHECKPOINT_FRAME_CALL, 0,
                                     VIR_CHECKPOINT_FRAME_OK, payload, length);
    post->ask = &ask;
    if (virCheckpointClientPost(client, post)) {
        g_mutex_lock(&client->lock);
        while (!ask.done)
            g_cond_wait(&client->answered, &client->lock);
        g_mutex_unlock(&client->lock);
    }
    virCheckpointFrameFree(ask.call);
    return ask.reply;
}
