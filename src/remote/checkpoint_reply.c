/*
 * checkpoint_reply.c: answers to clients
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A reply copies program, procedure and serial of its call: the client library looks
 * for all three, and a reply that nobody waits for costs the client its connection.
 * So each call gets exactly one answer, or is passed on and gets the backend's.
 *
 * Errors have code, domain, level 2, the full sentence and, as libvirt's own, the
 * detail in str2.  The code is never 0 and the sentence short (virCheckpointErrorCode,
 * virCheckpointErrorMessage): with code 0 the client library replaces the message, and
 * what is too long to encode would end the connection.
 */

#include "config.h"

#include "checkpoint_dispatchpriv.h"
#include "checkpoint_error.h"

#include <string.h>

#define VIR_CHECKPOINT_DETAIL_MAX 4096

/** An answer on its way through the main context. */
typedef struct virCheckpointReply {
    virCheckpointClient *client;
    virCheckpointFrame *frame;
} virCheckpointReply;

static gboolean
virCheckpointReplyDeliver(gpointer data)
{
    g_autofree virCheckpointReply *reply = data;

    virCheckpointClientSend(reply->client, reply->frame);
    virCheckpointClientUnref(reply->client);
    return G_SOURCE_REMOVE;
}

static void
virCheckpointCallSend(virCheckpointCall *call,
                      virCheckpointFrameStatus status,
                      const guint8 *payload,
                      gsize length)
{
    virCheckpointReply *reply;
    virCheckpointFrame *frame;

    g_return_if_fail(call->frame && !call->answered);
    call->answered = TRUE;
    frame = virCheckpointFrameNew(call->frame->program, call->frame->procedure,
                                  VIR_CHECKPOINT_FRAME_REPLY, call->frame->serial,
                                  (gint32)status, payload, length);
    if (!call->afterEvents) {
        virCheckpointClientSend(call->client, frame);
        return;
    }
    /* Sources of one priority run in the order in which they were attached. */
    reply = g_new0(virCheckpointReply, 1);
    reply->client = virCheckpointClientRef(call->client);
    reply->frame = frame;
    virCheckpointDispatchPost(virCheckpointReplyDeliver, reply);
}

void
virCheckpointCallReplyRaw(virCheckpointCall *call, xdrproc_t proc, gconstpointer value)
{
    g_autoptr(GBytes) bytes = virCheckpointWireEncodeRaw(proc, value);

    if (!bytes) {
        virCheckpointCallFail(call, VIR_CHECKPOINT_FROM_NONE, VIR_ERR_RPC,
                              "the answer is over a limit of the protocol");
        return;
    }
    virCheckpointCallSend(call, VIR_CHECKPOINT_FRAME_OK, g_bytes_get_data(bytes, NULL),
                          g_bytes_get_size(bytes));
}

void
virCheckpointCallReplyVoid(virCheckpointCall *call)
{
    virCheckpointCallSend(call, VIR_CHECKPOINT_FRAME_OK, NULL, 0);
}

GBytes *
virCheckpointReplyErrorPayload(gint from, const GError *error)
{
    g_autofree gchar *sentence = virCheckpointErrorMessage(error);
    g_autofree gchar *detail = g_utf8_make_valid(
        error->message, (gssize)strnlen(error->message, VIR_CHECKPOINT_DETAIL_MAX));
    gchar *message = sentence;
    gchar *str1 = (gchar *)"%s";
    gchar *str2 = detail;
    virCheckpointProtoError wire = {
        .code = virCheckpointErrorCode(error),
        .domain = from,
        .message = &message,
        .level = VIR_ERR_ERROR,
        .str1 = &str1,
        .str2 = &str2,
        .int1 = -1,
        .int2 = -1,
    };

    return virCheckpointWireEncode(virCheckpointProtoError, &wire);
}

void
virCheckpointCallFailError(virCheckpointCall *call, gint from, const GError *error)
{
    g_autoptr(GBytes) bytes = virCheckpointReplyErrorPayload(from, error);

    virCheckpointCallSend(call, VIR_CHECKPOINT_FRAME_ERROR,
                          g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

void
virCheckpointCallFail(
    virCheckpointCall *call, gint from, gint code, const gchar *format, ...)
{
    g_autoptr(GError) error = NULL;
    va_list args;

    va_start(args, format);
    error = g_error_new_valist(VIR_CHECKPOINT_ERROR, code, format, args);
    va_end(args);
    virCheckpointCallFailError(call, from, error);
}

void
virCheckpointCallPass(virCheckpointCall *call, const virCheckpointFrame *answer)
{
    gsize length;
    const guint8 *payload = virCheckpointFramePayload(answer, &length);

    virCheckpointCallSend(call, (virCheckpointFrameStatus)answer->status, payload,
                          length);
}

void
virCheckpointCallForward(virCheckpointCall *call)
{
    g_return_if_fail(call->frame && !call->answered);
    call->answered = TRUE;
    virCheckpointClientForward(call->client, g_steal_pointer(&call->frame));
}
