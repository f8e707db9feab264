/*
 * checkpoint_reader.c: packets from a socket
 *
 * The safe way to read libvirt's packets: exactly 4 bytes, exactly the rest of the
 * length, then for each announced descriptor one recvmsg of exactly one byte with room
 * for its control message.  A plain read over a descriptor's byte would close the
 * descriptor silently, and one read too long would glue it to other bytes.
 *
 * Invariants: the buffer never holds more than the current packet; it grows with what
 * has come (at most doubling), never to a length that was merely claimed; descriptors
 * read so far belong to the reader until their packet is whole.  Nothing survives a
 * crash, nor needs to.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_reader.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK (64 * 1024)

struct virCheckpointReader {
    GByteArray *bytes;
    guint32 length; /* of the packet, 0 while the length word is incomplete */
    virCheckpointFrame *frame; /* whole but for its descriptors */
    guint fdsWanted;
};

virCheckpointReader *
virCheckpointReaderNew(void)
{
    virCheckpointReader *reader = g_new0(virCheckpointReader, 1);

    reader->bytes = g_byte_array_new();
    return reader;
}

void
virCheckpointReaderFree(virCheckpointReader *reader)
{
    if (!reader)
        return;

    virCheckpointFrameFree(reader->frame);
    g_byte_array_unref(reader->bytes);
    g_free(reader);
}

gsize
virCheckpointReaderPending(const virCheckpointReader *reader)
{
    return reader->bytes->len + (reader->frame ? reader->frame->bytes->len : 0);
}

/* What a failed or empty receive means, inside or between packets. */
static virCheckpointReaderOutcome
virCheckpointReaderNothing(const virCheckpointReader *reader, gssize got)
{
    if (got == 0)
        return virCheckpointReaderPending(reader) > 0 ? VIR_CHECKPOINT_READER_BROKEN
                                                      : VIR_CHECKPOINT_READER_END;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return VIR_CHECKPOINT_READER_MORE;
    return VIR_CHECKPOINT_READER_BROKEN;
}

/* Reads until the buffer holds @want bytes. */
static virCheckpointReaderOutcome
virCheckpointReaderFill(virCheckpointReader *reader, int fd, guint want)
{
    GByteArray *bytes = reader->bytes;

    while (bytes->len < want) {
        guint have = bytes->len;
        guint chunk = MIN(want - have, MAX(have, (guint)READ_CHUNK));
        gssize got = 0;

        g_byte_array_set_size(bytes, have + chunk);
        do {
            got = recv(fd, bytes->data + have, chunk, MSG_DONTWAIT);
        } while (got < 0 && errno == EINTR);
        g_byte_array_set_size(bytes, have + (guint)MAX(got, 0));

        if (got <= 0)
            return virCheckpointReaderNothing(reader, got);
    }
    return VIR_CHECKPOINT_READER_FRAME;
}

static virCheckpointReaderOutcome
virCheckpointReaderLength(virCheckpointReader *reader, int fd)
{
    virCheckpointReaderOutcome rc = virCheckpointReaderFill(reader, fd, 4);
    guint32 length = 0;

    if (rc != VIR_CHECKPOINT_READER_FRAME)
        return rc;

    length = virCheckpointFrameGetWord(reader->bytes->data);
    if (length < VIR_CHECKPOINT_FRAME_HEADER || length > VIR_CHECKPOINT_FRAME_MAX)
        return VIR_CHECKPOINT_READER_MALFORMED;

    reader->length = length;
    return VIR_CHECKPOINT_READER_FRAME;
}

static virCheckpointReaderOutcome
virCheckpointReaderBody(virCheckpointReader *reader, int fd)
{
    virCheckpointReaderOutcome rc = virCheckpointReaderFill(reader, fd, reader->length);
    const guint8 *payload = NULL;
    gsize length = 0;

    if (rc != VIR_CHECKPOINT_READER_FRAME)
        return rc;

    reader->frame = virCheckpointFrameNewFromBytes(g_steal_pointer(&reader->bytes));
    reader->bytes = g_byte_array_new();
    reader->length = 0;
    reader->fdsWanted = 0;
    if (reader->frame->type != VIR_CHECKPOINT_FRAME_CALL_WITH_FDS &&
        reader->frame->type != VIR_CHECKPOINT_FRAME_REPLY_WITH_FDS)
        return VIR_CHECKPOINT_READER_FRAME;

    payload = virCheckpointFramePayload(reader->frame, &length);
    if (length < 4)
        return VIR_CHECKPOINT_READER_MALFORMED;
    reader->fdsWanted = virCheckpointFrameGetWord(payload);
    if (reader->fdsWanted > VIR_CHECKPOINT_FRAME_MAX_FDS)
        return VIR_CHECKPOINT_READER_MALFORMED;
    if (reader->fdsWanted > 0)
        reader->frame->fds = g_array_new(FALSE, FALSE, sizeof(int));
    return VIR_CHECKPOINT_READER_FRAME;
}

/* Moves all descriptors of @msg to the frame; returns how many there were. */
static guint
virCheckpointReaderTakeFds(virCheckpointReader *reader, struct msghdr *msg)
{
    struct cmsghdr *cmsg = NULL;
    guint taken = 0;

    for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        gsize count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        gsize i;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        for (i = 0; i < count; i++) {
            int fd = -1;

            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
            g_array_append_val(reader->frame->fds, fd);
            taken++;
        }
    }
    return taken;
}

static virCheckpointReaderOutcome
virCheckpointReaderCarrier(virCheckpointReader *reader, int fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    guint8 byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    gssize got = 0;

    do {
        got = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got <= 0)
        return virCheckpointReaderNothing(reader, got);

    /* MSG_CTRUNC: more descriptors than fit, or this process has no room for one. */
    if (virCheckpointReaderTakeFds(reader, &msg) != 1 || (msg.msg_flags & MSG_CTRUNC))
        return VIR_CHECKPOINT_READER_MALFORMED;

    return VIR_CHECKPOINT_READER_FRAME;
}

virCheckpointReaderOutcome
virCheckpointReaderRead(virCheckpointReader *reader, int fd, virCheckpointFrame **frame)
{
    virCheckpointReaderOutcome rc = VIR_CHECKPOINT_READER_FRAME;

    if (!reader->frame && reader->length == 0)
        rc = virCheckpointReaderLength(reader, fd);
    if (rc == VIR_CHECKPOINT_READER_FRAME && !reader->frame)
        rc = virCheckpointReaderBody(reader, fd);
    while (rc == VIR_CHECKPOINT_READER_FRAME && reader->frame->fds &&
           reader->frame->fds->len < reader->fdsWanted)
        rc = virCheckpointReaderCarrier(reader, fd);
    if (rc == VIR_CHECKPOINT_READER_FRAME)
        *frame = g_steal_pointer(&reader->frame);

    return rc;
}
