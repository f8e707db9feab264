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

/* The starts of one domain. */
typedef struct virCheckpointStarting virCheckpointStarting;
struct virCheckpointStarting {
    guint coming; /* that are not passed on yet */
    gint64 until; /* when the last one that was is shown */
};

static gboolean
virCheckpointStartingIsOver(const virCheckpointStarting *starting)
{
    return starting->coming == 0 && starting->until <= g_get_monotonic_time();
}

static gboolean
virCheckpointStartingForget(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    (void)data;
    return virCheckpointStartingIsOver(value);
}

void
virCheckpointEngineStartComes(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointStarting *starting;

    g_mutex_lock(&engine->lock);
    g_hash_table_foreach_remove(engine->starting, virCheckpointStartingForget, NULL);
    if (!(starting = g_hash_table_lookup(engine->starting, uuid))) {
        starting = g_new0(virCheckpointStarting, 1);
        g_hash_table_insert(engine->starting, g_strdup(uuid), starting);
    }
    starting->coming++;
    g_mutex_unlock(&engine->lock);
}

static void
virCheckpointStartingCame(virCheckpointEngine *engine, const gchar *uuid, gint64 until)
{
    virCheckpointStarting *starting;

    g_mutex_lock(&engine->lock);
    starting = g_hash_table_lookup(engine->starting, uuid);
    starting->coming--;
    starting->until = MAX(starting->until, until);
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointEngineStartGoes(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointStartingCame(engine, uuid,
                              g_get_monotonic_time() + STARTING_SHOWN_MS * 1000);
}

void
virCheckpointEngineStartRefused(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointStartingCame(engine, uuid, 0);
}

gboolean
virCheckpointEngineIsStarting(virCheckpointEngine *engine, const gchar *uuid)
{
    const virCheckpointStarting *starting;
    gboolean is;

    g_mutex_lock(&engine->lock);
    starting = g_hash_table_lookup(engine->starting, uuid);
    is = starting && !virCheckpointStartingIsOver(starting);
    g_mutex_unlock(&engine->lock);
    return is;
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
