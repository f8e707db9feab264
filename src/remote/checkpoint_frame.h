/*
 * checkpoint_frame.h: packets of libvirt's RPC
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_FRAME_H
#define VIR_CHECKPOINT_FRAME_H

#include <glib.h>

#define VIR_CHECKPOINT_FRAME_HEADER 28    /* length word and header, bytes */
#define VIR_CHECKPOINT_FRAME_MAX 33554436 /* largest length word */
#define VIR_CHECKPOINT_FRAME_MAX_FDS 32

#define VIR_CHECKPOINT_PROGRAM_REMOTE 0x20008086U
#define VIR_CHECKPOINT_PROGRAM_QEMU 0x20008087U
#define VIR_CHECKPOINT_PROGRAM_KEEPALIVE 0x6b656570U

typedef enum {
    VIR_CHECKPOINT_FRAME_CALL,
    VIR_CHECKPOINT_FRAME_REPLY,
    VIR_CHECKPOINT_FRAME_MESSAGE,
    VIR_CHECKPOINT_FRAME_STREAM,
    VIR_CHECKPOINT_FRAME_CALL_WITH_FDS,
    VIR_CHECKPOINT_FRAME_REPLY_WITH_FDS,
    VIR_CHECKPOINT_FRAME_STREAM_HOLE,
} virCheckpointFrameType;

typedef enum {
    VIR_CHECKPOINT_FRAME_OK,
    VIR_CHECKPOINT_FRAME_ERROR,
    VIR_CHECKPOINT_FRAME_CONTINUE,
} virCheckpointFrameStatus;

/** One packet: the bytes as they travel, the decoded header, and its descriptors. */
typedef struct virCheckpointFrame {
    GByteArray *bytes; /* length word, header, payload */
    guint32 program;
    guint32 version;
    gint32 procedure;
    gint32 type;
    guint32 serial;
    gint32 status;
    GArray *fds;   /* int, owned; NULL if none */
    gboolean ours; /* made by virCheckpointFrameNew(), not read from a peer */
} virCheckpointFrame;

void
virCheckpointFrameFree(virCheckpointFrame *frame);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(virCheckpointFrame, virCheckpointFrameFree)

/** A copy that owns duplicates of the descriptors. */
virCheckpointFrame *
virCheckpointFrameCopy(const virCheckpointFrame *frame);

/**
 * Payload after the header (for types 4/5 it begins with the descriptor count);
 * borrowed.
 */
const guint8 *
virCheckpointFramePayload(const virCheckpointFrame *frame, gsize *length);

/** Builds a packet; @payload is copied. */
virCheckpointFrame *
virCheckpointFrameNew(guint32 program,
                      gint32 procedure,
                      gint32 type,
                      guint32 serial,
                      gint32 status,
                      const guint8 *payload,
                      gsize length);

/**
 * virCheckpointFrameNewFromBytes:
 * @bytes: (transfer full): a whole packet, its length word right
 *
 * Decodes the header.  Returns: the frame, or NULL (and @bytes is freed) when there
 * are fewer bytes than a header has.
 */
virCheckpointFrame *
virCheckpointFrameNewFromBytes(GByteArray *bytes);

/** Writes another serial into the header, both decoded and as it travels. */
void
virCheckpointFrameSetSerial(virCheckpointFrame *frame, guint32 serial);

/** CALL or CALL_WITH_FDS. */
gboolean
virCheckpointFrameIsCall(const virCheckpointFrame *frame);
/** REPLY or REPLY_WITH_FDS. */
gboolean
virCheckpointFrameIsReply(const virCheckpointFrame *frame);

/** Big-endian words, anywhere in a buffer. */
guint32
virCheckpointFrameGetWord(const guint8 *at);
void
virCheckpointFramePutWord(guint8 *at, guint32 word);

/**
 * virCheckpointFrameNewError:
 * @call: the call to be answered; borrowed
 * @code: a virErrorNumber, not 0; @domain: a virErrorDomain; @message: the whole text
 *
 * An error reply under the caller's program, version, procedure and serial.
 * Source: the generic error structure of libvirt's protocol, fields in order: code,
 * domain, message, level, dom, str1, str2, str3, int1, int2, net.
 */
virCheckpointFrame *
virCheckpointFrameNewError(const virCheckpointFrame *call,
                           gint code,
                           gint domain,
                           const gchar *message);

#endif
