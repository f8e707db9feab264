/*
 * checkpoint_frame.c: packets of libvirt's RPC
 *
 * A packet is a length word that counts itself, six header words and a payload, all
 * big-endian.  Packets of the two types "with descriptors" open their payload with a
 * descriptor count; the descriptors travel behind the packet, outside its length, each
 * attached to one byte of its own.  A frame keeps the bytes exactly as they came: what
 * is forwarded is never encoded again, so packets newer than this program survive.
 * The decoded header beside the bytes is a copy for reading; only
 * virCheckpointFrameSetSerial() changes both.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_frame.h"

#include <fcntl.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <unistd.h>

#define AT_PROGRAM 4
#define AT_VERSION 8
#define AT_PROCEDURE 12
#define AT_TYPE 16
#define AT_SERIAL 20
#define AT_STATUS 24

guint32
virCheckpointFrameGetWord(const guint8 *at)
{
    return ((guint32)at[0] << 24) | ((guint32)at[1] << 16) | ((guint32)at[2] << 8) |
           at[3];
}

void
virCheckpointFramePutWord(guint8 *at, guint32 word)
{
    at[0] = (guint8)(word >> 24);
    at[1] = (guint8)(word >> 16);
    at[2] = (guint8)(word >> 8);
    at[3] = (guint8)word;
}

void
virCheckpointFrameFree(virCheckpointFrame *frame)
{
    guint i;

    if (!frame)
        return;

    for (i = 0; frame->fds && i < frame->fds->len; i++) {
        int fd = g_array_index(frame->fds, int, i);

        if (fd >= 0)
            close(fd);
    }
    if (frame->fds)
        g_array_unref(frame->fds);
    g_byte_array_unref(frame->bytes);
    g_free(frame);
}

virCheckpointFrame *
virCheckpointFrameCopy(const virCheckpointFrame *frame)
{
    virCheckpointFrame *copy = g_memdup2(frame, sizeof(*frame));
    guint i;

    copy->bytes = g_byte_array_sized_new(frame->bytes->len);
    g_byte_array_append(copy->bytes, frame->bytes->data, frame->bytes->len);
    if (!frame->fds)
        return copy;

    copy->fds = g_array_new(FALSE, FALSE, sizeof(int));
    for (i = 0; i < frame->fds->len; i++) {
        /* A failed duplicate is kept as -1: the writer then ends the session, because a
         * packet must not travel with fewer descriptors than it announces. */
        int fd = fcntl(g_array_index(frame->fds, int, i), F_DUPFD_CLOEXEC, 0);

        g_array_append_val(copy->fds, fd);
    }
    return copy;
}

const guint8 *
virCheckpointFramePayload(const virCheckpointFrame *frame, gsize *length)
{
    *length = frame->bytes->len - VIR_CHECKPOINT_FRAME_HEADER;
    return frame->bytes->data + VIR_CHECKPOINT_FRAME_HEADER;
}

static void
virCheckpointFrameDecodeHeader(virCheckpointFrame *frame)
{
    const guint8 *data = frame->bytes->data;

    frame->program = virCheckpointFrameGetWord(data + AT_PROGRAM);
    frame->version = virCheckpointFrameGetWord(data + AT_VERSION);
    frame->procedure = (gint32)virCheckpointFrameGetWord(data + AT_PROCEDURE);
    frame->type = (gint32)virCheckpointFrameGetWord(data + AT_TYPE);
    frame->serial = virCheckpointFrameGetWord(data + AT_SERIAL);
    frame->status = (gint32)virCheckpointFrameGetWord(data + AT_STATUS);
}

virCheckpointFrame *
virCheckpointFrameNewFromBytes(GByteArray *bytes)
{
    virCheckpointFrame *frame = NULL;

    if (bytes->len < VIR_CHECKPOINT_FRAME_HEADER) {
        g_byte_array_unref(bytes);
        return NULL;
    }

    frame = g_new0(virCheckpointFrame, 1);
    frame->bytes = bytes;
    virCheckpointFrameDecodeHeader(frame);
    return frame;
}

virCheckpointFrame *
virCheckpointFrameNew(guint32 program,
                      gint32 procedure,
                      gint32 type,
                      guint32 serial,
                      gint32 status,
                      const guint8 *payload,
                      gsize length)
{
    GByteArray *bytes =
        g_byte_array_sized_new((guint)(VIR_CHECKPOINT_FRAME_HEADER + length));
    virCheckpointFrame *frame = NULL;

    g_assert(length <= VIR_CHECKPOINT_FRAME_MAX - VIR_CHECKPOINT_FRAME_HEADER);

    g_byte_array_set_size(bytes, VIR_CHECKPOINT_FRAME_HEADER);
    virCheckpointFramePutWord(bytes->data,
                              (guint32)(VIR_CHECKPOINT_FRAME_HEADER + length));
    virCheckpointFramePutWord(bytes->data + AT_PROGRAM, program);
    virCheckpointFramePutWord(bytes->data + AT_VERSION, 1);
    virCheckpointFramePutWord(bytes->data + AT_PROCEDURE, (guint32)procedure);
    virCheckpointFramePutWord(bytes->data + AT_TYPE, (guint32)type);
    virCheckpointFramePutWord(bytes->data + AT_SERIAL, serial);
    virCheckpointFramePutWord(bytes->data + AT_STATUS, (guint32)status);
    if (length > 0)
        g_byte_array_append(bytes, payload, (guint)length);

    frame = virCheckpointFrameNewFromBytes(bytes);
    frame->ours = TRUE;
    return frame;
}

void
virCheckpointFrameSetSerial(virCheckpointFrame *frame, guint32 serial)
{
    frame->serial = serial;
    virCheckpointFramePutWord(frame->bytes->data + AT_SERIAL, serial);
}

gboolean
virCheckpointFrameIsCall(const virCheckpointFrame *frame)
{
    return frame->type == VIR_CHECKPOINT_FRAME_CALL ||
           frame->type == VIR_CHECKPOINT_FRAME_CALL_WITH_FDS;
}

gboolean
virCheckpointFrameIsReply(const virCheckpointFrame *frame)
{
    return frame->type == VIR_CHECKPOINT_FRAME_REPLY ||
           frame->type == VIR_CHECKPOINT_FRAME_REPLY_WITH_FDS;
}

static void
virCheckpointFrameAppendWord(GByteArray *bytes, guint32 word)
{
    guint8 raw[4];

    virCheckpointFramePutWord(raw, word);
    g_byte_array_append(bytes, raw, sizeof(raw));
}

static void
virCheckpointFrameAppendOptString(GByteArray *bytes, const gchar *text)
{
    static const guint8 pad[4];
    gsize length = 0;

    virCheckpointFrameAppendWord(bytes, text ? 1 : 0);
    if (!text)
        return;

    length = strlen(text);
    virCheckpointFrameAppendWord(bytes, (guint32)length);
    g_byte_array_append(bytes, (const guint8 *)text, (guint)length);
    g_byte_array_append(bytes, pad, (4 - length % 4) % 4);
}

virCheckpointFrame *
virCheckpointFrameNewError(const virCheckpointFrame *call,
                           gint code,
                           gint domain,
                           const gchar *message)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    virCheckpointFrame *reply = NULL;

    virCheckpointFrameAppendWord(payload, (guint32)code);
    virCheckpointFrameAppendWord(payload, (guint32)domain);
    virCheckpointFrameAppendOptString(payload, message);
    virCheckpointFrameAppendWord(payload, VIR_ERR_ERROR);
    virCheckpointFrameAppendWord(payload, 0); /* no domain object */
    virCheckpointFrameAppendOptString(payload, "%s");
    virCheckpointFrameAppendOptString(payload, message);
    virCheckpointFrameAppendOptString(payload, NULL);
    virCheckpointFrameAppendWord(payload, (guint32)-1);
    virCheckpointFrameAppendWord(payload, (guint32)-1);
    virCheckpointFrameAppendWord(payload, 0); /* no network object */

    reply = virCheckpointFrameNew(
        call->program, call->procedure, VIR_CHECKPOINT_FRAME_REPLY, call->serial,
        VIR_CHECKPOINT_FRAME_ERROR, payload->data, payload->len);
    reply->version = call->version;
    virCheckpointFramePutWord(reply->bytes->data + AT_VERSION, call->version);
    return reply;
}
