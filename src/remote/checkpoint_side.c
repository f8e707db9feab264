/*
 * checkpoint_side.c: one socket of a session, on the main context
 *
 * Joins a reader, a writer and a GSource.  The source asks poll for exactly what is
 * wanted: input while reading is on, output while something is queued.  One dispatch
 * takes a bounded amount from a peer, so that a flood from one does not starve others.
 *
 * Invariants: a peer that is gone for writing may still have left data, so a write
 * error drops the queue and reading goes on to the end.  poll reports a hang-up even
 * when nothing is asked for: the descriptor then leaves the source until it is wanted
 * again, or the loop would spin.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_side.h"

#include <unistd.h>

#include "checkpoint_reader.h"
#include "checkpoint_writer.h"

#define READ_BUDGET (512 * 1024)
#define READ_PACKETS 64

struct virCheckpointSide {
    int fd;
    virCheckpointReader *reader;
    virCheckpointWriter *writer;
    const virCheckpointSideFuncs *funcs;
    gpointer data;
    GSource *source;
    gpointer tag;      /* of fd in source, NULL while it is not polled */
    gboolean reading;  /* wanted by the owner */
    gboolean readOver; /* END or MALFORMED was told */
    gboolean writeOver;
    gboolean hungUp; /* seen while reading was off: not polled until it is on */
};

typedef struct virCheckpointSideSource {
    GSource source;
    virCheckpointSide *side;
} virCheckpointSideSource;

static void
virCheckpointSideUpdate(virCheckpointSide *side)
{
    GIOCondition want = 0;

    if (side->fd < 0)
        return;

    if (side->reading && !side->readOver)
        want |= G_IO_IN;
    if (!side->writeOver && virCheckpointWriterQueued(side->writer) > 0)
        want |= G_IO_OUT;

    if (want == 0 && (side->hungUp || side->readOver)) {
        if (side->tag)
            g_source_remove_unix_fd(side->source, side->tag);
        side->tag = NULL;
    } else if (!side->tag) {
        side->tag = g_source_add_unix_fd(side->source, side->fd, want);
    } else {
        g_source_modify_unix_fd(side->source, side->tag, want);
    }
}

static void
virCheckpointSideFlush(virCheckpointSide *side)
{
    gsize before = virCheckpointWriterQueued(side->writer);

    if (side->writeOver || before == 0)
        return;

    if (virCheckpointWriterFlush(side->writer, side->fd) ==
        VIR_CHECKPOINT_WRITER_BROKEN) {
        side->writeOver = TRUE;
        virCheckpointWriterClear(side->writer);
    }
    if (virCheckpointWriterQueued(side->writer) < before)
        side->funcs->written(side, side->data);
}

static void
virCheckpointSideEnd(virCheckpointSide *side, virCheckpointReaderOutcome rc)
{
    side->readOver = TRUE;
    side->funcs->ended(side,
                       rc == VIR_CHECKPOINT_READER_MALFORMED
                           ? VIR_CHECKPOINT_SIDE_MALFORMED
                           : VIR_CHECKPOINT_SIDE_END,
                       side->data);
}

static void
virCheckpointSideRead(virCheckpointSide *side)
{
    gsize bytes = 0;
    guint packets = 0;

    while (side->fd >= 0 && side->reading && !side->readOver && bytes < READ_BUDGET &&
           packets < READ_PACKETS) {
        virCheckpointFrame *frame = NULL;
        virCheckpointReaderOutcome rc =
            virCheckpointReaderRead(side->reader, side->fd, &frame);

        if (rc == VIR_CHECKPOINT_READER_MORE)
            return;
        if (rc != VIR_CHECKPOINT_READER_FRAME) {
            virCheckpointSideEnd(side, rc);
            return;
        }
        bytes += frame->bytes->len;
        packets++;
        side->funcs->frame(side, frame, side->data);
    }
}

static gboolean
virCheckpointSideDispatch(GSource *source, GSourceFunc callback, gpointer data)
{
    virCheckpointSide *side = ((virCheckpointSideSource *)source)->side;
    GIOCondition got = 0;

    /* Another source of the same iteration may have stopped this one. */
    if (!side->tag)
        return G_SOURCE_CONTINUE;

    got = g_source_query_unix_fd(source, side->tag);
    virCheckpointSideFlush(side);
    if (got & (G_IO_IN | G_IO_HUP | G_IO_ERR))
        virCheckpointSideRead(side);
    if (side->fd >= 0 && (got & (G_IO_HUP | G_IO_ERR)) && !side->reading &&
        !side->readOver) {
        side->hungUp = TRUE;
        side->funcs->gone(side, side->data);
    }
    virCheckpointSideUpdate(side);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs virCheckpointSideSourceFuncs = {
    .dispatch = virCheckpointSideDispatch,
};

/* The source's callback is never called: it is there for its data, which GLib holds a
 * reference on while the source is dispatched. */
static gboolean
virCheckpointSideNoCallback(gpointer data)
{
    return G_SOURCE_CONTINUE;
}

virCheckpointSide *
virCheckpointSideNew(int fd,
                     const virCheckpointSideFuncs *funcs,
                     gpointer data,
                     gpointer (*ref)(gpointer data),
                     GDestroyNotify unref)
{
    virCheckpointSide *side = g_new0(virCheckpointSide, 1);

    side->fd = fd;
    side->funcs = funcs;
    side->data = data;
    side->reader = virCheckpointReaderNew();
    side->writer = virCheckpointWriterNew();
    side->source =
        g_source_new(&virCheckpointSideSourceFuncs, sizeof(virCheckpointSideSource));
    ((virCheckpointSideSource *)side->source)->side = side;
    g_source_set_static_name(side->source, "virCheckpointSide");
    g_source_set_callback(side->source, virCheckpointSideNoCallback, ref(data), unref);
    virCheckpointSideUpdate(side);
    g_source_attach(side->source, NULL);
    return side;
}

void
virCheckpointSideClose(virCheckpointSide *side)
{
    g_autoptr(GSource) source = g_steal_pointer(&side->source);

    if (side->fd < 0)
        return;

    /* The descriptor first: destroying the source may drop the owner's last reference,
     * and with it this side. */
    side->tag = NULL;
    close(side->fd);
    side->fd = -1;
    virCheckpointWriterClear(side->writer);
    g_source_destroy(source);
}

void
virCheckpointSideFree(virCheckpointSide *side)
{
    if (!side)
        return;

    virCheckpointSideClose(side);
    virCheckpointReaderFree(side->reader);
    virCheckpointWriterFree(side->writer);
    g_free(side);
}

void
virCheckpointSideSetReading(virCheckpointSide *side, gboolean reading)
{
    if (side->reading == reading)
        return;

    side->reading = reading;
    if (reading)
        side->hungUp = FALSE;
    virCheckpointSideUpdate(side);
}

void
virCheckpointSideSend(virCheckpointSide *side, virCheckpointFrame *frame)
{
    if (side->fd < 0 || side->writeOver) {
        virCheckpointFrameFree(frame);
        return;
    }

    virCheckpointWriterPush(side->writer, frame);
    if (virCheckpointWriterQueued(side->writer) == frame->bytes->len)
        virCheckpointSideFlush(side);
    virCheckpointSideUpdate(side);
}

gsize
virCheckpointSideQueued(const virCheckpointSide *side)
{
    return virCheckpointWriterQueued(side->writer);
}

gsize
virCheckpointSideQueuedOurs(const virCheckpointSide *side)
{
    return virCheckpointWriterQueuedOurs(side->writer);
}

gsize
virCheckpointSidePending(const virCheckpointSide *side)
{
    return virCheckpointReaderPending(side->reader);
}
