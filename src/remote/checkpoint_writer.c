/*
 * checkpoint_writer.c: packets to a socket
 *
 * A queue of whole packets.  The bytes of a packet are written plainly; each of its
 * descriptors follows in a sendmsg of its own with one zero byte: both libvirt ends
 * drop a peer that sends two descriptors together or attaches one to packet bytes.
 *
 * Invariants: packets leave whole and in the order they came; the descriptors of a
 * packet stay open until it has left.  How long the queue may get is the caller's
 * decision, who stops reading from the other side.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_writer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

struct virCheckpointWriter {
    GQueue frames; /* virCheckpointFrame, owned */
    gsize offset;  /* bytes of the first packet that are written */
    guint fdsSent; /* descriptors of the first packet that are sent */
    gsize queued;
    gsize queuedOurs;
};

virCheckpointWriter *
virCheckpointWriterNew(void)
{
    return g_new0(virCheckpointWriter, 1);
}

void
virCheckpointWriterFree(virCheckpointWriter *writer)
{
    if (!writer)
        return;

    virCheckpointWriterClear(writer);
    g_free(writer);
}

void
virCheckpointWriterClear(virCheckpointWriter *writer)
{
    virCheckpointFrame *frame = NULL;

    while ((frame = g_queue_pop_head(&writer->frames)))
        virCheckpointFrameFree(frame);
    writer->offset = 0;
    writer->fdsSent = 0;
    writer->queued = 0;
    writer->queuedOurs = 0;
}

gsize
virCheckpointWriterQueued(const virCheckpointWriter *writer)
{
    return writer->queued;
}

gsize
virCheckpointWriterQueuedOurs(const virCheckpointWriter *writer)
{
    return writer->queuedOurs;
}

void
virCheckpointWriterPush(virCheckpointWriter *writer, virCheckpointFrame *frame)
{
    writer->queued += frame->bytes->len;
    if (frame->ours)
        writer->queuedOurs += frame->bytes->len;
    g_queue_push_tail(&writer->frames, frame);
}

static virCheckpointWriterOutcome
virCheckpointWriterFailed(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK ? VIR_CHECKPOINT_WRITER_BLOCKED
                                                   : VIR_CHECKPOINT_WRITER_BROKEN;
}

static virCheckpointWriterOutcome
virCheckpointWriterBytes(virCheckpointWriter *writer,
                         const virCheckpointFrame *frame,
                         int fd)
{
    while (writer->offset < frame->bytes->len) {
        gssize sent =
            send(fd, frame->bytes->data + writer->offset,
                 frame->bytes->len - writer->offset, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent >= 0)
            writer->offset += (gsize)sent;
        else if (errno != EINTR)
            return virCheckpointWriterFailed();
    }
    return VIR_CHECKPOINT_WRITER_EMPTY;
}

static virCheckpointWriterOutcome
virCheckpointWriterCarrier(int fd, int passed)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    guint8 byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    gssize sent = 0;

    if (passed < 0)
        return VIR_CHECKPOINT_WRITER_BROKEN;

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &passed, sizeof(int));
    do {
        sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);

    /* ETOOMANYREFS: too many descriptors in flight for this user.  The peer has to take
     * some first, but nothing wakes us then: the session ends instead of hanging. */
    return sent == 1 ? VIR_CHECKPOINT_WRITER_EMPTY : virCheckpointWriterFailed();
}

static virCheckpointWriterOutcome
virCheckpointWriterFrame(virCheckpointWriter *writer,
                         const virCheckpointFrame *frame,
                         int fd)
{
    virCheckpointWriterOutcome rc = virCheckpointWriterBytes(writer, frame, fd);

    while (rc == VIR_CHECKPOINT_WRITER_EMPTY && frame->fds &&
           writer->fdsSent < frame->fds->len) {
        rc = virCheckpointWriterCarrier(
            fd, g_array_index(frame->fds, int, writer->fdsSent));
        if (rc == VIR_CHECKPOINT_WRITER_EMPTY)
            writer->fdsSent++;
    }
    return rc;
}

virCheckpointWriterOutcome
virCheckpointWriterFlush(virCheckpointWriter *writer, int fd)
{
    virCheckpointFrame *frame = NULL;

    while ((frame = g_queue_peek_head(&writer->frames))) {
        virCheckpointWriterOutcome rc = virCheckpointWriterFrame(writer, frame, fd);

        if (rc != VIR_CHECKPOINT_WRITER_EMPTY)
            return rc;

        writer->queued -= frame->bytes->len;
        if (frame->ours)
            writer->queuedOurs -= frame->bytes->len;
        writer->offset = 0;
        writer->fdsSent = 0;
        virCheckpointFrameFree(g_queue_pop_head(&writer->frames));
    }
    return VIR_CHECKPOINT_WRITER_EMPTY;
}
