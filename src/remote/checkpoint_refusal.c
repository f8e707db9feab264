/*
 * checkpoint_refusal.c: clients that cannot be connected to the backend
 *
 * A client that may not open libvirt's socket, or finds no daemon behind it, has
 * already connected to us.  Closing its socket at once would show as "connection
 * reset"; so its first call, whatever it is, is answered with the error that a
 * connect() to libvirt's socket would have given, and then the socket is closed.  A
 * client that sends nothing is closed after a few seconds.
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "checkpoint_refusal.h"

#include <libvirt/virterror.h>

#include "checkpoint_side.h"

#define REFUSAL_TIMEOUT_SEC 10

typedef struct virCheckpointRefusal {
    gint refs; /* the timer's and the socket source's */
    virCheckpointSide *side;
    GSource *timer;
    gint code;
    gchar *message;
    gboolean answered;
} virCheckpointRefusal;

static gpointer
virCheckpointRefusalRef(gpointer data)
{
    virCheckpointRefusal *refusal = data;

    refusal->refs++;
    return refusal;
}

static void
virCheckpointRefusalUnref(gpointer data)
{
    virCheckpointRefusal *refusal = data;

    if (--refusal->refs > 0)
        return;

    virCheckpointSideFree(refusal->side);
    g_source_unref(refusal->timer);
    g_free(refusal->message);
    g_free(refusal);
}

static void
virCheckpointRefusalEnd(virCheckpointRefusal *refusal)
{
    virCheckpointRefusalRef(refusal);
    g_source_destroy(refusal->timer);
    virCheckpointSideClose(refusal->side);
    virCheckpointRefusalUnref(refusal);
}

static void
virCheckpointRefusalFrame(virCheckpointSide *side,
                          virCheckpointFrame *frame,
                          gpointer data)
{
    virCheckpointRefusal *refusal = data;
    g_autoptr(virCheckpointFrame) owned = frame;

    if (refusal->answered || !virCheckpointFrameIsCall(frame))
        return;

    refusal->answered = TRUE;
    virCheckpointSideSend(side,
                          virCheckpointFrameNewError(frame, refusal->code, VIR_FROM_RPC,
                                                     refusal->message));
    if (virCheckpointSideQueued(side) == 0)
        virCheckpointRefusalEnd(refusal);
}

static void
virCheckpointRefusalWritten(virCheckpointSide *side, gpointer data)
{
}

static void
virCheckpointRefusalEnded(virCheckpointSide *side,
                          virCheckpointSideReason why,
                          gpointer data)
{
    virCheckpointRefusalEnd(data);
}

static void
virCheckpointRefusalGone(virCheckpointSide *side, gpointer data)
{
    virCheckpointRefusalEnd(data);
}

static const virCheckpointSideFuncs virCheckpointRefusalFuncs = {
    .frame = virCheckpointRefusalFrame,
    .written = virCheckpointRefusalWritten,
    .ended = virCheckpointRefusalEnded,
    .gone = virCheckpointRefusalGone,
};

static gboolean
virCheckpointRefusalTimeout(gpointer data)
{
    virCheckpointRefusalEnd(data);
    return G_SOURCE_REMOVE;
}

void
virCheckpointRefuse(int fd, gint code, const gchar *message)
{
    virCheckpointRefusal *refusal = g_new0(virCheckpointRefusal, 1);

    refusal->code = code;
    refusal->message = g_strdup(message);
    refusal->timer = g_timeout_source_new_seconds(REFUSAL_TIMEOUT_SEC);
    g_source_set_callback(refusal->timer, virCheckpointRefusalTimeout,
                          virCheckpointRefusalRef(refusal), virCheckpointRefusalUnref);
    refusal->side =
        virCheckpointSideNew(fd, &virCheckpointRefusalFuncs, refusal,
                             virCheckpointRefusalRef, virCheckpointRefusalUnref);
    virCheckpointSideSetReading(refusal->side, TRUE);
    g_source_attach(refusal->timer, NULL);
}
