/*
 * checkpoint_connections.c: a connection to the backend for each operation
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: libvirt's client lets threads share a connection, but its 9.0 loses wake-ups
 * while one of them waits for a guest that does not answer: every call of the others
 * then takes seconds.  So an operation has a connection of its own, and one hung guest
 * concerns nobody else.  Opening one costs some five calls; a few that are done with
 * are kept for the next.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"

/** Idle connections that are kept. */
#define IDLE_MAX 8

static virConnectPtr
virCheckpointEngineTakeIdle(virCheckpointEngine *engine)
{
    virConnectPtr conn;

    g_mutex_lock(&engine->lock);
    conn = g_queue_pop_head(&engine->idle);
    g_mutex_unlock(&engine->lock);
    return conn;
}

virConnectPtr
virCheckpointEngineConnect(virCheckpointEngine *engine, GError **error)
{
    virConnectPtr conn;

    if (!virCheckpointEngineWatch(engine, error))
        return NULL;
    while ((conn = virCheckpointEngineTakeIdle(engine))) {
        if (virConnectIsAlive(conn) == 1)
            return conn;
        virConnectClose(conn);
    }
    if (!(conn = virConnectOpen(engine->uri)))
        virCheckpointDomainSetError(error);
    return conn;
}

void
virCheckpointEngineDisconnect(virCheckpointEngine *engine, virConnectPtr conn)
{
    gboolean kept = FALSE;

    if (!conn)
        return;
    g_mutex_lock(&engine->lock);
    if (!engine->stopping && engine->idle.length < IDLE_MAX) {
        g_queue_push_head(&engine->idle, conn);
        kept = TRUE;
    }
    g_mutex_unlock(&engine->lock);
    if (!kept)
        virConnectClose(conn);
}

void
virCheckpointEngineCloseIdle(virCheckpointEngine *engine)
{
    virConnectPtr conn;

    while ((conn = virCheckpointEngineTakeIdle(engine)))
        virConnectClose(conn);
}
