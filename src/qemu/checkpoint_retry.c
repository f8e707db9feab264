/*
 * checkpoint_retry.c: what failed is settled without being asked
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: an operation that fails half way leaves its domain unsettled, and the next
 * one settles.  There may be none for a day, and a frozen bitmap that waits in QEMU for
 * its sidecar dies with it: so a timer of the main context has it tried on the pool, at
 * doubling intervals until nothing fails.
 */

#include "config.h"

#include "checkpoint_enginepriv.h"

#define RETRY_FIRST_SEC 2
#define RETRY_MOST_SEC 300

typedef struct virCheckpointRetry {
    virCheckpointEngine *engine;
    gchar *uuid;
    guint delaySec;  /* of the next timer */
    GSource *source; /* owned; NULL: no timer runs */
} virCheckpointRetry;

static void
virCheckpointRetryFree(gpointer data)
{
    virCheckpointRetry *retry = data;

    if (retry->source) {
        g_source_destroy(retry->source);
        g_source_unref(retry->source);
    }
    g_free(retry->uuid);
    g_free(retry);
}

static void
virCheckpointRetryTask(virCheckpointEngine *engine, gpointer data)
{
    const gchar *uuid = data;
    g_autoptr(GError) error = NULL;
    virCheckpointRetry *retry;

    if (virCheckpointEngineStopping(engine))
        return;
    virCheckpointEngineUnsettle(engine, uuid);
    if (!virCheckpointEngineSettle(engine, uuid, &error)) {
        g_info("domain %s is not settled yet: %s", uuid, error->message);
        virCheckpointEngineSettleLater(engine, uuid);
        return;
    }
    g_mutex_lock(&engine->lock);
    retry = g_hash_table_lookup(engine->retries, uuid);
    if (retry && !retry->source) /* else something failed again */
        g_hash_table_remove(engine->retries, uuid);
    g_mutex_unlock(&engine->lock);
}

/* On the main context: the retry is not freed while its timer has not run. */
static gboolean
virCheckpointRetryDue(gpointer data)
{
    virCheckpointRetry *retry = data;
    virCheckpointEngine *engine = retry->engine;
    gchar *uuid;

    g_mutex_lock(&engine->lock);
    uuid = g_strdup(retry->uuid);
    retry->delaySec = MIN(retry->delaySec * 2, RETRY_MOST_SEC);
    g_clear_pointer(&retry->source, g_source_unref);
    g_mutex_unlock(&engine->lock);
    virCheckpointEngineSpawn(engine, virCheckpointRetryTask, uuid, g_free);
    return G_SOURCE_REMOVE;
}

void
virCheckpointEngineSettleLater(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointEngineUnsettle(engine, uuid);
    virCheckpointEngineAskAgain(engine, uuid);
}

void
virCheckpointEngineAskAgain(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointRetry *retry;

    g_mutex_lock(&engine->lock);
    retry = g_hash_table_lookup(engine->retries, uuid);
    if (!retry) {
        retry = g_new0(virCheckpointRetry, 1);
        retry->engine = engine;
        retry->uuid = g_strdup(uuid);
        retry->delaySec = RETRY_FIRST_SEC;
        g_hash_table_insert(engine->retries, retry->uuid, retry);
    }
    if (!retry->source && !engine->stopping) {
        retry->source = g_timeout_source_new_seconds(retry->delaySec);
        g_source_set_callback(retry->source, virCheckpointRetryDue, retry, NULL);
        g_source_attach(retry->source, NULL);
    }
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointRetryInit(virCheckpointEngine *engine)
{
    engine->retries =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, virCheckpointRetryFree);
}

void
virCheckpointRetryFini(virCheckpointEngine *engine)
{
    g_hash_table_unref(engine->retries);
}
