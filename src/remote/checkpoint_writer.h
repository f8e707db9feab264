/*
 * checkpoint_writer.h: packets to a socket
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_WRITER_H
#define VIR_CHECKPOINT_WRITER_H

#include "checkpoint_frame.h"

/** The queue of packets towards one peer. */
typedef struct virCheckpointWriter virCheckpointWriter;

typedef enum {
    VIR_CHECKPOINT_WRITER_EMPTY,   /* all is written */
    VIR_CHECKPOINT_WRITER_BLOCKED, /* the peer does not take more now */
    VIR_CHECKPOINT_WRITER_BROKEN,  /* the peer takes nothing any more */
    VIR_CHECKPOINT_WRITER_LAST
} virCheckpointWriterOutcome;

virCheckpointWriter *
virCheckpointWriterNew(void);
void
virCheckpointWriterFree(virCheckpointWriter *writer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointWriter, virCheckpointWriterFree)

/** Puts @frame (transfer full) behind what is queued. */
void
virCheckpointWriterPush(virCheckpointWriter *writer, virCheckpointFrame *frame);

/** Writes what the kernel takes without blocking. */
virCheckpointWriterOutcome
virCheckpointWriterFlush(virCheckpointWriter *writer, int fd);

/** Forgets what is queued. */
void
virCheckpointWriterClear(virCheckpointWriter *writer);

/** Bytes of packets queued; a packet counts until its last byte is written. */
gsize
virCheckpointWriterQueued(const virCheckpointWriter *writer);
/** Of these, bytes of packets that were made here. */
gsize
virCheckpointWriterQueuedOurs(const virCheckpointWriter *writer);

#endif
