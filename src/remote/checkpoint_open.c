/*
 * checkpoint_open.c: what the gateway reads in packets around CONNECT_OPEN
 *
 * Two questions decide what a session may do: was it opened read-only, and is its
 * driver QEMU.  The arguments of CONNECT_OPEN are an optional string and the flags
 * word; the reply of CONNECT_GET_TYPE is a string.  Any non-zero word means "present",
 * bytes behind the arguments are ignored, and a call may announce descriptors it does
 * not need: all as libvirt's server takes it, for a packet that means read-write to it
 * must never mean less to us.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_open.h"

#include <string.h>

gboolean
virCheckpointOpenIsCall(const virCheckpointFrame *frame)
{
    return virCheckpointFrameIsCall(frame) &&
           frame->program == VIR_CHECKPOINT_PROGRAM_REMOTE &&
           frame->procedure == VIR_CHECKPOINT_PROC_CONNECT_OPEN;
}

/* Where in the packet the flags are; 0 if it is too short to have any. */
static gsize
virCheckpointOpenFlagsAt(const virCheckpointFrame *frame)
{
    const guint8 *data = frame->bytes->data;
    gsize end = frame->bytes->len;
    gsize at = VIR_CHECKPOINT_FRAME_HEADER;

    if (frame->type == VIR_CHECKPOINT_FRAME_CALL_WITH_FDS)
        at += 4;
    if (end < at + 4)
        return 0;

    if (virCheckpointFrameGetWord(data + at) != 0) {
        gsize length = 0;

        at += 4;
        if (end < at + 4)
            return 0;
        length = virCheckpointFrameGetWord(data + at);
        at += (length + 3) / 4 * 4;
    }
    at += 4;
    return end < at + 4 ? 0 : at;
}

gboolean
virCheckpointOpenGetFlags(const virCheckpointFrame *frame, guint32 *flags)
{
    gsize at = virCheckpointOpenFlagsAt(frame);

    if (at == 0)
        return FALSE;

    *flags = virCheckpointFrameGetWord(frame->bytes->data + at);
    return TRUE;
}

gboolean
virCheckpointOpenAddFlags(virCheckpointFrame *frame, guint32 flags)
{
    gsize at = virCheckpointOpenFlagsAt(frame);
    guint8 *data = frame->bytes->data;

    if (at == 0)
        return FALSE;

    virCheckpointFramePutWord(data + at, virCheckpointFrameGetWord(data + at) | flags);
    return TRUE;
}

gboolean
virCheckpointOpenTypeIs(const virCheckpointFrame *reply, const gchar *type)
{
    gsize length = 0;
    const guint8 *payload = virCheckpointFramePayload(reply, &length);
    gsize wanted = strlen(type);

    return reply->status == VIR_CHECKPOINT_FRAME_OK && length >= 4 + wanted &&
           virCheckpointFrameGetWord(payload) == wanted &&
           memcmp(payload + 4, type, wanted) == 0;
}
