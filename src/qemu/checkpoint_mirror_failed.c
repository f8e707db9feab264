/*
 * checkpoint_mirror_failed.c: why the last copy of a disk failed
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Libvirt's events say that a block job failed and not why; with stock the reason is in
 * the log alone.  A job that failed is kept here until the next one of its disk begins,
 * so that whoever started it can be told.
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_mirrorpriv.h"

static gchar *
virCheckpointMirrorFailedKey(const virCheckpointMirror *mirror)
{
    return g_strdup_printf("%s/%s", mirror->uuid, mirror->target);
}

static GHashTable *
virCheckpointMirrorFailedNew(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                 (GDestroyNotify)virCheckpointMirrorUnref);
}

void
virCheckpointMirrorRememberFailed(virCheckpointMirror *mirror)
{
    virCheckpointEngine *engine = mirror->engine;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);

    if (!engine->failedMirrors)
        engine->failedMirrors = virCheckpointMirrorFailedNew();
    g_hash_table_insert(engine->failedMirrors, virCheckpointMirrorFailedKey(mirror),
                        virCheckpointMirrorRef(mirror));
}

void
virCheckpointMirrorForgetFailed(virCheckpointMirror *mirror)
{
    virCheckpointEngine *engine = mirror->engine;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    g_autofree gchar *key = virCheckpointMirrorFailedKey(mirror);

    if (engine->failedMirrors)
        g_hash_table_remove(engine->failedMirrors, key);
}

virCheckpointJson *
virCheckpointEngineMirrorError(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               GError **error)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&engine->mirrorLock);
    GHashTableIter iter;
    gpointer value;

    if (!disk) {
        g_set_error_literal(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INVALID_ARG,
                            "parameter 'disk' is missing");
        return NULL;
    }
    if (!engine->failedMirrors)
        return virCheckpointJsonNewObject();
    g_hash_table_iter_init(&iter, engine->failedMirrors);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const virCheckpointMirror *mirror = value;

        if (g_str_equal(mirror->uuid, uuid) && virCheckpointMirrorIsOn(mirror, disk))
            return virCheckpointJsonBuild("i:code", (gint64)mirror->job->errorCode,
                                          "s:message", mirror->job->error, NULL);
    }
    return virCheckpointJsonNewObject();
}
