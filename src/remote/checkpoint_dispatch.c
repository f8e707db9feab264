/*
 * checkpoint_dispatch.c: which calls are ours, and who works on them
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The sessions show us each call of a client on the main context.  One table names the
 * procedures that concern us; a quick look (no waiting) may send a call on its way at
 * once, all else is copied and given to a worker, which answers it or passes the
 * original packet on.  Libvirt executes the calls of one connection in any order, so
 * what a worker passes on late breaks no promise.
 *
 * A pool per kind of work: a query or a start is never behind deletes that merge for
 * minutes, an abort never behind queries.  Workers wait for the client's own backend
 * connection and for domains; so that one stuck client or guest cannot hold all of
 * them, a client has at most a few threads of a pool and its further calls wait.  How
 * many may wait is bounded by the session, which stops reading from a client that is
 * owed too many answers.  When a session ends its questions end as well, so its workers
 * come back.
 *
 * A read-only connection's calls that change something are left to libvirt, which
 * refuses them in its own words.
 */

#define G_LOG_DOMAIN "virtcheckpoint"

#include "config.h"

#include "checkpoint_dispatchpriv.h"

#include <libvirt/virterror.h>

typedef gboolean (*virCheckpointDispatchWanted)(virCheckpointDispatch *dispatch,
                                                const virCheckpointFrame *frame);

/** A procedure of the remote program that concerns us. */
typedef struct virCheckpointDispatchEntry {
    gint procedure;
    virCheckpointPool pool;
    gboolean writes; /* refused by libvirt on read-only connections */
    virCheckpointDispatchWanted wanted; /* NULL: always */
    virCheckpointCallFunc run;
} virCheckpointDispatchEntry;

#define VIR_CHECKPOINT_READ(proc, topic)                                               \
    {                                                                                  \
        VIR_CHECKPOINT_PROC_##proc, VIR_CHECKPOINT_POOL_QUERY, FALSE, NULL,            \
            virCheckpointDispatch##topic                                               \
    }
#define VIR_CHECKPOINT_WORK(proc, topic)                                               \
    {                                                                                  \
        VIR_CHECKPOINT_PROC_##proc, VIR_CHECKPOINT_POOL_WORK, TRUE, NULL,              \
            virCheckpointDispatch##topic                                               \
    }
#define VIR_CHECKPOINT_DOMAIN(proc, topic)                                             \
    {                                                                                  \
        VIR_CHECKPOINT_PROC_##proc, VIR_CHECKPOINT_POOL_START, TRUE, NULL,             \
            virCheckpointDispatch##topic                                               \
    }
#define VIR_CHECKPOINT_GUARD(proc)                                                     \
    {                                                                                  \
        VIR_CHECKPOINT_PROC_##proc, VIR_CHECKPOINT_POOL_QUERY, TRUE,                   \
            virCheckpointDispatchGuardWanted, virCheckpointDispatchGuard               \
    }

#define VIR_CHECKPOINT_MOVE(proc)                                                      \
    {                                                                                  \
        VIR_CHECKPOINT_PROC_##proc, VIR_CHECKPOINT_POOL_WORK, TRUE,                    \
            virCheckpointDispatchMoveWanted, virCheckpointDispatchMove                 \
    }

static const virCheckpointDispatchEntry virCheckpointDispatchTable[] = {
    VIR_CHECKPOINT_WORK(CHECKPOINT_CREATE_XML, CheckpointCreate),
    VIR_CHECKPOINT_WORK(CHECKPOINT_DELETE, CheckpointDelete),
    /* With the sizes it takes the domain's slot. */
    {VIR_CHECKPOINT_PROC_CHECKPOINT_GET_XML_DESC, VIR_CHECKPOINT_POOL_WORK, FALSE, NULL,
     virCheckpointDispatchCheckpointGetXml},
    VIR_CHECKPOINT_READ(CHECKPOINT_LIST_ALL, CheckpointList),
    VIR_CHECKPOINT_READ(CHECKPOINT_LIST_CHILDREN, CheckpointChildren),
    VIR_CHECKPOINT_READ(CHECKPOINT_LOOKUP, CheckpointLookup),
    VIR_CHECKPOINT_READ(CHECKPOINT_GET_PARENT, CheckpointParent),
    {VIR_CHECKPOINT_PROC_LIST_ALL_DOMAINS, VIR_CHECKPOINT_POOL_QUERY, FALSE,
     virCheckpointDispatchListWanted, virCheckpointDispatchListDomains},
    {VIR_CHECKPOINT_PROC_BACKUP_BEGIN, VIR_CHECKPOINT_POOL_WORK, TRUE,
     virCheckpointDispatchBackupWanted, virCheckpointDispatchBackupBegin},
    VIR_CHECKPOINT_READ(BACKUP_GET_XML_DESC, BackupGetXml),
    {VIR_CHECKPOINT_PROC_BLOCK_COPY, VIR_CHECKPOINT_POOL_WORK, TRUE,
     virCheckpointDispatchCopyWanted, virCheckpointDispatchBlockCopy},
    {VIR_CHECKPOINT_PROC_BLOCK_JOB_INFO, VIR_CHECKPOINT_POOL_QUERY, FALSE,
     virCheckpointDispatchJobWanted, virCheckpointDispatchJobInfo},
    {VIR_CHECKPOINT_PROC_BLOCK_JOB_ABORT, VIR_CHECKPOINT_POOL_JOB, TRUE,
     virCheckpointDispatchAbortWanted, virCheckpointDispatchJobAbort},
    {VIR_CHECKPOINT_PROC_BLOCK_JOB_SET_SPEED, VIR_CHECKPOINT_POOL_JOB, TRUE,
     virCheckpointDispatchJobWanted, virCheckpointDispatchJobSetSpeed},
    VIR_CHECKPOINT_DOMAIN(DOMAIN_CREATE, Start),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_CREATE_WITH_FLAGS, Start),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_CREATE_WITH_FILES, Start),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_CREATE_XML, Start),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_CREATE_XML_WITH_FILES, Start),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_UNDEFINE, Undefine),
    VIR_CHECKPOINT_DOMAIN(DOMAIN_UNDEFINE_FLAGS, Undefine),
    VIR_CHECKPOINT_MOVE(BLOCK_PULL),
    VIR_CHECKPOINT_MOVE(BLOCK_REBASE),
    VIR_CHECKPOINT_MOVE(BLOCK_COMMIT),
    {VIR_CHECKPOINT_PROC_REVERT_TO_SNAPSHOT, VIR_CHECKPOINT_POOL_WORK, TRUE,
     virCheckpointDispatchRevertWanted, virCheckpointDispatchRevert},
    VIR_CHECKPOINT_GUARD(BLOCK_RESIZE),
    VIR_CHECKPOINT_GUARD(SNAPSHOT_CREATE_XML),
    VIR_CHECKPOINT_GUARD(DOMAIN_DETACH_DEVICE),
    VIR_CHECKPOINT_GUARD(DOMAIN_DETACH_DEVICE_FLAGS),
    VIR_CHECKPOINT_GUARD(DOMAIN_DETACH_DEVICE_ALIAS),
    VIR_CHECKPOINT_GUARD(DOMAIN_SAVE),
    VIR_CHECKPOINT_GUARD(DOMAIN_SAVE_FLAGS),
    VIR_CHECKPOINT_GUARD(DOMAIN_SAVE_PARAMS),
    VIR_CHECKPOINT_GUARD(DOMAIN_MANAGED_SAVE),
    VIR_CHECKPOINT_MOVE(MIGRATE_PERFORM),
    VIR_CHECKPOINT_MOVE(MIGRATE_BEGIN3),
    VIR_CHECKPOINT_MOVE(MIGRATE_PERFORM3),
    VIR_CHECKPOINT_MOVE(MIGRATE_BEGIN3_PARAMS),
    VIR_CHECKPOINT_MOVE(MIGRATE_PERFORM3_PARAMS),
};

const guint8 *
virCheckpointCallPayload(const virCheckpointFrame *frame, gsize *length)
{
    const guint8 *payload = virCheckpointFramePayload(frame, length);

    if (frame->type == VIR_CHECKPOINT_FRAME_CALL_WITH_FDS ||
        frame->type == VIR_CHECKPOINT_FRAME_REPLY_WITH_FDS) {
        gsize count = MIN(*length, sizeof(guint32));

        payload += count;
        *length -= count;
    }
    return payload;
}

gboolean
virCheckpointCallDecodeRaw(xdrproc_t proc,
                           const virCheckpointFrame *frame,
                           gpointer out)
{
    gsize length;
    const guint8 *payload = virCheckpointCallPayload(frame, &length);

    return virCheckpointWireDecodeRaw(proc, payload, length, out);
}

static void
virCheckpointCallFree(virCheckpointCall *call)
{
    virCheckpointDispatch *dispatch = call->dispatch;

    if (call->free)
        call->free(call->data);
    g_clear_pointer(&call->frame, virCheckpointFrameFree);
    virCheckpointClientUnref(call->client);
    g_free(call);
    /* The dispatch may be freed from here on. */
    g_atomic_int_dec_and_test(&dispatch->active);
    g_main_context_wakeup(NULL);
}

/** The thread of @call is free: give it to the next call of that client. */
static void
virCheckpointCallEnd(virCheckpointCall *call)
{
    virCheckpointDispatch *dispatch = call->dispatch;
    virCheckpointSession *session = call->session;
    virCheckpointCall *next;

    g_mutex_lock(&dispatch->lock);
    if ((next = g_queue_pop_head(&session->waiting[call->pool])))
        g_thread_pool_push(dispatch->pools[call->pool], next, NULL);
    else
        session->running[call->pool]--;
    g_mutex_unlock(&dispatch->lock);
    virCheckpointCallFree(call);
}

static void
virCheckpointCallThread(gpointer data, gpointer user)
{
    virCheckpointCall *call = data;

    call->run(call);
    /* A handler returns without an answer when the session ended: nobody gets this. */
    if (call->frame && !call->answered)
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_NONE, VIR_ERR_INTERNAL_ERROR,
                              "the call was not answered");
    virCheckpointCallEnd(call);
}

void
virCheckpointDispatchSubmit(virCheckpointDispatch *dispatch,
                            virCheckpointSession *session,
                            const virCheckpointFrame *frame,
                            virCheckpointPool pool,
                            virCheckpointCallFunc run,
                            gpointer data,
                            GDestroyNotify free)
{
    virCheckpointCall *call = g_new0(virCheckpointCall, 1);

    g_atomic_int_inc(&dispatch->active);
    call->dispatch = dispatch;
    call->engine = dispatch->engine;
    call->client = virCheckpointClientRef(session->client);
    call->session = session;
    call->frame = frame ? virCheckpointFrameCopy(frame) : NULL;
    call->pool = pool;
    call->run = run;
    call->data = data;
    call->free = free;
    g_mutex_lock(&dispatch->lock);
    if (session->running[pool] < VIR_CHECKPOINT_POOL_PER_CLIENT) {
        session->running[pool]++;
        g_thread_pool_push(dispatch->pools[pool], call, NULL);
    } else {
        g_queue_push_tail(&session->waiting[pool], call);
    }
    g_mutex_unlock(&dispatch->lock);
}

void
virCheckpointDispatchPost(GSourceFunc func, gpointer data)
{
    g_autoptr(GSource) source = g_idle_source_new();

    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, func, data, NULL);
    g_source_attach(source, NULL);
}

static void
virCheckpointSessionFree(gpointer data)
{
    virCheckpointSession *session = data;

    virCheckpointEventsClear(session);
    g_free(session);
}

virCheckpointSession *
virCheckpointDispatchSession(virCheckpointDispatch *dispatch,
                             virCheckpointClient *client)
{
    virCheckpointSession *session = virCheckpointClientGetData(client);

    if (session)
        return session;
    session = g_new0(virCheckpointSession, 1);
    session->client = client;
    virCheckpointEventsInit(session);
    g_ptr_array_add(dispatch->sessions, session);
    virCheckpointClientSetData(client, session, virCheckpointSessionFree);
    return session;
}

/* Replies that we watch. */

typedef struct virCheckpointWatch {
    virCheckpointFrame *call;  /* of a registration; or NULL: */
    virCheckpointCallFunc run; /* who takes the good reply */
    gchar *data;
} virCheckpointWatch;

static void
virCheckpointWatchFree(gpointer data)
{
    virCheckpointWatch *watch = data;

    g_clear_pointer(&watch->call, virCheckpointFrameFree);
    g_free(watch->data);
    g_free(watch);
}

/** A call on its way through the main context, where alone replies can be watched. */
typedef struct virCheckpointForwarding {
    virCheckpointClient *client;
    virCheckpointFrame *frame;
    virCheckpointWatch *watch;
} virCheckpointForwarding;

static gboolean
virCheckpointDispatchForwarding(gpointer data)
{
    g_autofree virCheckpointForwarding *forwarding = data;

    virCheckpointClientWatch(forwarding->client, forwarding->frame, forwarding->watch,
                             virCheckpointWatchFree);
    virCheckpointClientForward(forwarding->client, forwarding->frame);
    virCheckpointClientUnref(forwarding->client);
    return G_SOURCE_REMOVE;
}

void
virCheckpointDispatchForwardWatched(virCheckpointCall *call,
                                    virCheckpointCallFunc run,
                                    gchar *data)
{
    virCheckpointForwarding *forwarding = g_new0(virCheckpointForwarding, 1);

    call->answered = TRUE;
    forwarding->client = virCheckpointClientRef(call->client);
    forwarding->frame = g_steal_pointer(&call->frame);
    forwarding->watch = g_new0(virCheckpointWatch, 1);
    forwarding->watch->run = run;
    forwarding->watch->data = data;
    virCheckpointDispatchPost(virCheckpointDispatchForwarding, forwarding);
}

/* Hooks. */

static virCheckpointVerdict
virCheckpointDispatchQemuCall(virCheckpointDispatch *dispatch,
                              virCheckpointClient *client,
                              const virCheckpointFrame *frame)
{
    if (frame->procedure != VIR_CHECKPOINT_QEMU_PROC_MONITOR_COMMAND ||
        virCheckpointClientIsReadOnly(client) ||
        !virCheckpointDispatchCommandWanted(dispatch, frame))
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    virCheckpointDispatchSubmit(
        dispatch, virCheckpointDispatchSession(dispatch, client), frame,
        VIR_CHECKPOINT_POOL_WORK, virCheckpointDispatchCommand, NULL, NULL);
    return VIR_CHECKPOINT_VERDICT_TAKEN;
}

static virCheckpointVerdict
virCheckpointDispatchCall(virCheckpointClient *client,
                          const virCheckpointFrame *frame,
                          gpointer data)
{
    virCheckpointDispatch *dispatch = data;
    virCheckpointSession *session;
    gsize i;

    if (frame->version != 1 || frame->status != VIR_CHECKPOINT_FRAME_OK ||
        dispatch->stopping)
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    if (frame->program == VIR_CHECKPOINT_PROGRAM_QEMU)
        return virCheckpointDispatchQemuCall(dispatch, client, frame);
    if (frame->program != VIR_CHECKPOINT_PROGRAM_REMOTE)
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    session = virCheckpointDispatchSession(dispatch, client);
    if (virCheckpointEventsWatches(frame)) {
        virCheckpointWatch *watch = g_new0(virCheckpointWatch, 1);

        watch->call = virCheckpointFrameCopy(frame);
        virCheckpointClientWatch(client, frame, watch, virCheckpointWatchFree);
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    }
    for (i = 0; i < G_N_ELEMENTS(virCheckpointDispatchTable); i++) {
        const virCheckpointDispatchEntry *entry = &virCheckpointDispatchTable[i];

        if (entry->procedure != frame->procedure)
            continue;
        if ((entry->writes && virCheckpointClientIsReadOnly(client)) ||
            (entry->wanted && !entry->wanted(dispatch, frame)))
            break;
        virCheckpointDispatchSubmit(dispatch, session, frame, entry->pool, entry->run,
                                    NULL, NULL);
        return VIR_CHECKPOINT_VERDICT_TAKEN;
    }
    return VIR_CHECKPOINT_VERDICT_FORWARD;
}

static virCheckpointVerdict
virCheckpointDispatchReply(virCheckpointClient *client,
                           const virCheckpointFrame *frame,
                           gpointer tag,
                           gpointer data)
{
    virCheckpointDispatch *dispatch = data;
    virCheckpointWatch *watch = tag;
    virCheckpointSession *session = virCheckpointDispatchSession(dispatch, client);

    if (watch->call) {
        virCheckpointEventsReply(session, watch->call, frame);
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    }
    if (frame->status != VIR_CHECKPOINT_FRAME_OK || dispatch->stopping)
        return VIR_CHECKPOINT_VERDICT_FORWARD;
    virCheckpointDispatchSubmit(dispatch, session, frame, VIR_CHECKPOINT_POOL_START,
                                watch->run, g_steal_pointer(&watch->data), g_free);
    return VIR_CHECKPOINT_VERDICT_TAKEN;
}

static virCheckpointVerdict
virCheckpointDispatchMessage(virCheckpointClient *client,
                             const virCheckpointFrame *frame,
                             gpointer data)
{
    if (frame->program == VIR_CHECKPOINT_PROGRAM_REMOTE &&
        virCheckpointEventsHidden(data, frame))
        return VIR_CHECKPOINT_VERDICT_TAKEN;
    return VIR_CHECKPOINT_VERDICT_FORWARD;
}

static void
virCheckpointDispatchClosed(virCheckpointClient *client, gpointer data)
{
    virCheckpointDispatch *dispatch = data;
    virCheckpointSession *session = virCheckpointClientGetData(client);
    g_autoptr(GPtrArray) dropped =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointCallFree);
    guint pool;

    if (!session)
        return;
    g_ptr_array_remove(dispatch->sessions, session);
    g_mutex_lock(&dispatch->lock);
    for (pool = 0; pool < VIR_CHECKPOINT_POOL_LAST; pool++) {
        virCheckpointCall *call;

        while ((call = g_queue_pop_head(&session->waiting[pool])))
            g_ptr_array_add(dropped, call);
    }
    g_mutex_unlock(&dispatch->lock);
}

const virCheckpointClientHooks *
virCheckpointDispatchHooks(void)
{
    static const virCheckpointClientHooks hooks = {
        .call = virCheckpointDispatchCall,
        .reply = virCheckpointDispatchReply,
        .message = virCheckpointDispatchMessage,
        .closed = virCheckpointDispatchClosed,
    };

    return &hooks;
}

virCheckpointDispatch *
virCheckpointDispatchNew(virCheckpointEngine *engine)
{
    virCheckpointDispatch *dispatch = g_new0(virCheckpointDispatch, 1);
    guint pool;

    dispatch->engine = engine;
    dispatch->sessions = g_ptr_array_new();
    g_mutex_init(&dispatch->lock);
    for (pool = 0; pool < VIR_CHECKPOINT_POOL_LAST; pool++)
        dispatch->pools[pool] =
            g_thread_pool_new(virCheckpointCallThread, dispatch,
                              VIR_CHECKPOINT_POOL_THREADS, FALSE, NULL);
    return dispatch;
}

void
virCheckpointDispatchFree(virCheckpointDispatch *dispatch)
{
    guint pool;

    if (!dispatch)
        return;
    dispatch->stopping = TRUE;
    while (g_atomic_int_get(&dispatch->active) > 0)
        g_main_context_iteration(NULL, TRUE);
    for (pool = 0; pool < VIR_CHECKPOINT_POOL_LAST; pool++)
        g_thread_pool_free(dispatch->pools[pool], FALSE, TRUE);
    g_mutex_clear(&dispatch->lock);
    g_ptr_array_unref(dispatch->sessions);
    g_free(dispatch);
}
