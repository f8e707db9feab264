/*
 * checkpoint_side.h: one socket of a session, on the main context
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_SIDE_H
#define VIR_CHECKPOINT_SIDE_H

#include "checkpoint_frame.h"

typedef struct virCheckpointSide virCheckpointSide;

typedef enum {
    VIR_CHECKPOINT_SIDE_END,       /* the peer closed, nothing more will be read */
    VIR_CHECKPOINT_SIDE_MALFORMED, /* the peer does not speak libvirt's protocol */
    VIR_CHECKPOINT_SIDE_LAST
} virCheckpointSideReason;

typedef struct virCheckpointSideFuncs {
    /** A packet was read. @frame: (transfer full). */
    void (*frame)(virCheckpointSide *side, virCheckpointFrame *frame, gpointer data);
    /** Some or all of the queue was written, or dropped because the peer is gone. */
    void (*written)(virCheckpointSide *side, gpointer data);
    /** Reading is over; comes once. */
    void (*ended)(virCheckpointSide *side, virCheckpointSideReason why, gpointer data);
    /** The peer has closed while reading was off: what it sent before may be unread.
     * May come again. */
    void (*gone)(virCheckpointSide *side, gpointer data);
} virCheckpointSideFuncs;

/**
 * virCheckpointSideNew:
 * @fd: taken over
 * @data: for @funcs; @ref and @unref keep it alive while one of them runs
 *
 * Reading is off at first.  Thread: main, as all functions here.
 */
virCheckpointSide *
virCheckpointSideNew(int fd,
                     const virCheckpointSideFuncs *funcs,
                     gpointer data,
                     gpointer (*ref)(gpointer data),
                     GDestroyNotify unref);
/** Detaches from the main context and closes the socket; no function is called after.
 */
void
virCheckpointSideClose(virCheckpointSide *side);
/** Closes if need be and frees. */
void
virCheckpointSideFree(virCheckpointSide *side);

/** Back-pressure: whether packets are taken from the peer. */
void
virCheckpointSideSetReading(virCheckpointSide *side, gboolean reading);

/** Writes, or queues what the peer does not take now. @frame: (transfer full). */
void
virCheckpointSideSend(virCheckpointSide *side, virCheckpointFrame *frame);

/** Bytes queued for the peer; of these, bytes of packets made here. */
gsize
virCheckpointSideQueued(const virCheckpointSide *side);
gsize
virCheckpointSideQueuedOurs(const virCheckpointSide *side);
/** Memory of the packet being read. */
gsize
virCheckpointSidePending(const virCheckpointSide *side);

#endif
