/*
 * checkpoint_events.c: block job events
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Clients are to see one copy job per mirror.  So events of the jobs that the engine
 * starts inside are swallowed on their way from libvirt, and the engine's own are put
 * in.  The client library takes an event only with the callback id that the server gave
 * to that connection: registrations pass through libvirt, and their replies are
 * watched.
 *
 * Libvirt sends an event only to connections that may see the domain.  Whether this is
 * so is asked by the client's own look-up, once per connection and domain, by a worker;
 * until it answers, the connection's events of that domain are held, in order.  The
 * client that starts or aborts a mirror has been asked before, so that its events come
 * before the answer to its abort.
 *
 * Everything here runs on the main context; nothing survives the connection.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"

#include <libvirt/libvirt.h>
#include <string.h>

#define VIR_CHECKPOINT_EVENT_SERIAL 1 /* what libvirt sends */

/** What the server will send to this connection. */
typedef struct virCheckpointRegistration {
    gint callback; /* -1: by the legacy call, without an id */
    gint event;    /* VIR_DOMAIN_EVENT_ID_BLOCK_JOB or _2 */
    gboolean filtered;
    virCheckpointProtoUuid uuid; /* if filtered */
} virCheckpointRegistration;

typedef enum {
    VIR_CHECKPOINT_VISIBLE_UNKNOWN,
    VIR_CHECKPOINT_VISIBLE_ASKING,
    VIR_CHECKPOINT_VISIBLE_NO,
    VIR_CHECKPOINT_VISIBLE_YES,
} virCheckpointVisible;

/** An event that waits. */
typedef struct virCheckpointEventCopy {
    virCheckpointProtoUuid uuid;
    gchar *name;
    gint id;
    gchar *target;
    gchar *source;
    gint type;
    gint status;
} virCheckpointEventCopy;

static void
virCheckpointEventCopyFree(virCheckpointEventCopy *event)
{
    g_free(event->name);
    g_free(event->target);
    g_free(event->source);
    g_free(event);
}

void
virCheckpointEventsInit(virCheckpointSession *session)
{
    session->registrations = g_ptr_array_new_with_free_func(g_free);
    session->visible = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_queue_init(&session->held);
}

void
virCheckpointEventsClear(virCheckpointSession *session)
{
    g_clear_pointer(&session->registrations, g_ptr_array_unref);
    g_clear_pointer(&session->visible, g_hash_table_unref);
    g_queue_clear_full(&session->held, (GDestroyNotify)virCheckpointEventCopyFree);
}

gboolean
virCheckpointEventsWatches(const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoInt) first = {0};

    switch (frame->procedure) {
    case VIR_CHECKPOINT_PROC_CALLBACK_REGISTER_ANY:
    case VIR_CHECKPOINT_PROC_EVENT_REGISTER_ANY:
    case VIR_CHECKPOINT_PROC_EVENT_DEREGISTER_ANY:
        return virCheckpointCallDecode(virCheckpointProtoInt, frame, &first) &&
               (first.value == VIR_DOMAIN_EVENT_ID_BLOCK_JOB ||
                first.value == VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2);
    case VIR_CHECKPOINT_PROC_CALLBACK_DEREGISTER_ANY:
        return TRUE;
    default:
        return FALSE;
    }
}

static void
virCheckpointEventsForget(virCheckpointSession *session, gint callback, gint event)
{
    guint i;

    for (i = session->registrations->len; i > 0; i--) {
        const virCheckpointRegistration *known =
            g_ptr_array_index(session->registrations, i - 1);

        if (known->callback == callback && (callback != -1 || known->event == event))
            g_ptr_array_remove_index(session->registrations, i - 1);
    }
}

void
virCheckpointEventsReply(virCheckpointSession *session,
                         const virCheckpointFrame *call,
                         const virCheckpointFrame *reply)
{
    g_auto(virCheckpointProtoRegister) args = {0};
    g_auto(virCheckpointProtoInt) number = {0};
    g_auto(virCheckpointProtoInt) id = {0};
    virCheckpointRegistration *made;

    if (reply->status != VIR_CHECKPOINT_FRAME_OK ||
        !virCheckpointCallDecode(virCheckpointProtoInt, call, &number))
        return;
    switch (call->procedure) {
    case VIR_CHECKPOINT_PROC_CALLBACK_DEREGISTER_ANY:
        virCheckpointEventsForget(session, number.value, -1);
        return;
    case VIR_CHECKPOINT_PROC_EVENT_DEREGISTER_ANY:
        virCheckpointEventsForget(session, -1, number.value);
        return;
    case VIR_CHECKPOINT_PROC_CALLBACK_REGISTER_ANY:
        if (!virCheckpointCallDecode(virCheckpointProtoRegister, call, &args) ||
            !virCheckpointCallDecode(virCheckpointProtoInt, reply, &id))
            return;
        break;
    default:
        id.value = -1;
        break;
    }
    made = g_new0(virCheckpointRegistration, 1);
    made->callback = id.value;
    made->event = number.value;
    made->filtered = args.dom != NULL;
    if (args.dom)
        memcpy(made->uuid, args.dom->uuid, sizeof(made->uuid));
    g_ptr_array_add(session->registrations, made);
}

gboolean
virCheckpointEventsHidden(virCheckpointDispatch *dispatch,
                          const virCheckpointFrame *frame)
{
    g_auto(virCheckpointProtoBlockJob) event = {0};
    g_auto(virCheckpointProtoLegacyBlockJob) legacy = {0};
    gchar uuid[VIR_CHECKPOINT_UUID_TEXT];

    switch (frame->procedure) {
    case VIR_CHECKPOINT_PROC_EVENT_CALLBACK_BLOCK_JOB:
    case VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB_2:
        if (!virCheckpointCallDecode(virCheckpointProtoBlockJob, frame, &event))
            return FALSE;
        virCheckpointWireUuidFormat(event.dom.uuid, uuid);
        return virCheckpointEngineHidesJob(dispatch->engine, uuid, event.disk);
    case VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB:
        if (!virCheckpointCallDecode(virCheckpointProtoLegacyBlockJob, frame, &legacy))
            return FALSE;
        virCheckpointWireUuidFormat(legacy.dom.uuid, uuid);
        return virCheckpointEngineHidesJob(dispatch->engine, uuid, legacy.disk);
    default:
        return FALSE;
    }
}

static GBytes *
virCheckpointEventsEncode(const virCheckpointRegistration *made,
                          const virCheckpointEventCopy *event)
{
    gboolean byTarget = made->event == VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2;
    virCheckpointProtoBlockJob wire = {
        .callback = made->callback,
        .dom = {.name = event->name, .id = event->id},
        .disk = byTarget ? event->target : event->source,
        .type = event->type,
        .status = event->status,
    };
    virCheckpointProtoLegacyBlockJob legacy;

    memcpy(wire.dom.uuid, event->uuid, sizeof(wire.dom.uuid));
    if (made->callback != -1)
        return virCheckpointWireEncode(virCheckpointProtoBlockJob, &wire);
    legacy.dom = wire.dom;
    legacy.disk = wire.disk;
    legacy.type = wire.type;
    legacy.status = wire.status;
    return virCheckpointWireEncode(virCheckpointProtoLegacyBlockJob, &legacy);
}

static gboolean
virCheckpointEventsMatches(const virCheckpointRegistration *made,
                           const virCheckpointProtoUuid uuid)
{
    return !made->filtered || memcmp(made->uuid, uuid, sizeof(made->uuid)) == 0;
}

static void
virCheckpointEventsSend(virCheckpointSession *session,
                        const virCheckpointEventCopy *event)
{
    guint i;

    for (i = 0; i < session->registrations->len; i++) {
        const virCheckpointRegistration *made =
            g_ptr_array_index(session->registrations, i);
        g_autoptr(GBytes) bytes = NULL;
        gint procedure = VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB;

        if (!virCheckpointEventsMatches(made, event->uuid) ||
            !(bytes = virCheckpointEventsEncode(made, event)))
            continue;
        if (made->callback != -1)
            procedure = made->event == VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2
                            ? VIR_CHECKPOINT_PROC_EVENT_BLOCK_JOB_2
                            : VIR_CHECKPOINT_PROC_EVENT_CALLBACK_BLOCK_JOB;
        virCheckpointClientSend(
            session->client,
            virCheckpointFrameNew(
                VIR_CHECKPOINT_PROGRAM_REMOTE, procedure, VIR_CHECKPOINT_FRAME_MESSAGE,
                VIR_CHECKPOINT_EVENT_SERIAL, VIR_CHECKPOINT_FRAME_OK,
                g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes)));
    }
}

/** Whether the client may see the domain is known now: send or drop what waited. */
static void
virCheckpointEventsSettle(virCheckpointSession *session,
                          const virCheckpointProtoUuid uuid,
                          gboolean visible)
{
    gchar text[VIR_CHECKPOINT_UUID_TEXT];
    GList *link = session->held.head;

    virCheckpointWireUuidFormat(uuid, text);
    g_hash_table_insert(session->visible, g_strdup(text),
                        GINT_TO_POINTER(visible ? VIR_CHECKPOINT_VISIBLE_YES
                                                : VIR_CHECKPOINT_VISIBLE_NO));
    while (link) {
        GList *next = link->next;
        virCheckpointEventCopy *event = link->data;

        if (memcmp(event->uuid, uuid, sizeof(event->uuid)) == 0) {
            if (visible)
                virCheckpointEventsSend(session, event);
            virCheckpointEventCopyFree(event);
            g_queue_delete_link(&session->held, link);
        }
        link = next;
    }
}

/** What a worker learnt, on its way to the main context. */
typedef struct virCheckpointLearnt {
    virCheckpointClient *client; /* referenced: the session lives as long */
    virCheckpointSession *session;
    virCheckpointProtoUuid uuid;
    gboolean visible;
} virCheckpointLearnt;

static gboolean
virCheckpointEventsLearnt(gpointer data)
{
    g_autofree virCheckpointLearnt *learnt = data;

    virCheckpointEventsSettle(learnt->session, learnt->uuid, learnt->visible);
    virCheckpointClientUnref(learnt->client);
    return G_SOURCE_REMOVE;
}

void
virCheckpointEventsLearn(virCheckpointCall *call,
                         const virCheckpointProtoUuid uuid,
                         gboolean visible)
{
    virCheckpointLearnt *learnt = g_new0(virCheckpointLearnt, 1);

    learnt->client = virCheckpointClientRef(call->client);
    learnt->session = call->session;
    memcpy(learnt->uuid, uuid, sizeof(learnt->uuid));
    learnt->visible = visible;
    virCheckpointDispatchPost(virCheckpointEventsLearnt, learnt);
}

static void
virCheckpointEventsAsk(virCheckpointCall *call)
{
    g_auto(virCheckpointProtoDomainArgs) now = {0};
    const gchar *uuid = call->data;

    virCheckpointEventsLearn(call, uuid, virCheckpointCallDomain(call, uuid, &now));
}

static void
virCheckpointEventsOffer(virCheckpointDispatch *dispatch,
                         virCheckpointSession *session,
                         const gchar *uuid,
                         virCheckpointEventCopy *event)
{
    gint visible = GPOINTER_TO_INT(g_hash_table_lookup(session->visible, uuid));

    if (visible == VIR_CHECKPOINT_VISIBLE_YES)
        virCheckpointEventsSend(session, event);
    if (visible == VIR_CHECKPOINT_VISIBLE_YES || visible == VIR_CHECKPOINT_VISIBLE_NO) {
        virCheckpointEventCopyFree(event);
        return;
    }
    g_queue_push_tail(&session->held, event);
    if (visible == VIR_CHECKPOINT_VISIBLE_ASKING)
        return;
    g_hash_table_insert(session->visible, g_strdup(uuid),
                        GINT_TO_POINTER(VIR_CHECKPOINT_VISIBLE_ASKING));
    virCheckpointDispatchSubmit(dispatch, session, NULL, VIR_CHECKPOINT_POOL_QUERY,
                                virCheckpointEventsAsk,
                                g_memdup2(event->uuid, sizeof(event->uuid)), g_free);
}

static gboolean
virCheckpointEventsRegistered(virCheckpointSession *session,
                              const virCheckpointProtoUuid uuid)
{
    guint i;

    for (i = 0; i < session->registrations->len; i++) {
        if (virCheckpointEventsMatches(g_ptr_array_index(session->registrations, i),
                                       uuid))
            return TRUE;
    }
    return FALSE;
}

void
virCheckpointDispatchBlockJob(virCheckpointDispatch *dispatch,
                              const virCheckpointEngineEvent *event)
{
    virCheckpointProtoUuid uuid;
    guint i;

    if (!virCheckpointWireUuidParse(event->uuid, uuid))
        return;
    for (i = 0; i < dispatch->sessions->len; i++) {
        virCheckpointSession *session = g_ptr_array_index(dispatch->sessions, i);
        virCheckpointEventCopy *copy;

        if (!virCheckpointEventsRegistered(session, uuid))
            continue;
        copy = g_new0(virCheckpointEventCopy, 1);
        memcpy(copy->uuid, uuid, sizeof(copy->uuid));
        copy->name = g_strdup(event->name ? event->name : "");
        copy->id = event->id;
        copy->target = g_strdup(event->target ? event->target : "");
        copy->source = g_strdup(event->source ? event->source : "");
        copy->type = event->type;
        copy->status = event->status;
        virCheckpointEventsOffer(dispatch, session, event->uuid, copy);
    }
}
