/*
 * checkpoint_starting.c: starts that were let through and that libvirt does not show
 * yet
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a start through us is passed on when its domain is settled, and libvirt shows
 * the domain active as soon as it has the call.  In between whoever takes the domain's
 * slot sees a guest that is off and opens its images, and QEMU, which finds them
 * locked, ends.  So from before the settling on a guest that is off counts as starting,
 * until libvirt has had time enough to show it.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"

/* From passing the call on until libvirt shows the domain active: a millisecond, unless
 * all of libvirt's workers are busy. */
#define STARTING_SHOWN_MS 1000

static gboolean
virCheckpointStartingIsOver(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    (void)data;
    return *(const gint64 *)value <= g_get_monotonic_time();
}

static void
virCheckpointStartingSet(virCheckpointEngine *engine, const gchar *uuid, gint64 until)
{
    gint64 *value = g_new(gint64, 1);

    *value = until;
    g_mutex_lock(&engine->lock);
    g_hash_table_foreach_remove(engine->starting, virCheckpointStartingIsOver, NULL);
    g_hash_table_insert(engine->starting, g_strdup(uuid), value);
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointEngineStartComes(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointStartingSet(engine, uuid, G_MAXINT64);
}

void
virCheckpointEngineStartGoes(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointStartingSet(engine, uuid,
                             g_get_monotonic_time() + STARTING_SHOWN_MS * 1000);
}

void
virCheckpointEngineStartRefused(virCheckpointEngine *engine, const gchar *uuid)
{
    g_mutex_lock(&engine->lock);
    g_hash_table_remove(engine->starting, uuid);
    g_mutex_unlock(&engine->lock);
}

gboolean
virCheckpointEngineIsStarting(virCheckpointEngine *engine, const gchar *uuid)
{
    const gint64 *until;
    gboolean starting;

    g_mutex_lock(&engine->lock);
    until = g_hash_table_lookup(engine->starting, uuid);
    starting = until && g_get_monotonic_time() < *until;
    g_mutex_unlock(&engine->lock);
    return starting;
}

void
virCheckpointStartingInit(virCheckpointEngine *engine)
{
    engine->starting = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

void
virCheckpointStartingFini(virCheckpointEngine *engine)
{
    g_hash_table_unref(engine->starting);
}
