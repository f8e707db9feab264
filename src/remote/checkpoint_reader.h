/*
 * checkpoint_reader.h: packets from a socket
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_READER_H
#define VIR_CHECKPOINT_READER_H

#include "checkpoint_frame.h"

/** Puts one direction of a socket together to packets. */
typedef struct virCheckpointReader virCheckpointReader;

typedef enum {
    VIR_CHECKPOINT_READER_FRAME,  /* a whole packet */
    VIR_CHECKPOINT_READER_MORE,   /* nothing more to read now */
    VIR_CHECKPOINT_READER_END,    /* the peer closed between two packets */
    VIR_CHECKPOINT_READER_BROKEN, /* the peer went away inside a packet, or an errno */
    VIR_CHECKPOINT_READER_MALFORMED, /* no packet of libvirt's */
    VIR_CHECKPOINT_READER_LAST
} virCheckpointReaderOutcome;

virCheckpointReader *
virCheckpointReaderNew(void);
void
virCheckpointReaderFree(virCheckpointReader *reader);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointReader, virCheckpointReaderFree)

/**
 * virCheckpointReaderRead:
 * @fd: a connected AF_UNIX stream socket; never blocks on it
 * @frame: (out) (transfer full): set with VIR_CHECKPOINT_READER_FRAME only
 *
 * After END, BROKEN or MALFORMED the reader is of no more use.  Never reads past the
 * packet, so that a descriptor's byte is not read without its descriptor.
 */
virCheckpointReaderOutcome
virCheckpointReaderRead(virCheckpointReader *reader,
                        int fd,
                        virCheckpointFrame **frame);

/** Bytes of memory that the packet being read takes. */
gsize
virCheckpointReaderPending(const virCheckpointReader *reader);

#endif
