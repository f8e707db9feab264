/*
 * dispatchfake.h: a session, a libvirt and an engine that do what a test says
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef VIR_CHECKPOINT_DISPATCHFAKE_H
#define VIR_CHECKPOINT_DISPATCHFAKE_H

#include "checkpoint_dispatch.h"
#include "checkpoint_wire.h"

#define FAKE_UUID "11111111-2222-4333-8444-555555555555"
/** Under which libvirt knows the engine's 'a' during a backup. */
#define FAKE_BACKUP_NAME "virtcheckpoint.0123456789abcdef0123456789abcdef"

/** One session.  Its libvirt authorises everything unless told otherwise and has the
 * checkpoint 'theirs'. */
struct virCheckpointClient {
    gint refs;
    gboolean readOnly;
    gpointer data;
    GDestroyNotify freeData;
    gboolean off;            /* the domain's state */
    gint denied;             /* the code that questions are answered with; 0: none */
    const gchar *deniedText; /* its str2 */
    gboolean ended;          /* questions get no answer */
    GMutex lock;
    GCond changed;
    GPtrArray *sent;      /* virCheckpointFrame* */
    GPtrArray *forwarded; /* virCheckpointFrame* */
    GArray *asked;        /* gint: procedures */
    const virCheckpointFrame *watched;
    gpointer tag;
    GDestroyNotify freeTag;
};

/** What the engine was asked to do: one line each in log. */
struct virCheckpointEngine {
    GMutex lock;
    GCond changed;
    GPtrArray *log;
    GPtrArray *names;  /* "name" or "name<parent" */
    gint failure;      /* code of the next error, or 0 */
    gboolean hold;     /* create waits until it is FALSE */
    const gchar *disk; /* with a mirror, or NULL */
    gboolean gone;     /* the mirror ends while calls wait */
    gboolean emits;    /* abort: emit an event first */
    virCheckpointDispatch *dispatch;
};

virCheckpointClient *
fakeClientNew(void);
virCheckpointEngine *
fakeEngineNew(const gchar *names);
void
fakeEngineFree(virCheckpointEngine *engine);
/** The log's lines, joined by '|', and emptied. */
gchar *
fakeEngineLog(virCheckpointEngine *engine);

/** A call; @bytes is taken. */
virCheckpointFrame *
fakeCall(gint procedure, guint serial, GBytes *bytes);
/** Waits until @client was sent, or had forwarded, @count packets. */
virCheckpointFrame *
fakeWaitSent(virCheckpointClient *client, guint count);
virCheckpointFrame *
fakeWaitForwarded(virCheckpointClient *client, guint count);

#endif
